package mailfiles

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func walk(t *testing.T, path string, maxBytes int64) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := Walk(path, maxBytes, func(m Mail) error {
		name := strings.TrimPrefix(m.Name, path)
		if m.Cut {
			name += " cut"
		}
		got[name] = string(m.Raw)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMbox(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	text := "From a@x Tue Nov 24 10:00:00 2026\nSubject: 1\n\nhi\n>From me\n>>From you\nFrom is a word here\n\n" +
		"From b@x Tue Nov 24 10:00:00 2026\r\nSubject: 2\r\n\r\nho\r\n\r\n" +
		"From c@x Tue Nov 24 10:00:00 2026\nSubject: 3\n\n" + long + "\n\nFrom d@x\nSubject: 4\n\nend"
	p := put(t, t.TempDir(), "mbox", text)
	want := map[string]string{
		":1": "Subject: 1\n\nhi\nFrom me\n>From you\nFrom is a word here\n",
		":2": "Subject: 2\r\n\r\nho\r\n", ":3": "Subject: 3\n\n" + long + "\n", ":4": "Subject: 4\n\nend",
	}
	if d := cmp.Diff(want, walk(t, p, 1<<20)); d != "" {
		t.Error(d)
	}
	got := walk(t, p, 50)
	if len(got[":3 cut"]) != 50 || got[":4"] != want[":4"] {
		t.Errorf("%v", got)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "cur/1:2,S", "a")
	put(t, dir, "new/2", "bb")
	put(t, dir, "tmp/3", "c")
	put(t, dir, ".Junk/cur/4", "d")
	put(t, dir, "dovecot.index.log", "e")
	put(t, dir, ".hidden", "f")
	put(t, dir, "box", "From x\nS: 1\n\n1\n\nFrom y\nS: 2\n\n2\n")
	want := map[string]string{
		"/cur/1:2,S": "a", "/new/2": "bb", "/.Junk/cur/4": "d", "/box:1": "S: 1\n\n1\n", "/box:2": "S: 2\n\n2\n",
	}
	if d := cmp.Diff(want, walk(t, dir, 1<<20)); d != "" {
		t.Error(d)
	}
	if got := walk(t, dir, 1); got["/new/2 cut"] != "b" {
		t.Errorf("%v", got)
	}
	if err := Walk(filepath.Join(dir, "absent"), 1, nil); !os.IsNotExist(unwrap(err)) {
		t.Error(err)
	}
	stop := fmt.Errorf("stop")
	if err := Walk(dir, 1, func(Mail) error { return stop }); err == nil {
		t.Error("an error of fn is lost")
	}
}

func unwrap(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil || os.IsNotExist(err) {
			return err
		}
		err = u.Unwrap()
	}
}
