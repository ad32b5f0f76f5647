package accounts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func list(t *testing.T, cfg Config) ([]Account, error) {
	t.Helper()
	cfg.Timeout = 10 * time.Second
	return List(t.Context(), cfg, []string{"a", "b"})
}

func names(list []Account) []string {
	out := []string{}
	for _, a := range list {
		out = append(out, a.Name)
	}
	return out
}

func TestFilesOfBothForms(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "lines"), "# people\nbob@example.com\n\n  alice@example.com  # the boss\nbob@example.com\n")
	write(t, filepath.Join(dir, "more.yaml"), `
- name: carol@example.com
  at:
    a: {user: carol}
    b: {user: caz, password_file: /etc/carol}
- name: dave
`)
	got, err := list(t, Config{File: filepath.Join(dir, "*")})
	if err != nil {
		t.Fatal(err)
	}
	want := []Account{
		{Name: "alice@example.com", At: map[string]Login{"a": {User: "alice@example.com"}, "b": {User: "alice@example.com"}}},
		{Name: "bob@example.com", At: map[string]Login{"a": {User: "bob@example.com"}, "b": {User: "bob@example.com"}}},
		{Name: "carol@example.com", At: map[string]Login{"a": {User: "carol"}, "b": {User: "caz", PasswordFile: "/etc/carol"}}},
		{Name: "dave", At: map[string]Login{"a": {User: "dave"}, "b": {User: "dave"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

// A list that is not whole is no list: an account that seems gone is never the
// result of a failure.
func TestListIsWholeOrFails(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"missing file":     {Config{File: filepath.Join(dir, "none")}, "file does not exist"},
		"empty directory":  {Config{File: filepath.Join(dir, "none.d", "*")}, "file does not exist"},
		"failing program":  {Config{Command: []string{"/bin/sh", "-c", "echo alice; echo oh dear >&2; exit 3"}}, "exit status 3: oh dear"},
		"unknown site":     {Config{File: write(t, filepath.Join(dir, "s.yaml"), "- {name: x, at: {c: {user: x}}}")}, `"c" is not a site (a, b)`},
		"unknown key":      {Config{File: write(t, filepath.Join(dir, "k.yaml"), "- {name: x, user: y}")}, "field user not found"},
		"path in the name": {Config{File: write(t, filepath.Join(dir, "p"), "ok\n../etc/passwd\n")}, "p:2: account \"../etc/passwd\""},
		"two logins":       {Config{File: write(t, filepath.Join(dir, "t.yaml"), "- {name: x}\n- {name: x, at: {a: {user: y}}}")}, "account x is there twice"},
		"no name":          {Config{File: write(t, filepath.Join(dir, "n.yaml"), "- {at: {a: {user: y}}}")}, "an account without a name"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := list(t, tc.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want an error with %q", got, err, tc.want)
			}
		})
	}
}

func TestCommandAndPatterns(t *testing.T) {
	got, err := list(t, Config{
		Command: []string{"printf", `a@x.org\nb@x.org\nc@y.org\n`},
		Include: []string{"*@X.ORG"}, Exclude: []string{"b@*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a@x.org"}, names(got)); diff != "" {
		t.Error(diff)
	}
}

func TestCommandEndsWithItsTime(t *testing.T) {
	cfg := Config{Command: []string{"sleep", "600"}, Timeout: 50 * time.Millisecond}
	if _, err := List(context.WithoutCancel(t.Context()), cfg, []string{"a", "b"}); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("a program that hangs: %v", err)
	}
}

func TestRowNamesBothSites(t *testing.T) {
	c := &collector{sites: []string{"a", "b"}, seen: map[string]Account{}}
	for n, row := range [][]string{{"x"}, {"y", "ya", "yb"}, {""}, {"z", "", "zb"}} {
		if err := c.row(n+1, row); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]Account{
		"x": {Name: "x", At: map[string]Login{"a": {User: "x"}, "b": {User: "x"}}},
		"y": {Name: "y", At: map[string]Login{"a": {User: "ya"}, "b": {User: "yb"}}},
		"z": {Name: "z", At: map[string]Login{"a": {User: "z"}, "b": {User: "zb"}}},
	}
	if diff := cmp.Diff(want, c.seen); diff != "" {
		t.Error(diff)
	}
}

func TestValidate(t *testing.T) {
	good := Config{File: "/etc/accounts", Timeout: time.Minute}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]Config{
		"file: pattern":              {File: "/etc/[", Timeout: 1},
		"include: pattern":           {Include: []string{"["}, Timeout: 1},
		"query: is missing":          {Driver: "mysql", Timeout: 1},
		`driver: "oracle"`:           {Query: "SELECT 1", Driver: "oracle", Timeout: 1},
		"dsn_file: is missing":       {Query: "SELECT 1", Driver: "mysql", Timeout: 1},
		"timeout: must be more than": {},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
}
