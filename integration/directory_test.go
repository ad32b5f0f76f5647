package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/servers"
)

// TestDirectoriesDie: addresses come from a file, MariaDB, PostgreSQL, OpenLDAP
// and a Redis replica, united. All servers die and the daemon crashes: it still
// knows who exists. Its list gets too old: unknown addresses are answered by
// when_stale, which follows a reload. One after the other the servers come back.
func TestDirectoriesDie(t *testing.T) {
	t.Parallel()
	maria := servers.MariaDB(t)
	maria.Exec("CREATE DATABASE mail", "CREATE TABLE mail.users (address VARCHAR(255))", "INSERT INTO mail.users VALUES ('maria@example.test'), (NULL), ('Maria@Example.Test')")
	postgres := servers.PostgreSQL(t)
	postgres.Exec("CREATE TABLE users (address text)", "INSERT INTO users VALUES ('postgres@example.test')")
	slapd := servers.Slapd(t, func(net.IP) servers.DirectoryConfig {
		return servers.DirectoryConfig{Entries: "dn: cn=ldap,dc=example,dc=com\nobjectClass: inetOrgPerson\ncn: ldap\nsn: ldap\nmail: ldap@example.test\n\n"}
	})
	master := servers.Redis(t)
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := servers.Redis(t, "--replicaof", host, port)
	master.Do("SADD", "recipients", "redis@example.test")

	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), nil)
	secret := func(name, text string) string {
		path := filepath.Join(backup.Dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Long enough for a busy machine to ask in time, and no longer.
	source := func(name, kind string, keys map[string]any) map[string]any {
		keys["name"], keys["source"], keys["interval"], keys["timeout"], keys["max_age"] = name, kind, "200ms", "5s", "6s"
		return keys
	}
	backup.Set(lab.Settings{
		"log.level": "warn",
		"smtp.recipients.sources": []map[string]any{
			source("maria", "sql", map[string]any{"driver": "mysql", "dsn_file": secret("maria", maria.DSN("root", "", "mail")), "query": "SELECT address FROM users"}),
			source("postgres", "sql", map[string]any{"driver": "postgres", "dsn_file": secret("postgres", postgres.DSN()), "query": "SELECT address FROM users"}),
			source("ldap", "ldap", map[string]any{"url": "ldap://" + slapd.Addr, "base": "dc=example,dc=com", "bind_dn": servers.DirectoryAdmin, "password_file": secret("ldap", servers.DirectoryPassword)}),
			source("redis", "redis", map[string]any{"url": "redis://" + replica.Addr, "key": "recipients"}),
		},
	})
	if err := os.WriteFile(filepath.Join(backup.Dir, "recipients"), []byte("file@example.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	backup.Start()
	names := []string{"file", "maria", "postgres", "ldap", "redis"}
	answers := func(unknown string) func() error {
		return func() error {
			for _, name := range names {
				if reply := rcpt(t, backup.SMTP, name+"+list@example.test"); reply.Code != 250 {
					return fmt.Errorf("%s: %+v", name, reply)
				}
			}
			if reply := rcpt(t, backup.SMTP, "nobody@example.test"); !strings.HasPrefix(fmt.Sprintf("%d %s", reply.Code, reply.Text), unknown) {
				return fmt.Errorf("nobody: %+v, want %s", reply, unknown)
			}
			return nil
		}
	}
	lab.Wait(t, 10*time.Second, "all sources are read", answers("550 5.1.1"))

	maria.Kill()
	postgres.Kill()
	slapd.Kill()
	master.Kill()
	replica.Kill()
	backup.Kill()
	backup.Start()
	if err := answers("")(); err != nil {
		t.Errorf("after the death of all: %v", err)
	}
	lab.Wait(t, 15*time.Second, "the lists get too old", answers("450 4.1.1"))
	for _, tc := range []struct{ policy, unknown string }{{"exact", "550 5.1.1"}, {"accept", "250 "}, {"tempfail", "450 4.1.1"}} {
		backup.Set(lab.Settings{"smtp.recipients.when_stale": tc.policy})
		backup.Signal(syscall.SIGHUP)
		lab.Wait(t, 10*time.Second, tc.policy, answers(tc.unknown))
	}

	// The master last: until then the replica does not know how old its set is.
	maria.Start()
	postgres.Start()
	slapd.Start()
	replica.Start()
	lab.Wait(t, 10*time.Second, "three are back", func() error {
		fresh := 0
		for _, s := range checkRecipient(t, backup, "nobody@example.test").Sources {
			if !s.Stale {
				fresh++
			}
		}
		if fresh != 4 {
			return fmt.Errorf("%d of five are fresh", fresh)
		}
		return nil
	})
	if err := answers("450 4.1.1")(); err != nil {
		t.Error(err)
	}
	master.Start()
	master.Do("SADD", "recipients", "redis@example.test")
	lab.Wait(t, 15*time.Second, "all are back", answers("550 5.1.1"))
	backup.Stop()

	// No library writes past the log.
	text, err := os.ReadFile(backup.Log())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "redis: ") || strings.Contains(line, "[mysql]") {
			t.Errorf("in the log: %s", line)
		}
	}
}
