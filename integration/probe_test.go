package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/dnsfailover/probe"
	"understudy/integration/servers"
)

// TestProbesOfRealServers: a message goes into a real Dovecot by LMTP and comes out
// by IMAP, and nothing of it stays; a frozen server fails in time, with a reason.
func TestProbesOfRealServers(t *testing.T) {
	t.Parallel()
	redis := servers.Redis(t)
	dovecot := servers.DovecotIMAP(t, "protocols = imap lmtp", "service lmtp {", "  unix_listener lmtp {", "    mode = 0666", "  }", "}", "postmaster_address = postmaster@example.test")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("any\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const user = "probe@example.test"
	lmtp := filepath.Join(dovecot.Dir, "run", "lmtp")
	mailbox := probe.Config{Kind: probe.IMAP, Address: dovecot.Addr, User: user, PasswordFile: secret, Timeout: 5 * time.Second}
	secure := mailbox
	secure.Address, secure.TLS = dovecot.TLSAddr, "implicit"
	upgraded := mailbox
	upgraded.TLS, upgraded.InsecureTLS = "starttls", true
	mail := mailbox
	mail.Kind, mail.LMTP, mail.Recipient, mail.Timeout = probe.Mail, lmtp, user, 10*time.Second

	try := func(c probe.Config) error {
		t.Helper()
		s, err := probe.New([]probe.Config{c})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err = s.Probe(t.Context())
		if took := time.Since(begin); took > c.Timeout+time.Second {
			t.Errorf("%s took %s", c.Kind, took)
		}
		return err
	}
	for range 3 {
		if err := try(mail); err != nil {
			t.Fatalf("mail: %v", err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dovecot.Dir, "mail", "*", "Maildir", "[cn][ue][rw]", "*")); err != nil || len(left) != 0 {
		t.Errorf("the probe left %q, %v", left, err)
	}
	for name, c := range map[string]probe.Config{"imap": mailbox, "starttls": upgraded, "redis": {Kind: probe.Redis, Address: redis.Addr, Timeout: 5 * time.Second}} {
		if err := try(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := try(secure); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}

	redis.Freeze()
	dovecot.Freeze()
	defer redis.Thaw()
	defer dovecot.Thaw()
	for name, c := range map[string]probe.Config{
		"banner": {Kind: probe.SMTP, Address: dovecot.Addr}, "greeting": mailbox, "LMTP": mail, "PING": {Kind: probe.Redis, Address: redis.Addr},
	} {
		c.Timeout = 500 * time.Millisecond
		if err := try(c); err == nil || !strings.Contains(err.Error(), "not done within 500ms") {
			t.Errorf("frozen, %s: %v", name, err)
		}
	}
}
