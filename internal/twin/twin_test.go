package twin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// site is a Checker of some items.
func site(t *testing.T, hook string, items ...Item) *Checker {
	t.Helper()
	c, err := New(Config{Items: items, Interval: time.Minute}, func(context.Context, string) (string, error) {
		if hook == "" {
			return "", errors.New("exit code 1")
		}
		return hook, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDifferencesAreNamed: the same paths at two moments stand for two sites.
func TestDifferencesAreNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := Item{Name: "files", Files: []string{dir + "/keys", dir + "/*.cf", dir + "/absent"}}
	webmail := Item{Name: "webmail", Files: []string{dir + "/config.php"}, Match: "des_key"}
	echo := Item{Name: "packages", Command: []string{"printf", "postfix 3\nother 1\n"}}
	echo.Name = "versions"
	shadow := Item{Name: "shadow", Hook: "shadow"}
	write(t, dir, "keys/a/one", "1")
	write(t, dir, "keys/two", "2")
	write(t, dir, "x.cf", "x")
	write(t, dir, "config.php", "host a\ndes_key 1\n")
	a := site(t, "alice x\nbob y\n", files, webmail, echo, shadow).Marks(t.Context(), "salt")
	if d := Compare(a, site(t, "bob y\nalice x\n", files, webmail, echo, shadow).Marks(t.Context(), "salt")); len(d) > 0 {
		t.Fatalf("nothing differs but %v", d)
	}
	if text, err := json.Marshal(a); err != nil || strings.Contains(string(text), "des_key") || strings.Contains(string(text), "bob y") {
		t.Errorf("contents are in %s (%v)", text, err)
	}
	write(t, dir, "keys/a/one", "changed")
	write(t, dir, "keys/three", "3")
	if err := os.Remove(filepath.Join(dir, "x.cf")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "config.php", "host b\ndes_key 1\n")
	echo.Command[1] = "postfix 4\nother 1\n"
	got := Compare(a, site(t, "", files, webmail, echo, shadow).Marks(t.Context(), "salt"))
	want := fmt.Sprintf("[files %[1]s/keys/a/one differs files %[1]s/keys/three is only there files %[1]s/x.cf is only here shadow is not compared: there: hook shadow: exit code 1 versions postfix differs]", dir)
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	for _, d := range got {
		if !d.Forbids || d.Unknown != (d.Name == "shadow") {
			t.Errorf("%s: forbids %t, unknown %t", d.Name, d.Forbids, d.Unknown)
		}
	}
	write(t, dir, "config.php", "host b\ndes_key 2\n")
	if d := Compare(a, site(t, "x", webmail).Marks(t.Context(), "salt")); !strings.Contains(fmt.Sprint(d), "webmail "+dir+"/config.php differs") {
		t.Errorf("another key: %v", d)
	}
	again := site(t, "x", webmail)
	if fmt.Sprint(again.Marks(t.Context(), "1")) == fmt.Sprint(again.Marks(t.Context(), "2")) {
		t.Error("the salt does not matter")
	}
}

// TestUnknownIsNotDifferent: what cannot be read forbids only what was asked for.
func TestUnknownIsNotDifferent(t *testing.T) {
	t.Parallel()
	ok := Mark{Hashes: map[string]string{"x": "1"}}
	for _, c := range []struct {
		name            string
		a, b            map[string]Mark
		unknown, forbid bool
	}{
		{"asked for", map[string]Mark{"i": {Fault: "permission denied"}}, map[string]Mark{"i": ok}, true, true},
		{"standard", map[string]Mark{"i": {Fault: "permission denied", Standard: true}}, map[string]Mark{"i": {Standard: true}}, true, false},
		{"older program there", map[string]Mark{"i": {Standard: true}}, nil, true, false},
		{"different", map[string]Mark{"i": {Standard: true, Hashes: ok.Hashes}}, map[string]Mark{"i": {Standard: true}}, false, true},
	} {
		d := Compare(c.a, c.b)
		if len(d) != 1 || d[0].Unknown != c.unknown || d[0].Forbids != c.forbid {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	dir := t.TempDir()
	write(t, dir, "directory/file", "1")
	big := Item{Name: "fails", Command: []string{"false"}}
	if m := site(t, "", big).Marks(t.Context(), "")["fails"]; m.Fault == "" {
		t.Error("a command that fails has a mark")
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "endless")); err != nil {
		t.Fatal(err)
	}
	if m := site(t, "", Item{Name: "z", Files: []string{dir}}).Marks(t.Context(), "")["z"]; !strings.Contains(m.Fault, "regular") {
		t.Errorf("a device: %+v", m)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, bad := range []Config{
		{Standard: []string{"exim"}, Interval: time.Minute},
		{Interval: time.Millisecond},
		{Interval: time.Minute, Items: []Item{{Name: "x"}}},
		{Interval: time.Minute, Items: []Item{{Name: "x", Hook: "h", Command: []string{"c"}}}},
		{Interval: time.Minute, Items: []Item{{Name: "postfix", Hook: "h"}}},
		{Interval: time.Minute, Items: []Item{{Name: "x", Files: []string{"relative"}}}},
		{Interval: time.Minute, Items: []Item{{Name: "x", Hook: "h", Match: "("}}},
	} {
		if bad.Validate() == nil {
			t.Errorf("accepted: %+v", bad)
		}
	}
	all := Config{Standard: []string{"postfix", "dovecot", "dkim", "roundcube", "packages"}, Interval: time.Minute}
	c, err := New(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(c.Marks(t.Context(), "s"), c.Marks(t.Context(), "s")); len(d) > 0 && !d[0].Unknown {
		t.Errorf("a machine differs from itself: %v", d)
	}
}
