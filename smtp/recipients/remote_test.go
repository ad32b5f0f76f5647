package recipients

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"understudy/smtp"

	"understudy/internal/ask"
)

// fetchAll asks f once and returns the keys, sorted.
func fetchAll(t *testing.T, f fetcher, bare ...string) ([]string, time.Time, error) {
	t.Helper()
	l := newListing(rules{delimiters: "+"}, bare, func(d string) bool { return d == "example.com" })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	asOf, err := f.fetch(ctx, l)
	if err == nil {
		err = l.faulty()
	}
	var keys []string
	for k := range l.keys.done().all() {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	return keys, asOf, err
}

func TestCommand(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		cfg    SourceConfig
		want   string
		failed string
	}{
		{"argv", SourceConfig{Command: []string{"printf", `%s\n`, "a@example.com", "b@example.com; rm -rf /"}}, "a@example.com b@example.com;", ""},
		{"shell", SourceConfig{Command: []string{"echo a@example.com | cat"}, Shell: true}, "a@example.com", ""},
		{"bare names", SourceConfig{Command: []string{"printf", `user\nother\n`}}, "other@example.com user@example.com", ""},
		{"no such program", SourceConfig{Command: []string{"/does/not/exist"}}, "", "run command"},
		{"status", SourceConfig{Command: []string{"echo a@example.com; echo broken pipe to mx1 >&2; exit 3"}, Shell: true}, "a@example.com", "exit status 3: broken pipe to mx1"},
		{"too much", SourceConfig{Command: []string{"yes", "a@example.com"}, MaxBytes: 1 << 20}, "a@example.com", errTooLong.Error()},
		{"not text", SourceConfig{Command: []string{"head", "-c", "100", "/dev/zero"}}, "", "NUL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.cfg.Kind = KindCommand
			keys, _, err := fetchAll(t, newCommand(tc.cfg.withDefaults()), "example.com")
			if (err != nil) != (tc.failed != "") || err != nil && !strings.Contains(err.Error(), tc.failed) {
				t.Errorf("error %v, want %q", err, tc.failed)
			}
			if got := strings.Join(keys, " "); err == nil && got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A command that hangs ends with all it has started.
func TestCommandTimesOut(t *testing.T) {
	t.Parallel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	w := newWorld(t)
	d := w.open(Config{One: SourceConfig{
		Kind: KindCommand, Shell: true, Timeout: 300 * time.Millisecond,
		Command: []string{"sleep 1000 & echo $! >" + pidFile + "; echo a@example.com; wait"},
	}})
	began := time.Now()
	if err := d.Refresh(t.Context(), "command"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	expect(t, d, map[string]smtp.Disposition{"a@example.com": smtp.Unsure, "b@example.com": smtp.Unsure})
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the child", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// fakeDB is a database driver that returns fixed rows.
type fakeDB struct {
	columns []string
	rows    [][]driver.Value
	fail    error // after the rows
	query   string
}

func (f *fakeDB) Connect(context.Context) (driver.Conn, error) { return f, nil }
func (f *fakeDB) Driver() driver.Driver                        { return nil }
func (f *fakeDB) Prepare(string) (driver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (f *fakeDB) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (f *fakeDB) Close() error                                 { return nil }
func (f *fakeDB) QueryContext(_ context.Context, q string, _ []driver.NamedValue) (driver.Rows, error) {
	f.query = q
	return &fakeRows{f: f}, nil
}

type fakeRows struct {
	f *fakeDB
	n int
}

func (r *fakeRows) Columns() []string { return r.f.columns }
func (r *fakeRows) Close() error      { return nil }
func (r *fakeRows) Next(dest []driver.Value) error {
	if r.n == len(r.f.rows) {
		if r.f.fail != nil {
			return r.f.fail
		}
		return io.EOF
	}
	copy(dest, r.f.rows[r.n])
	r.n++
	return nil
}

func TestSQL(t *testing.T) {
	t.Parallel()
	dsn := filepath.Join(t.TempDir(), "dsn")
	write(t, dsn, "user:secret@host/db\n")
	rows := [][]driver.Value{{"a@example.com", int64(1)}, {nil, int64(2)}, {[]byte(" B@Example.com "), int64(3)}, {"", int64(4)}, {"@stale.example", int64(5)}}
	db := &fakeDB{columns: []string{"address", "n"}, rows: rows}
	var seen string
	q := &sqlQuery{ask.Query{DSNFile: dsn, Text: "SELECT address, n FROM users", Connector: func(d string) (driver.Connector, error) { seen = d; return db, nil }}}
	keys, asOf, err := fetchAll(t, q)
	if err != nil || strings.Join(keys, " ") != "@stale.example a@example.com b@example.com" {
		t.Errorf("got %q %v", keys, err)
	}
	if seen != "user:secret@host/db" || db.query != q.Text || time.Since(asOf) > time.Minute {
		t.Errorf("dsn %q, query %q, as of %v", seen, db.query, asOf)
	}
	// Rows that end early are no answer.
	db.fail = errors.New("connection lost")
	if _, _, err := fetchAll(t, q); err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("error %v", err)
	}
	db.fail, db.rows = nil, [][]driver.Value{{"no address", int64(1)}}
	if _, _, err := fetchAll(t, q); err == nil || !strings.Contains(err.Error(), "row 1") {
		t.Errorf("error %v", err)
	}
	// A bad data source name is not shown: it holds a password.
	for _, kind := range []string{"postgres", "mysql"} {
		write(t, dsn, "postgres://u:secret@[::bad/db?x=%zz\n")
		_, _, err := fetchAll(t, newSQL(SourceConfig{Driver: kind, DSNFile: dsn}))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", kind, err)
		}
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	m.RequireAuth("sesame")
	if err := m.Set("recipients:as_of", "99999999999"); err != nil { // the future is now
		t.Fatal(err)
	}
	secretFile := filepath.Join(t.TempDir(), "secret")
	write(t, secretFile, "sesame\n")
	var want []string
	for i := range 2500 { // more than one page
		a := fmt.Sprintf("user%04d@example.com", i)
		want = append(want, a)
		if _, err := m.SAdd("recipients", a); err != nil {
			t.Fatal(err)
		}
	}
	r := &redisSet{cfg: SourceConfig{URL: "redis://" + m.Addr(), Key: "recipients", SecretFile: secretFile}}
	keys, asOf, err := fetchAll(t, r)
	if err != nil || !slices.Equal(keys, want) || time.Since(asOf) > time.Minute {
		t.Errorf("%d keys as of %v, %v", len(keys), asOf, err)
	}
	if err := m.Set("recipients:as_of", "1700000000"); err != nil {
		t.Fatal(err)
	}
	if _, asOf, err = fetchAll(t, r); err != nil || asOf.Unix() != 1700000000 {
		t.Errorf("as of %v, %v", asOf, err)
	}
	if err := m.Set("recipients:as_of", "yesterday"); err != nil {
		t.Fatal(err)
	}
	if _, _, err = fetchAll(t, r); err == nil {
		t.Error("no error for a malformed age")
	}
	write(t, secretFile, "wrong\n")
	if _, _, err = fetchAll(t, r); err == nil {
		t.Error("no error for a wrong password")
	}
	m.Close()
	if _, _, err = fetchAll(t, r); err == nil {
		t.Error("no error for a dead server")
	}
}

func TestReplicaLag(t *testing.T) {
	t.Parallel()
	const unknown = -time.Second
	for info, want := range map[string]time.Duration{
		"role:master\r\nconnected_slaves:1\r\n":                                                             0,
		"role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:9\r\n":                           9 * time.Second,
		"# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:3600\r\n": time.Hour,
		"master_link_down_since_seconds:60\r\nmaster_link_status:down\r\n":                                  time.Minute,
		// Started while the master was dead.
		"role:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_link_down_since_seconds:-1\r\n": unknown,
		"role:slave\r\nmaster_link_status:down\r\n": unknown,
	} {
		got, known := replicaLag(info)
		if !known {
			got = unknown
		}
		if got != want {
			t.Errorf("%q: %v, want %v", info, got, want)
		}
	}
}

func TestLDAPAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a@b": "a@b", " a@b ": "a@b", "SMTP:a@b": "a@b", "smtp:a@b": "a@b", "mailto:a@b": "a@b",
		"X500:/o=x": "", "sip:a@b": "", "": "", "smtp:": "", `"a:b"@c`: `"a:b"@c`, "a@[IPv6:::1]": "a@[IPv6:::1]",
	} {
		if got, ok := ldapAddress(in); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q %t", in, got, ok)
		}
	}
}
