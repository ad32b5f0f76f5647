package recipients

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
)

func TestUnion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	people, aliases := filepath.Join(dir, "people"), filepath.Join(dir, "aliases")
	write(t, people, "user@example.com\n")
	write(t, aliases, "sales\tuser\nexample.com\tanything\n@bücher.example\tuser\n")
	w := newWorld(t)
	cfg := Config{
		Delimiter: "+",
		Sources: []SourceConfig{
			{Kind: KindFile, Name: "people", Path: people},
			{Kind: KindFile, Name: "aliases", Path: aliases, Format: FormatPostmap, BareDomains: []string{"example.com"}},
			{Kind: KindCommand, Name: "lists", Command: []string{"cat", filepath.Join(dir, "lists")}},
		},
	}
	d := w.open(cfg)
	expect(t, d, map[string]smtp.Disposition{
		"user@example.com": smtp.Exists, "sales@example.com": smtp.Exists, "x@bücher.example": smtp.Exists,
		"nobody@example.com": smtp.Unsure, // lists was not read yet
	})
	if err := d.Refresh(t.Context(), "lists"); err == nil {
		t.Error("no error for a command that fails")
	}
	expect(t, d, map[string]smtp.Disposition{"nobody@example.com": smtp.Unsure})
	write(t, filepath.Join(dir, "lists"), "list@example.com\n")
	if err := d.Refresh(t.Context(), "lists"); err != nil {
		t.Fatal(err)
	}
	expect(t, d, map[string]smtp.Disposition{"list@example.com": smtp.Exists, "nobody@example.com": smtp.Unknown})
	ex, err := d.Explain(t.Context(), "SALES+x@Example.com")
	if err != nil || ex.Answer != "exists" || ex.Address != "SALES+x@example.com" || len(ex.Sources) != 3 {
		t.Fatalf("%+v %v", ex, err)
	}
	if s := ex.Sources[1]; s.Answer != "yes" || s.Matched != "sales@example.com" || !s.Fresh || s.AsOf.IsZero() {
		t.Errorf("%+v", s)
	}
	if s := ex.Sources[0]; s.Answer != "no" || s.Matched != "" {
		t.Errorf("%+v", s)
	}
	if err := d.Refresh(t.Context(), "none"); !errors.Is(err, ErrNoSource) {
		t.Errorf("error %v", err)
	}
	if _, err := d.Explain(t.Context(), "a b"); !errors.Is(err, smtp.ErrAddress) {
		t.Errorf("error %v", err)
	}
	st := d.Status()
	if len(st.Sources) != 3 || st.Sources[2].Entries != 1 || !st.Sources[2].Fresh || st.Audit != nil {
		t.Errorf("%+v", st)
	}
}

// With everything dead a restart still knows the recipients, and how old that is.
func TestRestartWithEverythingDead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lists := filepath.Join(dir, "lists")
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "user%d@example.com\n", i)
	}
	write(t, lists, b.String())
	w := newWorld(t)
	cfg := Config{One: SourceConfig{Kind: KindCommand, Command: []string{"cat", lists}}}
	d := w.open(cfg)
	if err := d.Refresh(t.Context(), "command"); err != nil {
		t.Fatal(err)
	}
	first := d.Status().Sources[0].AsOf
	// An unchanged answer only renews the age.
	set := filepath.Join(w.deps.Dir, "command.set")
	before, err := os.Stat(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Refresh(t.Context(), "command"); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(set)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("an unchanged set was written again: %v", err)
	}
	second := d.Status().Sources[0].AsOf
	if !second.After(first) {
		t.Errorf("age was not renewed: %v, %v", first, second)
	}
	if err := os.Remove(lists); err != nil {
		t.Fatal(err)
	}

	d = w.open(cfg)
	if err := d.Refresh(t.Context(), "command"); err == nil {
		t.Error("no error")
	}
	expect(t, d, map[string]smtp.Disposition{"user999@example.com": smtp.Exists, "user1000@example.com": smtp.Unknown})
	if got := d.Status().Sources[0]; !got.AsOf.Equal(second) || got.Entries != 1000 || got.Error == "" {
		t.Errorf("%+v, want as of %v", got, second)
	}
	// The age of another set, as a crash between two writes may leave it, is not this one's.
	write(t, filepath.Join(w.deps.Dir, "command.age"), `{"id":1,"as_of":"2999-01-01T00:00:00Z"}`)
	if got := w.open(cfg).Status().Sources[0]; !got.AsOf.Equal(first) {
		t.Errorf("as of %v, want %v", got.AsOf, first)
	}
	cfg.One.MaxAge = time.Nanosecond
	d = w.open(cfg)
	expect(t, d, map[string]smtp.Disposition{"user999@example.com": smtp.Exists, "user1000@example.com": smtp.Unsure})
	// A command that asks for something else does not inherit the set.
	cfg.One.Command = []string{"cat", "/other"}
	expect(t, w.open(cfg), map[string]smtp.Disposition{"user999@example.com": smtp.Unsure})
}

// A damaged snapshot is noticed, whatever byte is damaged.
func TestDamagedSnapshot(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "user@example.com\n@stale.example\n")
	w := newWorld(t)
	w.open(fileConfig(path))
	good, err := os.ReadFile(filepath.Join(w.deps.Dir, "file.set"))
	if err != nil {
		t.Fatal(err)
	}
	if st, _, err := decodeSnapshot(good); err != nil || st.count() != 2 {
		t.Fatalf("good one: %v", err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x40
		if _, _, err := decodeSnapshot(bad); !errors.Is(err, errSnapshot) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, _, err := decodeSnapshot(good[:i]); !errors.Is(err, errSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	write(t, filepath.Join(w.deps.Dir, "file.set"), "nonsense")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	d := w.open(fileConfig(path))
	expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Unsure})
	if !strings.Contains(w.logs.String(), "recipient snapshot not read") {
		t.Error("not in the log")
	}
}

