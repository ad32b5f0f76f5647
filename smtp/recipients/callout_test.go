package recipients

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/internal/durable"
	"understudy/smtp"
)

// primary is an SMTP server that answers RCPT by a function.
type primary struct {
	t     *testing.T
	l     net.Listener
	rcpt  atomic.Pointer[func(address string) string]
	asked atomic.Int64 // RCPT commands
	conns atomic.Int64

	// For setup only:
	tls   *tls.Config       // offers STARTTLS
	says  map[string]string // other replies, by verb; "" is the greeting
	offer string            // extensions, each "250-NAME\r\n"

	mu    sync.Mutex
	heard []string // all commands; those within TLS begin with "tls "
}

func startPrimary(t *testing.T, rcpt func(string) string, setup ...func(*primary)) *primary {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{t: t, l: l}
	p.rcpt.Store(&rcpt)
	for _, f := range setup {
		f(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns.Add(1)
			wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				p.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return p
}

func (p *primary) address() string { return p.l.Addr().String() }

func (p *primary) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // a fake
	r := bufio.NewReader(c)
	say := func(s string) bool {
		_, err := fmt.Fprint(c, s+"\r\n")
		return err == nil
	}
	greeting := "220 primary"
	if other, ok := p.says[""]; ok {
		greeting = other
	}
	if !say(greeting) {
		return
	}
	secured := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		p.mu.Lock()
		p.heard = append(p.heard, secured+line)
		p.mu.Unlock()
		reply := "250 2.0.0 ok"
		other, differs := p.says[verb(line)]
		switch {
		case differs:
			reply = other
		case verb(line) == "EHLO" && p.tls != nil && secured == "":
			reply = "250-primary\r\n250-STARTTLS\r\n" + p.offer + "250 8BITMIME"
		case verb(line) == "EHLO":
			reply = "250-primary\r\n" + p.offer + "250 8BITMIME"
		case line == "STARTTLS":
			if !say("220 2.0.0 go ahead") {
				return
			}
			tc := tls.Server(c, p.tls)
			c, r, secured = tc, bufio.NewReader(tc), "tls "
			continue
		case strings.HasPrefix(line, "RCPT TO:<"):
			p.asked.Add(1)
			reply = (*p.rcpt.Load())(strings.TrimSuffix(strings.TrimPrefix(line, "RCPT TO:<"), ">"))
		case line == "QUIT":
			reply = "221 2.0.0 bye"
		}
		if !say(reply) || line == "QUIT" {
			return
		}
	}
}

func (p *primary) commands() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.heard, "|")
}

// healthy knows user and postmaster.
func healthy(address string) string {
	switch address = strings.ToLower(address); {
	case address == "user@example.com", strings.HasPrefix(address, "postmaster@"):
		return "250 2.1.5 ok"
	case address == "slow@example.com":
		return "450 4.2.0 greylisted"
	}
	return "550 5.1.1 no such user"
}

func calloutConfig(p *primary) Config {
	return Config{One: SourceConfig{Kind: KindCallout, Address: p.address()}, Delimiter: "+"}
}

func TestCallout(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, address string
		rcpt          func(string) string
		want          smtp.Disposition
		cached        bool
	}{
		{"accepted", "user@example.com", healthy, smtp.Exists, true},
		{"refused by a healthy primary", "nobody@example.com", healthy, smtp.Unknown, true},
		{"deferred", "slow@example.com", healthy, smtp.Unsure, false},
		{"refuses everybody", "nobody@example.com", func(string) string { return "554 5.7.1 relay access denied" }, smtp.Unsure, false},
		{"refuses everybody for now", "nobody@example.com", func(string) string { return "451 4.3.0 no database" }, smtp.Unsure, false},
		{"only postmaster is deferred", "nobody@example.com", func(a string) string {
			if strings.HasPrefix(a, "postmaster@") {
				return "451 4.3.0 later"
			}
			return "550 5.1.1 no"
		}, smtp.Unsure, false},
		{"accepts a name nobody has", "nobody@example.com", func(a string) string {
			if strings.HasPrefix(a, "no-such-user-") || strings.HasPrefix(a, "postmaster@") {
				return "250 ok"
			}
			return "550 5.1.1 no"
		}, smtp.Unsure, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := startPrimary(t, tc.rcpt)
			w := newWorld(t)
			d := w.open(calloutConfig(p))
			expect(t, d, map[string]smtp.Disposition{tc.address: tc.want})
			if got := d.callouts[0].cache.len() == 1; got != tc.cached {
				t.Errorf("remembered: %t", got)
			}
			asked := p.asked.Load()
			expect(t, d, map[string]smtp.Disposition{strings.ToUpper(tc.address): tc.want})
			if again := p.asked.Load() != asked; again == tc.cached {
				t.Errorf("asked again: %t", again)
			}
			ex, err := d.Explain(t.Context(), tc.address)
			if err != nil || len(ex.Sources) != 1 || ex.Sources[0].Kind != KindCallout || ex.Sources[0].Detail == "" {
				t.Errorf("%+v %v", ex, err)
			}
		})
	}
}

