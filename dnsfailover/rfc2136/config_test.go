package rfc2136

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func valid(t *testing.T) Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tsig")
	if err := os.WriteFile(path, []byte("c2VjcmV0IG9mIHNpdGUgYQ==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Server: "192.0.2.53:53", Zone: "svc.example.net", TSIG: TSIG{Name: "site-a", SecretFile: path}}
}

func TestConfigNamesEveryFault(t *testing.T) {
	if err := valid(t).Validate(); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	c := Config{Server: "ns", Zone: ".", Name: "x.", TSIG: TSIG{Algorithm: "hmac-md5"}, Timeout: time.Hour}
	err := c.Validate()
	for _, key := range []string{"server:", "zone:", "name:", "tsig.name:", "tsig.algorithm:", "tsig.secret_file:", "timeout:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("no word of %s in: %v", key, err)
		}
	}
}

func TestSecretFile(t *testing.T) {
	c := valid(t)
	a, err := New(c, Deps{})
	if err != nil || a.name != "_understudy.svc.example.net." || string(a.link.key.secret) != "secret of site a" || a.link.key.name != "site-a." {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := os.Chmod(c.TSIG.SecretFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, Deps{}); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("a secret open to everybody: %v", err)
	}
	if err := os.WriteFile(c.TSIG.SecretFile, []byte("not base64!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.TSIG.SecretFile, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, Deps{}); err == nil || strings.Contains(err.Error(), "not base64!") {
		t.Errorf("a bad secret must be told without its text: %v", err)
	}
	if err := os.Remove(c.TSIG.SecretFile); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c, Deps{}); err == nil {
		t.Error("a missing secret was accepted")
	}
}