// While a loss waits for approval the source does not get younger, and what it
// says newly counts.
func TestShrinkGuard(t *testing.T) {
	t.Parallel()
	lists := filepath.Join(t.TempDir(), "lists")
	all := func(from, to int) string {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "user%d@example.com\n", i)
		}
		return b.String()
	}
	write(t, lists, all(0, 100))
	w := newWorld(t)
	cfg := Config{One: SourceConfig{Kind: KindCommand, Command: []string{"cat", lists}}}
	d := w.open(cfg)
	refresh := func() {
		t.Helper()
		if err := d.Refresh(t.Context(), "command"); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	was := d.Status().Sources[0].AsOf
	write(t, lists, all(60, 100)+"new@example.com\n")
	refresh()
	expect(t, d, map[string]smtp.Disposition{"user0@example.com": smtp.Exists, "new@example.com": smtp.Exists, "user99@example.com": smtp.Exists, "nobody@example.com": smtp.Unknown})
	if st := d.Status().Sources[0]; st.Entries != 100 || st.Pending != 41 || !st.AsOf.Equal(was) || !strings.Contains(st.Reason, "lost 59 of 100") {
		t.Errorf("%+v", st)
	}
	ex, err := d.Explain(t.Context(), "nobody@example.com")
	if err != nil || !strings.Contains(ex.Sources[0].Detail, "not believed") {
		t.Errorf("%+v %v", ex, err)
	}
	// It comes back by itself.
	write(t, lists, all(0, 99))
	refresh()
	expect(t, d, map[string]smtp.Disposition{"new@example.com": smtp.Unknown, "user0@example.com": smtp.Exists})
	if got := w.alarms.keys(); got != "" {
		t.Errorf("alarms %q", got)
	}
	// Or it is approved, and that survives a restart.
	write(t, lists, all(90, 99))
	refresh()
	if got := w.alarms.keys(); got != "recipients:command:shrunk" {
		t.Errorf("alarms %q", got)
	}
	if err := d.Approve("command"); err != nil {
		t.Fatal(err)
	}
	expect(t, d, map[string]smtp.Disposition{"user0@example.com": smtp.Unknown, "user90@example.com": smtp.Exists})
	expect(t, w.open(cfg), map[string]smtp.Disposition{"user0@example.com": smtp.Unknown, "user90@example.com": smtp.Exists})
	if got := w.alarms.keys(); got != "" {
		t.Errorf("alarms %q", got)
	}
}

func TestSuspicious(t *testing.T) {
	t.Parallel()
	keys := func(n int) *state {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprint(i))
		}
		return &state{keys: build(t, list...)}
	}
	for _, tc := range []struct {
		old, now int
		want     bool
	}{
		{100, 81, false},
		{100, 80, true},
		{99, 79, true},
		{99, 80, false},
		{50, 31, false},
		{50, 30, true},
		{101, 81, false},
		{1000, 801, false},
		{1000, 800, true},
		{1, 0, true},
		{100, 200, false},
		{0, 0, false},
	} {
		if got := suspicious(keys(tc.old), keys(tc.now), 20, 20); (got != "") != tc.want {
			t.Errorf("%d to %d: %q", tc.old, tc.now, got)
		}
	}
	if suspicious(nil, keys(0), 20, 20) == "" || suspicious(nil, keys(1), 20, 20) != "" {
		t.Error("first answer")
	}
}

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	good := []SourceConfig{
		{Kind: KindFile, Path: "/x"},
		{Kind: KindCommand, Command: []string{"x"}},
		{Kind: KindSQL, Driver: "mysql", DSNFile: "/x", Query: "x"},
		{Kind: KindLDAP, URL: "ldap://x", Base: "x"},
		{Kind: KindRedis, URL: "redis://x", Key: "x"},
		{Kind: KindCallout, Address: "x:25"},
	}
	if err := (Config{Sources: good, Delimiter: "+", WhenStale: StaleExact}).Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{
		Sources: []SourceConfig{
			{Kind: KindFile},
			{Kind: KindCommand, Shell: true, Command: []string{"a", "b"}},
			{Kind: KindSQL, Driver: "x"},
			{Kind: KindLDAP, Filter: "(", BindDN: "x"},
			{Kind: KindRedis},
			{Kind: KindCallout, Address: "x"},
			{Kind: "x", Name: "../x", Format: "x", MaxAge: -1, ShrinkShare: 101, ShrinkCount: -1, BareDomains: []string{"a b"}, MaxBytes: -1, Timeout: -1},
			{Kind: KindFile, Path: "/y"},
		},
		WhenStale: "x", Domains: []DomainConfig{{"", "y"}}, Delimiter: "a@", AuditAddress: "x",
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("no faults")
	}
	for _, key := range []string{
		"when_stale: ", "domains[0].name: ", "domains[0].when_stale: ", "delimiter: ", "audit_address: ",
		"sources[0].path: ", "sources[1].command: ", "sources[2].dsn_file: ", "sources[2].query: ", "sources[2].driver: ",
		"sources[3].url: ", "sources[3].base: ", "sources[3].filter: ", "sources[3].password_file: ", "sources[4].url: ", "sources[4].key: ", "sources[5].address: ",
		"sources[6].source: ", "sources[6].format: ", "sources[6].name: ", "sources[6].max_age: ", "sources[6].shrink_percent: ", "sources[6].shrink_count: ",
		"sources[6].bare_domains: ", "sources[6].max_output: ", "sources[6].timeout: ", "sources[7].name: ",
	} {
		if !strings.Contains("\n"+err.Error(), "\n"+key) {
			t.Errorf("no fault for %s", key)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}