// What the primary said is known after its death, and after our restart.
func TestCalloutRemembers(t *testing.T) {
	t.Parallel()
	p := startPrimary(t, healthy)
	w := newWorld(t)
	cfg := calloutConfig(p)
	cfg.One.Interval = time.Nanosecond // ask each time
	d := w.open(cfg)
	stop := w.run(d)
	expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists, "nobody@example.com": smtp.Unknown})
	d.Accepted("delivered@example.com")
	d.Accepted("no address")
	stop()
	_ = p.l.Close()
	d = w.open(cfg)
	expect(t, d, map[string]smtp.Disposition{
		"user@example.com": smtp.Exists, "nobody@example.com": smtp.Unknown, "delivered@example.com": smtp.Exists, "other@example.com": smtp.Unsure,
	})
	if got := d.Status().Sources[0]; got.Entries != 3 || got.Error == "" {
		t.Errorf("status %+v", got)
	}
	// Too old: unsure, and with "exact" the old "no" still counts.
	for _, tc := range []struct {
		policy string
		want   smtp.Disposition
	}{{StaleTempfail, smtp.Unsure}, {StaleExact, smtp.Unknown}, {StaleAccept, smtp.Exists}} {
		cfg.One.Positive, cfg.One.Negative, cfg.WhenStale = time.Nanosecond, time.Nanosecond, tc.policy
		expect(t, w.open(cfg), map[string]smtp.Disposition{"nobody@example.com": tc.want})
	}
	cfg.WhenStale = StaleExact // but not for what was never asked for
	expect(t, w.open(cfg), map[string]smtp.Disposition{"other@example.com": smtp.Unsure})
	// Another primary's answers are not this one's.
	cfg = calloutConfig(p)
	cfg.One.Address = "127.0.0.1:1"
	expect(t, w.open(cfg), map[string]smtp.Disposition{"nobody@example.com": smtp.Unsure})
}

// Many clients that ask for one address at once are one question, and a dead
// primary is not called for each.
func TestCalloutsAreShared(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := startPrimary(t, func(a string) string { <-release; return healthy(a) })
	w := newWorld(t)
	d := w.open(calloutConfig(p))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { expect(t, d, map[string]smtp.Disposition{"user@example.com": smtp.Exists}) })
	}
	waitFor(t, "the question", func() bool { return p.asked.Load() == 1 })
	close(release)
	wg.Wait()
	if n := p.asked.Load(); n != 1 {
		t.Errorf("%d questions", n)
	}

	_ = p.l.Close()
	for i := range 50 {
		expect(t, d, map[string]smtp.Disposition{fmt.Sprintf("n%d@example.com", i): smtp.Unsure})
	}
	if ex, err := d.Explain(t.Context(), "n@example.com"); err != nil || !strings.Contains(ex.Sources[0].Detail, errPaused.Error()) {
		t.Errorf("%+v %v", ex, err)
	}
}

func TestCalloutCacheIsBounded(t *testing.T) {
	t.Parallel()
	c, err := openCalloutCache(durable.OS(), "", "x", "")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range maxCalloutEntries + 1000 {
		c.put(fmt.Sprint("n", i), false, now)
	}
	if c.len() != maxCalloutEntries {
		t.Errorf("%d entries", c.len())
	}
	for i := range 1000 {
		c.put(fmt.Sprint("y", i), true, now)
	}
	for i := range 1000 {
		if e, ok := c.get(fmt.Sprint("y", i)); !ok || !e.Yes {
			t.Fatal("a positive answer is lost to negative ones")
		}
	}
	c.expire(now.Add(time.Second))
	if c.len() != 0 {
		t.Errorf("%d entries", c.len())
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	p := startPrimary(t, healthy)
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "user@example.com\ngone@example.com\n")
	w := newWorld(t)
	cfg := fileConfig(path)
	cfg.Audit, cfg.AuditAddress = true, p.address()
	d := w.open(cfg)
	w.run(d)
	for range 3 {
		expect(t, d, map[string]smtp.Disposition{
			"user@example.com": smtp.Exists, "nobody@example.com": smtp.Exists, "gone@example.com": smtp.Exists, "slow@example.com": smtp.Exists,
		})
	}
	waitFor(t, "the comparison", func() bool {
		st := d.Status().Audit
		return st.Agree+st.TooStrict+st.TooLax+st.Unanswered == 4
	})
	st := d.Status().Audit
	if st.Refused != 6 || st.Agree != 2 || st.TooLax != 1 || st.TooStrict != 0 || st.Unanswered != 1 || len(st.Differences) != 1 || st.Differences[0].Address != "gone@example.com" {
		t.Errorf("%+v", st)
	}
	// Now the other error: an address our list lacks.
	rcpt := func(a string) string {
		if a == "new@example.com" {
			return "250 ok"
		}
		return healthy(a)
	}
	p.rcpt.Store(&rcpt)
	expect(t, d, map[string]smtp.Disposition{"new@example.com": smtp.Exists})
	waitFor(t, "the difference", func() bool { return d.Status().Audit.TooStrict == 1 })
	if !strings.Contains(w.logs.String(), "recipient would be refused") {
		t.Error("nothing in the log")
	}
	ex, err := d.Explain(t.Context(), "nobody@example.com")
	if err != nil || ex.Answer != "unknown" || !ex.Audit {
		t.Errorf("%+v %v", ex, err)
	}
}

// conclude never says "unknown" of what a source may still have.
func TestConclude(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		found, fresh, loaded := rapid.Bool().Draw(t, "found"), rapid.Bool().Draw(t, "fresh"), rapid.Bool().Draw(t, "loaded")
		policy := rapid.SampledFrom([]string{StaleExact, StaleTempfail, StaleAccept}).Draw(t, "policy")
		got, why := conclude(found, fresh, loaded, policy)
		switch {
		case why == "":
			t.Fatal("no reason")
		case found && got != smtp.Exists:
			t.Fatal("found, and not accepted")
		case !found && got == smtp.Exists && (policy != StaleAccept || fresh && loaded):
			t.Fatal("not found, and accepted")
		case got == smtp.Unknown && !loaded:
			t.Fatal("unknown by a source that was never read")
		case got == smtp.Unknown && !fresh && policy != StaleExact:
			t.Fatal("unknown by a stale source")
		case got == smtp.Unsure && fresh && loaded:
			t.Fatal("unsure without a reason")
		}
	})
}
