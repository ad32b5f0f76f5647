package servers

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// Postgres is a running PostgreSQL. Server.Dir holds its unix socket, over which
// the user postgres needs no password.
type Postgres struct {
	*Server

	bin string // the directory of its programs
}

// PostgreSQL starts an empty PostgreSQL.
func PostgreSQL(tb testing.TB) *Postgres {
	tb.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		require.Command(tb, "/usr/lib/postgresql/*/bin/initdb")
		return nil
	}
	dir := lab.Dir(tb)
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			tb.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			tb.Fatal(err)
		}
	}
	p := &Postgres{bin: filepath.Dir(bins[len(bins)-1])}
	db := filepath.Join(dir, "db")
	run(tb, dir, attr, filepath.Join(p.bin, "initdb"), "-D", db, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	p.Server = newServer(tb, dir, filepath.Join(p.bin, "postgres"), "-D", db, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	p.attr = attr
	p.ready = func() error { _, err := p.psql(tb.Context(), "SELECT 1"); return err }
	p.Start()
	return p
}

// Exec runs statements as the user postgres.
func (p *Postgres) Exec(statements ...string) {
	p.tb.Helper()
	for _, s := range statements {
		if out, err := p.psql(p.tb.Context(), s); err != nil {
			p.tb.Fatalf("%s: %v\n%s", s, err, out)
		}
	}
}

func (p *Postgres) psql(ctx context.Context, statement string) ([]byte, error) {
	return exec.CommandContext(ctx, filepath.Join(p.bin, "psql"), "-h", p.Dir, "-U", "postgres", "-c", statement).CombinedOutput()
}

// DSN returns the data source name of the user postgres.
func (p *Postgres) DSN() string { return "host=" + p.Dir + " user=postgres dbname=postgres" }
