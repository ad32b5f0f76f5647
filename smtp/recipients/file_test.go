package recipients

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
)

const list = `# recipients
user@example.com
Mixed.Case@Example.Com	some value that Postfix wants
  spaced@example.com  

"a b"@example.com OK
"plain"@example.com
buch@BÜCHER.example
jose` + "\u0301" + `@example.com
list+archive@example.com
@stale.example
`

func fileConfig(path string) Config {
	return Config{One: SourceConfig{Kind: KindFile, Path: path}, Delimiter: "+"}
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, list)
	w := newWorld(t)
	d := w.open(fileConfig(path))
	expect(t, d, map[string]smtp.Disposition{
		"user@example.com":                  smtp.Exists,
		"USER@EXAMPLE.COM":                  smtp.Exists,
		"user+anything@example.com":         smtp.Exists,
		"user+a+b@example.com":              smtp.Exists,
		`"user+a b"@example.com`:            smtp.Exists,
		"mixed.case@example.com":            smtp.Exists,
		"spaced@example.com":                smtp.Exists,
		`"a b"@example.com`:                 smtp.Exists,
		"plain@example.com":                 smtp.Exists,
		"buch@xn--bcher-kva.example":        smtp.Exists,
		"buch@bücher.example":               smtp.Exists,
		"josé@example.com":                  smtp.Exists,
		"JOSÉ@example.com":                  smtp.Exists,
		"list+archive@example.com":          smtp.Exists,
		"list@example.com":                  smtp.Unknown,
		"list+other@example.com":            smtp.Unknown,
		"anyone@stale.example":              smtp.Exists,
		"anyone@sub.stale.example":          smtp.Unknown,
		"use@example.com":                   smtp.Unknown,
		"userx@example.com":                 smtp.Unknown,
		"user@example.com.example.com":      smtp.Unknown,
		"+user@example.com":                 smtp.Unknown,
		`"user@example.com"@example.com`:    smtp.Unknown,
		"example.com@stale.example":         smtp.Exists,
		strings.Repeat("x", 900) + "@b.com": smtp.Unknown,
	})
	if got := w.alarms.keys(); got != "" {
		t.Errorf("alarms %q", got)
	}
	if _, err := d.Lookup(t.Context(), "a b@c"); err == nil {
		t.Error("no error for what is no address")
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "User@example.com\nlow@example.com\n")
	w := newWorld(t)
	cfg := fileConfig(path)
	cfg.CaseSensitive, cfg.Delimiter = true, ""
	d := w.open(cfg)
	expect(t, d, map[string]smtp.Disposition{
		"User@EXAMPLE.com":  smtp.Exists,
		"user@example.com":  smtp.Unknown,
		"low+x@example.com": smtp.Unknown,
	})
	cfg.CaseSensitive, cfg.Delimiter = false, "+-"
	d = w.open(cfg)
	expect(t, d, map[string]smtp.Disposition{
		"low-x@example.com": smtp.Exists,
		"low+x@example.com": smtp.Exists,
		"-low@example.com":  smtp.Unknown,
	})
}

func TestFileReloads(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "one@example.com\n")
	w := newWorld(t)
	d := w.open(fileConfig(path))
	w.run(d)
	is := func(address string, want smtp.Disposition) func() bool {
		return func() bool {
			got, err := d.Lookup(t.Context(), address)
			return err == nil && got == want
		}
	}
	if !is("one@example.com", smtp.Exists)() {
		t.Fatal("not read before Run")
	}
	write(t, path, "one@example.com\ntwo@example.com\n") // replaced
	waitFor(t, "the new file", is("two@example.com", smtp.Exists))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("three@example.com\n"); err != nil { // in place
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the appended line", is("three@example.com", smtp.Exists))
}

