package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
)

// alarms remembers which conditions hold.
type alarms struct {
	mu     sync.Mutex
	raised map[string]string
}

func (a *alarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.raised == nil {
		a.raised = make(map[string]string)
	}
	a.raised[key] = text
}

func (a *alarms) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.raised, key)
}

func (a *alarms) text(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.raised[key]
}

// judge is a filter that answers what it is told.
type judge struct {
	mu    sync.Mutex
	v     smtp.Verdict
	err   error
	calls int
	do    func(ctx context.Context, body io.ReadSeeker) error
}

func (j *judge) Check(ctx context.Context, _ *smtp.Envelope, body io.ReadSeeker) (smtp.Verdict, error) {
	j.mu.Lock()
	j.calls++
	v, err, do := j.v, j.err, j.do
	j.mu.Unlock()
	if do != nil {
		if err := do(ctx, body); err != nil {
			return smtp.Verdict{}, err
		}
	}
	return v, err
}

func (j *judge) set(v smtp.Verdict, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.v, j.err = v, err
}

func (j *judge) asked() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.calls
	j.calls = 0
	return n
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func check(t *testing.T, f smtp.Filter, env *smtp.Envelope, message string) (smtp.Verdict, error) {
	t.Helper()
	return f.Check(t.Context(), env, strings.NewReader(message))
}

func value(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if matches(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

func matches(m *dto.Metric, labels []string) bool {
	var got []string
	for _, l := range m.GetLabel() {
		got = append(got, l.GetValue())
	}
	return strings.Join(got, " ") == strings.Join(labels, " ")
}

func TestGuardedPolicies(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	for policy, want := range map[string]struct {
		v  smtp.Verdict
		ok bool
	}{
		Tempfail:   {smtp.Verdict{}, false},
		Accept:     {smtp.Verdict{Engine: "rspamd", Symbols: []smtp.Symbol{{Name: "FILTER_UNAVAILABLE"}}}, true},
		UseBuiltin: {smtp.Verdict{Engine: "builtin", Action: smtp.Reject}, true},
	} {
		a, reg := &alarms{}, prometheus.NewRegistry()
		engine := &judge{err: down}
		g, err := NewGuarded(Guard{
			Name: "rspamd", Engine: engine, Timeout: time.Second, OnFailure: policy, Fallback: &judge{v: smtp.Verdict{Engine: "builtin", Action: smtp.Reject}},
			Breaker: BreakerConfig{Failures: 2, CoolDown: time.Hour}, Alarms: a, Logger: quiet(), Metrics: NewMetrics(reg),
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			v, err := check(t, g, enginetest.Envelope(), "A: b\r\n\r\n")
			if (err == nil) != want.ok || !cmp.Equal(v, want.v) {
				t.Errorf("%s: %+v, %v", policy, v, err)
			}
			if cause := map[bool]error{true: down, false: ErrOpen}[i < 2]; err != nil && !errors.Is(err, cause) {
				t.Errorf("%s, message %d: %v", policy, i, err)
			}
			if a.text("filter:rspamd") == "" {
				t.Errorf("%s: no alarm", policy)
			}
		}
		if n := engine.asked(); n != 2 {
			t.Errorf("%s: the engine was asked %d times, want 2: the breaker opens", policy, n)
		}
		for name, want := range map[string]float64{
			"understudy_filter_failures_total": 2, "understudy_filter_skipped_total": 2, "understudy_filter_breaker_open": 1, "understudy_filter_seconds": 2,
		} {
			if got := value(t, reg, name, "rspamd"); got != want {
				t.Errorf("%s: %s is %v, want %v", policy, name, got, want)
			}
		}
	}
}

func TestGuardedRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, reg := &alarms{}, prometheus.NewRegistry()
		engine := &judge{err: errors.New("down")}
		g, err := NewGuarded(Guard{
			Name: "x", Engine: engine, Timeout: time.Second, OnFailure: Tempfail,
			Breaker: BreakerConfig{Failures: 3, CoolDown: 10 * time.Second}, Alarms: a, Logger: quiet(), Metrics: NewMetrics(reg),
		})
		if err != nil {
			t.Fatal(err)
		}
		asked := func(wait time.Duration, want int, ok bool) {
			t.Helper()
			<-time.After(wait)
			_, err := check(t, g, enginetest.Envelope(), "")
			if n := engine.asked(); n != want || (err == nil) != ok {
				t.Errorf("asked %d times, want %d: %v", n, want, err)
			}
		}
		asked(0, 1, false)
		asked(0, 1, false)
		asked(0, 1, false)
		asked(0, 0, false)
		asked(9*time.Second, 0, false)
		asked(time.Second, 1, false) // half open: one try, and it fails
		asked(0, 0, false)
		engine.set(smtp.Verdict{Engine: "x"}, nil)
		asked(10*time.Second, 1, true)
		asked(0, 1, true)
		if a.text("filter:x") != "" || value(t, reg, "understudy_filter_breaker_open", "x") != 0 || value(t, reg, "understudy_filter_verdicts_total", "accept", "x") != 2 {
			t.Errorf("alarm %q", a.text("filter:x"))
		}
		engine.set(smtp.Verdict{}, errors.New("down"))
		asked(0, 1, false)
		engine.set(smtp.Verdict{}, nil)
		asked(0, 1, true) // a success forgets the failures before it
		engine.set(smtp.Verdict{}, errors.New("down"))
		asked(0, 1, false)
		asked(0, 1, false)
		engine.set(smtp.Verdict{}, nil)
		asked(0, 1, true)
	})
}

