package servers

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// MySQL is a running MariaDB.
type MySQL struct {
	*Server
	// Socket is a path, Addr host:port. On both, root needs no password.
	Socket, Addr string

	db *sql.DB
}

// MariaDB starts an empty MariaDB.
func MariaDB(tb testing.TB) *MySQL {
	tb.Helper()
	require.Command(tb, "mariadbd", "mariadb-install-db")
	dir := lab.Dir(tb)
	m := &MySQL{Socket: filepath.Join(dir, "socket"), Addr: lab.FreeAddr(tb)}
	host, port, err := net.SplitHostPort(m.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	args := []string{"--no-defaults", "--datadir=" + filepath.Join(dir, "db"), "--skip-name-resolve"}
	if os.Getuid() == 0 {
		args = append(args, "--user=root")
	}
	run(tb, dir, nil, find(tb, "mariadb-install-db"), append(args, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	m.Server = newServer(tb, dir, find(tb, "mariadbd"), append(
		args, "--socket="+m.Socket, "--bind-address="+host, "--port="+port, "--pid-file="+filepath.Join(dir, "pid"),
		"--innodb-buffer-pool-size=16M", "--skip-log-bin",
	)...)
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.Logger = "root", "unix", m.Socket, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	m.db = sql.OpenDB(connector)
	tb.Cleanup(func() { _ = m.db.Close() })
	m.ready = func() error { return m.db.PingContext(tb.Context()) }
	m.Start()
	return m
}

// Exec runs statements as root.
func (m *MySQL) Exec(statements ...string) {
	m.tb.Helper()
	for _, s := range statements {
		if _, err := m.db.ExecContext(m.tb.Context(), s); err != nil {
			m.tb.Fatalf("%s: %v", s, err)
		}
	}
}

// Number returns the single number that a query returns.
func (m *MySQL) Number(query string) (n int64) {
	m.tb.Helper()
	if err := m.db.QueryRowContext(m.tb.Context(), query).Scan(&n); err != nil {
		m.tb.Fatalf("%s: %v", query, err)
	}
	return n
}

// DSN returns the data source name of a user over TCP.
func (m *MySQL) DSN(user, password, database string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", user, password, m.Addr, database)
}
