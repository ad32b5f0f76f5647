package recipients

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/integration/servers"
	"understudy/smtp"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	db := servers.PostgreSQL(t)
	db.Exec(
		"CREATE TABLE users (address text)",
		"INSERT INTO users SELECT 'user' || n || '@example.com' FROM generate_series(1, 1000) n",
		"INSERT INTO users VALUES (NULL), ('@stale.example'), ('User1@Example.com')",
	)
	dsn := filepath.Join(t.TempDir(), "dsn")
	write(t, dsn, db.DSN()+"\n")
	q := newSQL(SourceConfig{Driver: "postgres", DSNFile: dsn, Query: "SELECT address FROM users"})
	keys, _, err := fetchAll(t, q)
	if err != nil || len(keys) != 1001 || !slices.Contains(keys, "user1000@example.com") || !slices.Contains(keys, "@stale.example") {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	q.Text = "SELECT nothing FROM users"
	if _, _, err := fetchAll(t, q); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error %v", err)
	}
	q.Text = "SELECT pg_sleep(1000)::text"
	wantTimeout(t, q)
	q.Text = "SELECT address FROM users"
	db.Freeze()
	wantTimeout(t, q)
	db.Thaw()
	if keys, _, err := fetchAll(t, q); err != nil || len(keys) != 1001 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// wantTimeout: the end of the context ends a query that hangs.
func wantTimeout(t *testing.T, f fetcher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := f.fetch(ctx, newListing(rules{}, nil, nil))
	if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(errorText(err), "timeout") || time.Since(began) > 10*time.Second {
		t.Errorf("error %v after %v", err, time.Since(began))
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func mariaSource(t *testing.T, dsn, query string) SourceConfig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsn")
	write(t, path, dsn+"\n")
	return SourceConfig{Kind: KindSQL, Name: "mailboxes", Driver: "mysql", DSNFile: path, Query: query, Timeout: 10 * time.Second}
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	db := servers.MariaDB(t)
	db.Exec(
		"CREATE DATABASE mail CHARACTER SET utf8mb4",
		"CREATE TABLE mail.mailbox (email VARCHAR(255), active BOOL)",
		"CREATE TABLE mail.alias (source VARBINARY(255), target TEXT)",
		"INSERT INTO mail.mailbox SELECT CONCAT('user', seq, '@example.com'), 1 FROM mail.seq_1_to_1000",
		"INSERT INTO mail.mailbox VALUES (NULL, 1), ('', 1), ('USER7@Example.COM', 1), ('user7@example.com', 1), ('gone@example.com', 0), ('jürgen@bücher.example', 1)",
		"INSERT INTO mail.alias VALUES ('info@example.com', 'user1@example.com'), (NULL, 'x'), ('@stale.example', 'user1@example.com'), ('user7@example.com', 'y')",
		"CREATE USER understudy@'%' IDENTIFIED BY 'sesame'",
		"GRANT SELECT ON mail.* TO understudy@'%'",
	)
	const query = "SELECT email FROM mailbox WHERE active UNION ALL SELECT source FROM alias"
	sc := mariaSource(t, db.DSN("understudy", "sesame", "mail"), query)
	w := newWorld(t)
	d := w.open(Config{One: sc, Delimiter: "+"})
	refresh := func(want string) {
		t.Helper()
		err := d.Refresh(t.Context(), "mailboxes")
		if want == "" && err != nil || !strings.Contains(errorText(err), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	refresh("")
	// NULLs and empty strings are nobody, what is there twice counts once.
	if st := d.Status().Sources[0]; st.Entries != 1003 || !st.Fresh {
		t.Errorf("%+v", st)
	}
	known := map[string]smtp.Disposition{
		"user1@example.com": smtp.Exists, "user7+list@example.com": smtp.Exists, "info@example.com": smtp.Exists,
		"any@stale.example": smtp.Exists, "jürgen@bücher.example": smtp.Exists,
		"gone@example.com": smtp.Unknown, "user1001@example.com": smtp.Unknown,
	}
	expect(t, d, known)

	// It dies and comes back; the list stays in force and follows again.
	db.Kill()
	for range 3 {
		refresh("source mailboxes: query: ")
	}
	if !strings.Contains(w.alarms.text("recipients:mailboxes"), "source mailboxes") {
		t.Errorf("alarms %s", w.alarms.keys())
	}
	expect(t, d, known)
	db.Start()
	db.Exec("INSERT INTO mail.mailbox VALUES ('new@example.com', 1)")
	refresh("")
	expect(t, d, known)
	expect(t, d, map[string]smtp.Disposition{"new@example.com": smtp.Exists})
	if keys := w.alarms.keys(); keys != "" {
		t.Errorf("alarms %s", keys)
	}

	// Wrong password, missing table: the error names the source and no secret.
	write(t, sc.DSNFile, db.DSN("understudy", "wrong-secret", "mail")+"\n")
	refresh("source mailboxes: query: Error 1045 (28000): Access denied for user 'understudy'")
	if logs := w.logs.String(); strings.Contains(logs, "wrong-secret") || strings.Contains(logs, "sesame") {
		t.Errorf("a secret in the log:\n%s", logs)
	}
	write(t, sc.DSNFile, db.DSN("understudy", "sesame", "mail")+"\n")
	db.Exec("RENAME TABLE mail.alias TO mail.aliases")
	refresh("source mailboxes: query: Error 1146")
	expect(t, d, known)
}

// A query, a server and a connection that hang end with the time-out; rows that
// end early are no answer.
func TestMariaDBHangs(t *testing.T) {
	t.Parallel()
	db := servers.MariaDB(t)
	fetcherOf := func(dsn, query string) fetcher { return newSQL(mariaSource(t, dsn, query)) }
	root := db.DSN("root", "", "mysql")
	wantTimeout(t, fetcherOf(root, "SELECT SLEEP(1000)"))
	db.Freeze()
	wantTimeout(t, fetcherOf(root, "SELECT 'a@example.com'"))
	db.Thaw()

	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // a fake
	wantTimeout(t, fetcherOf("u:p@tcp("+silent.Addr().String()+")/mail", "SELECT 1"))

	// Killed while it sends: most rows have arrived.
	stream := fetcherOf(root, "SELECT CONCAT('user', seq, '@example.com') FROM seq_1_to_100000 WHERE seq < 50000 OR SLEEP(1000) = 0")
	l := newListing(rules{}, nil, nil)
	failed := make(chan error, 1)
	go func() {
		_, err := stream.fetch(t.Context(), l)
		failed <- err
	}()
	waitFor(t, "the pause between rows", func() bool {
		return db.Number("SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep' AND info LIKE '%seq_1_to%'") > 0
	})
	db.Kill()
	if err := <-failed; err == nil || l.keys.done().len() == 0 {
		t.Errorf("killed after %d rows: %v", l.keys.done().len(), err)
	}
}