// Only one call tries an engine that was left alone; one that is withdrawn leaves
// the try to the next.
func TestBreakerHalfOpen(t *testing.T) {
	t.Parallel()
	b := breaker{threshold: 1, coolDown: time.Second}
	now := time.Unix(0, 0)
	if !b.allow(now) || !b.end(now, failed) || b.allow(now) {
		t.Fatal("it does not open")
	}
	now = now.Add(time.Second)
	if !b.allow(now) || b.allow(now) {
		t.Fatal("not exactly one try")
	}
	if !b.end(now, withdrawn) || !b.allow(now) || b.allow(now) || b.end(now, succeeded) || !b.allow(now) || !b.allow(now) {
		t.Fatal("the try is not passed on, or success does not close it")
	}
	never := breaker{}
	for range 100 {
		if !never.allow(now) || never.end(now, failed) {
			t.Fatal("a breaker without a threshold opens")
		}
	}
}

func TestGuardedBlame(t *testing.T) {
	t.Parallel()
	a := &alarms{}
	engine := &judge{do: func(_ context.Context, body io.ReadSeeker) error {
		_, err := io.ReadAll(body)
		return err
	}}
	g, err := NewGuarded(Guard{
		Name: "x", Engine: engine, Timeout: 50 * time.Millisecond, OnFailure: Accept,
		Breaker: BreakerConfig{Failures: 1, CoolDown: time.Hour}, Alarms: a, Logger: quiet(), Metrics: NewMetrics(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Check(t.Context(), enginetest.Envelope(), unreadable{}); err == nil {
		t.Error("a message that cannot be read was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	engine.do = func(ctx context.Context, _ io.ReadSeeker) error { return ctx.Err() }
	if _, err := g.Check(ctx, enginetest.Envelope(), strings.NewReader("")); err == nil {
		t.Error("a verdict nobody waits for")
	}
	if a.text("filter:x") != "" {
		t.Errorf("the engine is blamed: %s", a.text("filter:x"))
	}
	engine.do = func(ctx context.Context, _ io.ReadSeeker) error { <-ctx.Done(); return ctx.Err() }
	if v, err := check(t, g, enginetest.Envelope(), ""); err != nil || len(v.Symbols) != 1 {
		t.Errorf("a slow engine: %+v, %v", v, err)
	}
	if a.text("filter:x") == "" {
		t.Error("a slow engine is not blamed")
	}

	panics := &judge{do: func(context.Context, io.ReadSeeker) error { panic("index out of range") }}
	g, err = NewGuarded(Guard{Name: "y", Engine: panics, Timeout: time.Second, OnFailure: Tempfail, Alarms: a, Logger: quiet(), Metrics: NewMetrics(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := check(t, g, enginetest.Envelope(), ""); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Error(err)
	}
}

type unreadable struct{}

func (unreadable) Read([]byte) (int, error)       { return 0, errors.New("disk is gone") }
func (unreadable) Seek(int64, int) (int64, error) { return 0, nil }

func TestGuardNeeds(t *testing.T) {
	t.Parallel()
	ok := Guard{Name: "x", Engine: &judge{}, Timeout: 1, OnFailure: Tempfail, Alarms: &alarms{}, Logger: quiet(), Metrics: NewMetrics(nil)}
	for _, change := range []func(*Guard){
		func(g *Guard) { g.Engine = nil }, func(g *Guard) { g.Timeout = 0 }, func(g *Guard) { g.OnFailure = "drop" },
		func(g *Guard) { g.OnFailure = UseBuiltin }, func(g *Guard) { g.Alarms = nil },
	} {
		g := ok
		change(&g)
		if _, err := NewGuarded(g); err == nil {
			t.Errorf("%+v is fine", g)
		}
	}
}

// Whatever an engine's server does, every message gets the configured outcome in
// the configured time, and an alarm says so.
func TestBrokenServers(t *testing.T) {
	t.Parallel()
	status500 := func(t *testing.T) string {
		t.Helper()
		return enginetest.Listen(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		})
	}
	for _, engine := range []string{Rspamd, Spamd, Milter} {
		for name, server := range map[string]func(t *testing.T) string{
			"stopped": func(t *testing.T) string { t.Helper(); return enginetest.Start(t, enginetest.Refuse, nil) },
			"hung":    func(t *testing.T) string { t.Helper(); return enginetest.Start(t, enginetest.Hang, nil) },
			"deaf":    func(t *testing.T) string { t.Helper(); return enginetest.Start(t, enginetest.Deaf, nil) },
			"garbage": func(t *testing.T) string { t.Helper(); return enginetest.Start(t, enginetest.Garbage, nil) },
			"flood":   func(t *testing.T) string { t.Helper(); return enginetest.Start(t, enginetest.Flood, nil) },
			"500":     status500,
		} {
			for _, policy := range []string{Tempfail, Accept, UseBuiltin} {
				t.Run(engine+"/"+name+"/"+policy, func(t *testing.T) {
					t.Parallel()
					addr := server(t)
					if engine == Rspamd {
						addr = "http://" + addr
					}
					cfg := DefaultConfig()
					cfg.Engine, cfg.URL, cfg.OnFailure, cfg.Timeout = engine, []string{addr}, policy, 200*time.Millisecond
					cfg.Headers.Style = StyleNone
					a := &alarms{}
					set, err := New(cfg, Deps{Hostname: "mx2.example.com", Builtin: &judge{v: smtp.Verdict{Engine: "builtin"}}, Alarms: a, Logger: quiet()})
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = set.Close() }()
					began := time.Now()
					v, err := check(t, set.Filter(), enginetest.Envelope(), enginetest.Message(1, "hello"))
					if d := time.Since(began); d > 3*time.Second {
						t.Errorf("it took %v", d)
					}
					if (err != nil) != (policy == Tempfail) || v.Action != smtp.Accept || policy == UseBuiltin && v.Engine != "builtin" {
						t.Errorf("%+v, %v", v, err)
					}
					if a.text("filter:"+engine) == "" {
						t.Error("no alarm")
					}
				})
			}
		}
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	deps := Deps{Hostname: "mx2.example.com", Alarms: &alarms{}, Logger: quiet()}
	set, err := New(DefaultConfig(), deps)
	if err != nil || set.Filter() != nil || set.Engine() != nil {
		t.Errorf("no engine: %v, %v", set, err)
	}
	cfg := DefaultConfig()
	cfg.Engine = Builtin
	if _, err := New(cfg, deps); err == nil {
		t.Error("builtin without one")
	}
	builtin := &judge{v: smtp.Verdict{Engine: "builtin", Score: 7, Required: 15, Spam: true}}
	deps.Builtin = builtin
	clam := enginetest.Listen(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "stream: Eicar FOUND\x00")
		_, _ = io.Copy(io.Discard, c)
	})
	if set, err = New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	v, err := check(t, set.Filter(), enginetest.Envelope(), "A: b\r\n\r\n")
	if want := "X-Spam: Yes\r\nX-Spamd-Result: default: True [7.00 / 15.00]\r\n"; err != nil || v.Header != want || v.Score != 7 {
		t.Errorf("%+v, %v", v, err)
	}
	cfg.Clamd.Address = []string{clam}
	if set, err = New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	if v, err := check(t, set.Filter(), enginetest.Envelope(), "A: b\r\n\r\n"); err != nil || v.Action != smtp.Reject || v.Text != "Malware found: Eicar" || v.Header != "" {
		t.Errorf("clamd beside it: %+v, %v", v, err)
	}
	cfg.VerdictKeyFile = filepath.Join(t.TempDir(), "key")
	if _, err := New(cfg, deps); err == nil {
		t.Error("a key that is not there")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{
		Engine: "x", OnFailure: "drop", URL: []string{"y"}, Headers: HeaderConfig{Style: "z"},
		Clamd: ClamdConfig{Address: []string{"q"}, MaxMessageBytes: -1}, Breaker: BreakerConfig{Failures: -1}, Spamd: SpamdConfig{RejectScore: -1},
	}
	err := bad.Validate()
	for _, key := range []string{
		"engine:", "on_failure:", "headers.style:", "spamd.command:", "clamd.oversize:", "clamd.on_failure:", "timeout:", "clamd.timeout:",
		"breaker.cool_down:", "breaker.failures:", "max_message:", "spamd.reject_score:", "clamd.address:", "verdict_max_age:",
	} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named: %v", key, err)
		}
	}
	for _, tc := range []struct {
		change func(*Config)
		ok     bool
	}{
		{func(c *Config) { c.Engine, c.URL = Rspamd, []string{"http://a:1", "unix:///x"} }, true},
		{func(c *Config) { c.Engine, c.URL = Rspamd, []string{"a:1"} }, false},
		{func(c *Config) { c.Engine, c.URL = Milter, []string{"a:1", "/run/x"} }, true},
		{func(c *Config) { c.Engine, c.URL = Milter, []string{"http://a:1"} }, false},
		{func(c *Config) { c.Engine = Builtin }, true},
		{func(c *Config) { c.Engine, c.OnFailure = Builtin, UseBuiltin }, false},
		{func(c *Config) { c.Engine, c.URL = Builtin, []string{"a:1"} }, false},
	} {
		c := DefaultConfig()
		tc.change(&c)
		if err := c.Validate(); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	message := "X-Spam: No\r\nAuthentication-Results: mx2.example.com; spf=pass\r\nAuthentication-Results: other.example; spf=pass\r\n" +
		"X-Spam-Status: No\r\nAuthentication-Results: (x \\) y) \"MX2.example.com.\" 1; dkim=pass\r\nX-Rspamd-Server: x\r\nX-Understudy-Verdict: v=1\r\n" +
		"X-Spammer: kept\r\nx-spam-status: twice\r\n\r\nX-Spam: body\r\n"
	spam := smtp.Verdict{Engine: "x", Score: 12.345, Required: 15, Spam: true, Symbols: []smtp.Symbol{{Name: "A", Score: 12}, {Name: "B", Score: .345}}}
	for _, tc := range []struct {
		name string
		v    smtp.Verdict
		cfg  HeaderConfig
		want string
	}{
		{"rspamd", spam, HeaderConfig{StyleRspamd, true}, "X-Spam: Yes\r\nX-Spamd-Result: default: True [12.35 / 15.00];\r\n\tA(12.00)[];\r\n\tB(0.34)[]\r\n"},
		{"spamassassin", spam, HeaderConfig{StyleSpamAssassin, true}, "X-Spam-Flag: YES\r\nX-Spam-Level: ************\r\nX-Spam-Status: Yes, score=12.3 required=15.0\r\n\ttests=A,\r\n\tB\r\n\tautolearn=disabled\r\n"},
		{"clean", smtp.Verdict{Engine: "x", Score: -1}, HeaderConfig{StyleSpamAssassin, true}, "X-Spam-Status: No, score=-1.0 required=0.0\r\n\ttests=none\r\n\tautolearn=disabled\r\n"},
		{"none", spam, HeaderConfig{StyleNone, true}, ""},
		{"its own words stay", smtp.Verdict{Engine: "x", Spam: true, Header: "X-Spam: Yes\r\nX-Spamd-Result: mine\r\n"}, HeaderConfig{StyleRspamd, true}, "X-Spam: Yes\r\nX-Spamd-Result: mine\r\n"},
	} {
		s := &Stamp{Next: &judge{v: tc.v}, Hostname: "mx2.example.com", Config: tc.cfg}
		v, err := check(t, s, enginetest.Envelope(), message)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, v.Header); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
		var out bytes.Buffer
		if err := smtp.WriteEdited(&out, strings.NewReader(message), v.Edits); err != nil {
			t.Fatal(err)
		}
		if want := "Authentication-Results: other.example; spf=pass\r\nX-Spammer: kept\r\n\r\nX-Spam: body\r\n"; out.String() != want {
			t.Errorf("%s: left %q", tc.name, out.String())
		}
	}
	keep := &Stamp{Next: &judge{v: spam}, Hostname: "mx2.example.com", Config: HeaderConfig{StyleNone, false}}
	if v, err := check(t, keep, enginetest.Envelope(), message); err != nil || len(v.Edits) != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	clean := &Stamp{Next: &judge{v: spam}, Hostname: "mx2.example.com", Config: HeaderConfig{StyleNone, true}}
	if v, err := check(t, clean, enginetest.Envelope(), "A: b\r\n\r\n"); err != nil || len(v.Edits) != 0 {
		t.Errorf("an honest message is edited: %+v, %v", v, err)
	}
	reject := smtp.Verdict{Action: smtp.Reject, Text: "no"}
	if v, err := check(t, &Stamp{Next: &judge{v: reject}, Config: HeaderConfig{StyleRspamd, true}}, enginetest.Envelope(), message); err != nil || !cmp.Equal(v, reject) {
		t.Errorf("%+v, %v", v, err)
	}
	// What the engine wants of a field that is forged goes before its removal.
	own := smtp.Verdict{Edits: []smtp.HeaderEdit{{Op: smtp.ReplaceHeader, Name: "X-Spam", Value: "Yes"}}}
	v, err := check(t, &Stamp{Next: &judge{v: own}, Hostname: "h", Config: HeaderConfig{StyleNone, true}}, enginetest.Envelope(), "X-Spam: No\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := smtp.WriteEdited(&out, strings.NewReader("X-Spam: No\r\n\r\n"), v.Edits); err != nil || out.String() != "X-Spam: Yes\r\n\r\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestTrusted(t *testing.T) {
	t.Parallel()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Engine, cfg.VerdictKeyFile = Builtin, keyFile
	b := &judge{v: smtp.Verdict{Engine: "builtin", Score: 7.25, Required: 15, Spam: true}}
	a := &judge{v: smtp.Verdict{Engine: "builtin", Action: smtp.Reject, Text: "wrong client address"}}
	reg := prometheus.NewRegistry()
	site := func(j *judge, reg prometheus.Registerer) smtp.Filter {
		set, err := New(cfg, Deps{Hostname: "mx.example.com", Builtin: j, Alarms: &alarms{}, Logger: quiet(), Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		return set.Filter()
	}
	atB, atA := site(b, nil), site(a, reg)

	message := enginetest.Message(1, "hello")
	v, err := check(t, atB, enginetest.Envelope(), "X-Understudy-Verdict: forged\r\n"+message)
	if err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	sent.WriteString("Received: from b\r\n" + v.Header)
	if err := smtp.WriteEdited(&sent, strings.NewReader("X-Understudy-Verdict: forged\r\n"+message), v.Edits); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(sent.String(), "forged") {
		t.Errorf("sent %q", sent.String())
	}
	peer := enginetest.Envelope()
	peer.Client.Peer = true
	v, err = check(t, atA, peer, sent.String())
	if err != nil || v.Action != smtp.Accept || !v.Spam || v.Score != 7.25 || v.Engine != "peer/builtin" || a.asked() != 0 {
		t.Errorf("sealed: %+v, %v", v, err)
	}
	other := enginetest.Envelope()
	other.Client.Peer, other.Sender = true, "x@example.net"
	for name, tc := range map[string]struct {
		env     *smtp.Envelope
		message string
	}{
		"a stranger":     {enginetest.Envelope(), sent.String()},
		"no seal":        {peer, message},
		"another body":   {peer, strings.Replace(sent.String(), "hello", "buy", 1)},
		"another sender": {other, sent.String()},
	} {
		if v, err := check(t, atA, tc.env, tc.message); err != nil || v.Action != smtp.Reject || a.asked() != 1 {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	for result, want := range map[string]float64{"trusted": 1, "missing": 1, "invalid": 2} {
		if got := value(t, reg, "understudy_filter_sealed_total", result); got != want {
			t.Errorf("%s: %v, want %v", result, got, want)
		}
	}
}
