package recipients

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
)

func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "user@example.com\nuser-x@example.com\n")
	w := newWorld(t)
	cfg := fileConfig(path)
	cfg.One.MaxAge = time.Nanosecond // always stale
	cfg.Delimiter = "+"
	d := w.open(cfg)
	reload := func(change func(*Config)) {
		t.Helper()
		change(&cfg)
		if err := d.Reload(cfg); err != nil {
			t.Fatal(err)
		}
	}
	unknown := func(want smtp.Disposition) {
		t.Helper()
		expect(t, d, map[string]smtp.Disposition{"nobody@example.com": want, "user+list@example.com": smtp.Exists})
	}
	unknown(smtp.Unsure)
	reload(func(c *Config) { c.WhenStale = StaleExact })
	unknown(smtp.Unknown)
	reload(func(c *Config) { c.Domains = []DomainConfig{{"STALE.example", StaleAccept}} })
	unknown(smtp.Unknown)
	expect(t, d, map[string]smtp.Disposition{"nobody@stale.example": smtp.Exists})
	reload(func(c *Config) { c.Domains = nil })
	expect(t, d, map[string]smtp.Disposition{"nobody@stale.example": smtp.Unknown})
	reload(func(c *Config) { c.Delimiter = "-" })
	expect(t, d, map[string]smtp.Disposition{"user+list@example.com": smtp.Unknown, "user-list@example.com": smtp.Exists, "user-x@example.com": smtp.Exists})
	reload(func(c *Config) { c.Delimiter = "+" })

	// A fault changes nothing.
	broken := cfg
	broken.WhenStale, broken.Delimiter = StaleAccept, "a"
	if err := d.Reload(broken); err == nil || !strings.Contains(err.Error(), "delimiter") {
		t.Errorf("error %v", err)
	}
	unknown(smtp.Unknown)

	// What needs a restart stays: the sources, and how their keys are made.
	reload(func(c *Config) { c.CaseSensitive, c.One = true, SourceConfig{} })
	expect(t, d, map[string]smtp.Disposition{"USER@example.com": smtp.Exists, "nobody@example.com": smtp.Unknown})
}

// Audit mode may come and go, and ask another primary; each time it begins anew.
func TestReloadAudit(t *testing.T) {
	t.Parallel()
	p := startPrimary(t, healthy)
	other := startPrimary(t, func(string) string { return "250 2.1.5 everybody" })
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "user@example.com\n")
	w := newWorld(t)
	cfg := fileConfig(path)
	d := w.open(cfg)
	w.run(d)
	lookup := func(audit bool, primary *primary) {
		t.Helper()
		cfg.Audit, cfg.AuditAddress = audit, ""
		if primary != nil {
			cfg.AuditAddress = primary.address()
		}
		if err := d.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		want := smtp.Unknown
		if audit {
			want = smtp.Exists
		}
		expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists, "nobody@example.com": want})
	}
	status := func(want AuditStatus) {
		t.Helper()
		waitFor(t, "the comparison", func() bool {
			st := d.Status().Audit
			st.Differences, st.Since = nil, time.Time{}
			return st.Refused == want.Refused && st.Agree == want.Agree && st.TooStrict == want.TooStrict
		})
	}
	lookup(false, p)
	if d.Status().Audit != nil || p.asked.Load() != 0 {
		t.Error("asked, and audit mode is off")
	}
	lookup(true, p)
	status(AuditStatus{Refused: 1, Agree: 2})
	lookup(true, p) // no change
	status(AuditStatus{Refused: 2, Agree: 2})
	lookup(true, other)
	status(AuditStatus{Refused: 1, Agree: 1, TooStrict: 1})
	lookup(true, nil)
	status(AuditStatus{Refused: 1})
	lookup(false, other)
	lookup(true, p)
	status(AuditStatus{Refused: 1, Agree: 2})
}

// Look-ups go on during a reload, each by one policy or the other.
func TestReloadWhileLookingUp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "user@example.com\n")
	w := newWorld(t)
	cfg := fileConfig(path)
	d := w.open(cfg)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists})
				if got, err := d.Lookup(t.Context(), "nobody@example.com"); err != nil || got == smtp.Unsure {
					t.Errorf("%s %v", got, err)
				}
			}
		})
	}
	for i := range 200 {
		cfg.Audit, cfg.WhenStale = i%2 == 0, []string{StaleExact, StaleTempfail}[i%2]
		if err := d.Reload(cfg); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
