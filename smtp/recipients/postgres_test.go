package recipients

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// postgresServer starts a real PostgreSQL on a unix socket and returns the socket's
// directory.
func postgresServer(t *testing.T) string {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		t.Skip("no PostgreSQL server here")
	}
	bin := filepath.Dir(bins[len(bins)-1])
	attr := &syscall.SysProcAttr{}
	// Short, because the path of a unix socket is: not t.TempDir.
	dir, err := os.MkdirTemp("", "pg") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip("no user postgres here")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	initdb := exec.CommandContext(t.Context(), filepath.Join(bin, "initdb"), "-D", dir+"/db", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := exec.CommandContext(context.Background(), filepath.Join(bin, "postgres"), "-D", dir+"/db", "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	server.SysProcAttr, server.Dir = attr, dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait() // ends by the signal
	})
	psql := func(statement string) ([]byte, error) {
		return exec.CommandContext(t.Context(), filepath.Join(bin, "psql"), "-h", dir, "-U", "postgres", "-c", statement).CombinedOutput()
	}
	waitFor(t, "PostgreSQL", func() bool { _, err := psql("SELECT 1"); return err == nil })
	out, err := psql("CREATE TABLE users (address text); INSERT INTO users SELECT 'user' || n || '@example.com' FROM generate_series(1, 1000) n; INSERT INTO users VALUES (NULL), ('@stale.example')")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	host := postgresServer(t)
	dsn := filepath.Join(t.TempDir(), "dsn")
	write(t, dsn, "host="+host+" user=postgres dbname=postgres\n")
	q := newSQL(SourceConfig{Driver: "postgres", DSNFile: dsn, Query: "SELECT address FROM users"})
	keys, _, err := fetchAll(t, q)
	if err != nil || len(keys) != 1001 || !slices.Contains(keys, "user1000@example.com") || !slices.Contains(keys, "@stale.example") {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	q.query = "SELECT nothing FROM users"
	if _, _, err := fetchAll(t, q); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error %v", err)
	}
	q.query = "SELECT pg_sleep(1000)::text"
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := q.fetch(ctx, newListing(rules{}, nil, nil)); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("error %v after %v", err, time.Since(began))
	}
}
