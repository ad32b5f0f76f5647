package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"understudy/imapsync/sieve"
	"understudy/imapsync/wire"
	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/integration/servers"
)

// sieveSite is a Dovecot with Pigeonhole's ManageSieve.
func sieveSite(t *testing.T) (imap, managesieve string) {
	t.Helper()
	managesieve = lab.FreeAddr(t)
	host, port, err := net.SplitHostPort(managesieve)
	if err != nil {
		t.Fatal(err)
	}
	m := servers.DovecotIMAP(t, "protocols = imap sieve",
		fmt.Sprintf("service managesieve-login {\n  inet_listener sieve {\n    address = %s\n    port = %s\n  }\n}", host, port),
		"plugin {\n  sieve = file:~/sieve;active=~/.dovecot.sieve\n}")
	return m.Addr, managesieve
}

// The scripts of two real servers become equal through the command, with the
// master's login.
func TestSieveScriptsFollow(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "dovecot", "/usr/lib/dovecot/managesieve")
	binary, dir := lab.Binary(t), lab.Dir(t)
	imapA, sieveA := sieveSite(t)
	imapB, sieveB := sieveSite(t)
	files := map[string]string{
		"secret": "secret\n", "accounts": "joe\n",
		"us.yaml": fmt.Sprintf(`site: b
data_dir: %[1]s/data
mailsync:
  sites:
    a: {address: "imap://%[2]s", sieve: "%[3]s"}
    b: {address: "imap://%[4]s", sieve: "%[5]s"}
  auth: {master: master, password_file: %[1]s/secret}
  accounts: {file: %[1]s/accounts}
`, dir, imapA, sieveA, imapB, sieveB),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func(addr string) *sieve.Client {
		c, err := sieve.Dial(t.Context(), addr, wire.Config{Address: "imap://127.0.0.1"}, wire.Login{User: "joe", Secret: "any"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	run := func(want string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), binary, "-c", filepath.Join(dir, "us.yaml"), "mailsync", "sieve", "--all").CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("mailsync sieve: %v, %q, want %q", err, out, want)
		}
	}
	a, b := open(sieveA), open(sieveB)
	const script = "require [\"fileinto\"];\r\nif header :contains \"subject\" \"[list]\" { fileinto \"Lists\"; }\r\n"
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(a.Put(t.Context(), "main", script))
	check(a.Activate(t.Context(), "main"))
	check(b.Put(t.Context(), "holiday \"2026\"", "keep;\r\n"))
	run(`b: put "main"`)
	names, active, err := b.List(t.Context())
	check(err)
	if len(names) != 2 || active != "main" {
		t.Errorf("at b: %q, active %q", names, active)
	}
	text, err := b.Get(t.Context(), "main")
	check(err)
	if text != script {
		t.Errorf("script at b: %q", text)
	}
	check(b.Activate(t.Context(), "holiday \"2026\""))
	check(a.Delete(t.Context(), "holiday \"2026\"")) // active there: it comes back
	run(`a: put`)
	if _, active, err = a.List(t.Context()); err != nil || active != "holiday \"2026\"" {
		t.Errorf("at a: active %q, %v", active, err)
	}
	run("")
	// A script that no server understands is refused, and named.
	if err := b.Put(t.Context(), "bad", "nonsense!"); err == nil {
		t.Error("a bad script was taken")
	}
}