// What goes wrong with a file never takes recipients away.
func TestBadFileKeepsTheOld(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "user%d@example.com\n", i)
	}
	first := func(n int) string {
		return strings.Join(strings.SplitAfter(many.String(), "\n")[:n], "")
	}
	for _, tc := range []struct {
		name    string
		damage  func(t *testing.T, path string)
		alarm   string
		text    string
		unknown smtp.Disposition
	}{
		{"vanished", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, "recipients:file", "no such file", smtp.Unknown},
		{"emptied", func(t *testing.T, path string) { t.Helper(); write(t, path, "") }, "recipients:file:shrunk", "lost all 100", smtp.Unknown},
		{"cut", func(t *testing.T, path string) { t.Helper(); write(t, path, first(80)) }, "recipients:file:shrunk", "lost 20 of 100", smtp.Unknown},
		{"malformed", func(t *testing.T, path string) { t.Helper(); write(t, path, many.String()+"a b c\n<x@y>\nuser@\n") }, "recipients:file", "line 101", smtp.Unknown},
		{"binary", func(t *testing.T, path string) { t.Helper(); write(t, path, "user@example.com\n\x00\x00") }, "recipients:file", "NUL", smtp.Unknown},
		{"a long line", func(t *testing.T, path string) { t.Helper(); write(t, path, strings.Repeat("x", 1<<20)) }, "recipients:file", bufio.ErrTooLong.Error(), smtp.Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "list")
			write(t, path, many.String())
			w := newWorld(t)
			d := w.open(fileConfig(path))
			tc.damage(t, path)
			_ = d.Refresh(t.Context(), "file")
			_ = d.Refresh(t.Context(), "file") // nothing new, and still wrong
			if got := w.alarms.keys(); got != tc.alarm {
				t.Errorf("alarms %q", got)
			}
			if got := w.alarms.text(tc.alarm); !strings.Contains(got, tc.text) {
				t.Errorf("alarm %q", got)
			}
			expect(t, d, map[string]smtp.Disposition{"user99@example.com": smtp.Exists, "user0@example.com": smtp.Exists, "nobody@example.com": tc.unknown})
			write(t, path, many.String())
			if err := d.Refresh(t.Context(), "file"); err != nil {
				t.Error(err)
			}
			if got := w.alarms.keys(); got != "" {
				t.Errorf("alarms after the repair: %q", got)
			}
		})
	}
}

// A file that is being written is read again later.
func TestFileChangesWhileRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "a@example.com x\nexample.com x\n")
	f := &file{path: path, format: FormatPostmap, max: 1 << 20}
	grow := true
	l := newListing(rules{}, nil, func(string) bool {
		if grow { // the reader is in the middle of the file
			w, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return true
			}
			if _, err := w.WriteString("b@example.com x\n"); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if _, err := f.fetch(t.Context(), l); err == nil || !strings.Contains(err.Error(), "changed while") {
		t.Errorf("error %v", err)
	}
	grow = false
	if _, err := f.fetch(t.Context(), l); err != nil {
		t.Error(err)
	}
	if _, err := f.fetch(t.Context(), l); !errors.Is(err, errUnchanged) {
		t.Errorf("error %v", err)
	}
}

func TestSmallLossIsBelieved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "a@example.com\nb@example.com\nc@example.com\n")
	w := newWorld(t)
	d := w.open(fileConfig(path))
	write(t, path, "a@example.com\n")
	if err := d.Refresh(t.Context(), "file"); err != nil {
		t.Fatal(err)
	}
	expect(t, d, map[string]smtp.Disposition{"a@example.com": smtp.Exists, "b@example.com": smtp.Unknown})
	write(t, path, "")
	if err := d.Refresh(t.Context(), "file"); err != nil {
		t.Fatal(err)
	}
	expect(t, d, map[string]smtp.Disposition{"a@example.com": smtp.Exists})
	if err := d.Approve("file"); err != nil {
		t.Fatal(err)
	}
	expect(t, d, map[string]smtp.Disposition{"a@example.com": smtp.Unknown})
	if err := d.Approve("file"); err == nil {
		t.Error("approved twice")
	}
	if err := d.Approve("other"); err == nil {
		t.Error("approved what is not there")
	}
}

// A list that never was whole cannot say "unknown".
func TestFirstReadIsBad(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"malformed": "user@example.com\nno good\x07\n", "empty": "# nothing yet\n", "absent": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "list")
			if text != "" {
				write(t, path, text)
			}
			w := newWorld(t)
			cfg := fileConfig(path)
			cfg.WhenStale = StaleExact
			d := w.open(cfg)
			expect(t, d, map[string]smtp.Disposition{"nobody@example.com": smtp.Unsure})
			if name == "malformed" {
				expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists})
			}
			if w.alarms.keys() == "" {
				t.Error("no alarm")
			}
			write(t, path, "user@example.com\n")
			if err := d.Refresh(t.Context(), "file"); err != nil {
				t.Fatal(err)
			}
			expect(t, d, map[string]smtp.Disposition{"nobody@example.com": smtp.Unknown, "user@example.com": smtp.Exists})
			if got := w.alarms.keys(); got != "" {
				t.Errorf("alarms %q", got)
			}
		})
	}
}

func TestWhenStale(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "user@example.com\n")
	old := time.Now().Add(-3 * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	cfg := fileConfig(path)
	cfg.One.MaxAge = 2 * time.Hour
	cfg.Domains = []DomainConfig{{"bücher.example", StaleExact}, {"stale.example", StaleAccept}}
	d := w.open(cfg)
	expect(t, d, map[string]smtp.Disposition{
		"user@example.com":      smtp.Exists,
		"nobody@example.com":    smtp.Unsure,
		"nobody@bücher.example": smtp.Unknown,
		"nobody@stale.example":  smtp.Exists,
	})
	d.sources[0].checkAge(time.Now())
	if got := w.alarms.keys(); got != "recipients:file:stale" {
		t.Errorf("alarms %q", got)
	}
	if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := d.Refresh(t.Context(), "file"); err != nil {
		t.Fatal(err)
	}
	expect(t, d, map[string]smtp.Disposition{"nobody@example.com": smtp.Unknown, "nobody@stale.example": smtp.Unknown})
	d.sources[0].checkAge(time.Now())
	if got := w.alarms.keys(); got != "" {
		t.Errorf("alarms %q", got)
	}
}

// The whole way with a million lines: file, set, look-up, snapshot.
func TestMillionLines(t *testing.T) {
	if testing.Short() {
		t.Skip("a million lines")
	}
	const n = 1_000_000
	path := filepath.Join(t.TempDir(), "list")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(f)
	for i := range n {
		if _, err := fmt.Fprintf(out, "user.%07d@example.com\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	before := heap()
	began := time.Now()
	d := w.open(fileConfig(path))
	t.Logf("read in %v, %d MiB", time.Since(began), (heap()-before)>>20)
	if used := (heap() - before) >> 20; used > 200 {
		t.Errorf("%d MiB", used)
	}
	expect(t, d, map[string]smtp.Disposition{"user.0000000@example.com": smtp.Exists, "user.0999999@example.com": smtp.Exists, "user.1000000@example.com": smtp.Unknown})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	again := w.open(fileConfig(path))
	t.Logf("snapshot read in %v", time.Since(began))
	expect(t, again, map[string]smtp.Disposition{"user.0999999@example.com": smtp.Exists, "user.1000000@example.com": smtp.Unknown})
}

func BenchmarkLookup(b *testing.B) {
	bld := newBuilder()
	for i := range 1_000_000 {
		if err := bld.add(fmt.Appendf(nil, "user.%07d@example.com", i)); err != nil {
			b.Fatal(err)
		}
	}
	d := &Directory{metrics: newMetrics(nil)}
	d.policy.Store(&policy{rules: rules{delimiters: "+"}})
	d.sources = []*source{{current: &state{keys: bld.done(), whole: true, asOf: time.Now()}}}
	addresses := make([]string, 4096)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("user.%07d@example.com", i*243)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if got, _ := d.Lookup(b.Context(), addresses[i%len(addresses)]); got != smtp.Exists {
			b.Fatal(got)
		}
		i++
	}
}
