package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"understudy/smtp"
)

var modern = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SIZE", "ENHANCEDSTATUSCODES"}

// rig is a relay that runs on a fake queue.
type rig struct {
	*Relay
	t      testing.TB
	q      *fakeQueue
	alarms *fakeAlarms
	hops   []Hop
	moved  chan struct{}
	mu     sync.Mutex
	stop   func()
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func newRig(tb testing.TB, edit func(c *Config), dial dialFunc, hops ...string) *rig {
	tb.Helper()
	g := &rig{t: tb, q: newFakeQueue(), alarms: &fakeAlarms{}, moved: make(chan struct{})}
	for _, s := range hops {
		g.hops = append(g.hops, mustHop(tb, s))
	}
	cfg := DefaultConfig()
	if edit != nil {
		edit(&cfg)
	}
	r, err := New(cfg, Deps{
		Queue: g.q, Hostname: "mx2.test", Logger: slog.New(slog.DiscardHandler), Alarms: g.alarms, Dial: dial,
		Hops: func() ([]Hop, <-chan struct{}) {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.hops, g.moved
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	g.Relay = r
	return g
}

func mustHop(tb testing.TB, s string) Hop {
	tb.Helper()
	h, err := ParseHop(s)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// start runs the relay until the test ends, or until stop is called.
func (g *rig) start() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Errorf("Run: %v", err)
		}
		if n := g.q.lent; n != 0 {
			g.t.Errorf("%d deliveries were never ended", n)
		}
	})
	g.t.Cleanup(g.stop)
}

func (g *rig) move(hops ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hops = nil
	for _, s := range hops {
		g.hops = append(g.hops, mustHop(g.t, s))
	}
	close(g.moved)
	g.moved = make(chan struct{})
}

func (g *rig) status() HopStatus {
	g.t.Helper()
	st, err := g.Status(g.t.Context())
	if err != nil || len(st) == 0 {
		g.t.Fatalf("status: %v %v", st, err)
	}
	return st[0]
}

// until waits for a condition on real sockets.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			tb.Fatalf("not within 20 s: %s", what)
		}
	}
}

func (q *fakeQueue) fill(n int) {
	for i := range n {
		q.add(fmt.Sprintf("m%d", i), fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i), fmt.Sprintf("u%d@x.test", i))
	}
}

func (q *fakeQueue) outcomes(id string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []string
	for _, r := range q.ended[id] {
		out = append(out, fmt.Sprintf("%d:%s:%d", r.Recipient, outcomeName(r.Outcome), r.Code))
	}
	return strings.Join(out, " ")
}

func TestDelivers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.fill(300)
		g.start()
		synctest.Wait()
		if n := g.q.left(); n != 0 || hop.received() != 300 {
			t.Fatalf("%d left, %d received", n, hop.received())
		}
		seen := map[string]bool{}
		for _, m := range hop.got {
			if seen[m.from] {
				t.Errorf("%s arrived twice", m.from)
			}
			seen[m.from] = true
			if n := strings.TrimSuffix(strings.TrimPrefix(m.from, "m"), "@src.test"); m.body != "Subject: "+n+"\r\n\r\nbody\r\n" || m.to[0] != "u"+n+"@x.test" {
				t.Errorf("%+v", m)
			}
		}
		res := g.q.ended["m7"][0]
		if res.Outcome != smtp.Delivered || res.Code != 250 || res.Enhanced != "2.0.0" || res.Relay != "mx1.test[pipe]" || res.At.IsZero() || res.TLS != "" {
			t.Errorf("%+v", res)
		}
		if s := g.status(); s.State != "up" || !s.Proven || s.Delivered != 300 || s.InFlight != 0 || s.Connections > 20 {
			t.Errorf("%+v", s)
		}
		g.stop()
	})
}

// An outage: nobody is burnt, the return is noticed by the probe, the first
// delivery comes within two seconds, and the flow grows from one.
func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.up = false
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.fill(100)
		g.start()
		<-time.After(10*time.Minute + 300*time.Millisecond)
		if g.q.tried() != 0 || g.q.left() != 100 {
			t.Fatalf("%d messages were tried though the hop is down", g.q.tried())
		}
		if s := g.status(); s.State != "down" || !strings.Contains(s.Reason, "refused") {
			t.Errorf("%+v", s)
		}
		if !strings.Contains(g.alarms.String(), "cannot be reached") {
			t.Errorf("no alarm: %s", g.alarms)
		}
		back := time.Now()
		hop.set(func() { hop.up = true })
		<-time.After(2 * time.Second)
		if g.q.left() != 0 {
			t.Fatalf("%d left", g.q.left())
		}
		if d := hop.arrival[0].Sub(back); d >= 2*time.Second {
			t.Errorf("first delivery after %v", d)
		}
		if g.q.expeditions() != 1 {
			t.Errorf("expedited %d times", g.q.expeditions())
		}
		if s := g.alarms.String(); s != "map[]" {
			t.Errorf("the alarm stays: %s", s)
		}
		g.stop()
	})
}

func TestSlowStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		hop.final = func(string) string { <-time.After(time.Second); return "" }
		start := time.Now()
		g.q.fill(1 + 2 + 4)
		g.start()
		<-time.After(1500 * time.Millisecond)
		if hop.received() != 1 {
			t.Errorf("first round: %d", hop.received())
		}
		<-time.After(time.Second)
		if hop.received() != 3 {
			t.Errorf("second round: %d", hop.received())
		}
		<-time.After(time.Second)
		if hop.received() != 7 {
			t.Errorf("third round: %d after %v", hop.received(), time.Since(start))
		}
		g.stop()
	})
}

// The hop dies in the middle of a drain: what was on its way is tried again,
// what was not is not touched, and all of it arrives.
func TestHopDiesDuringDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		var once sync.Once
		hop.final = func(string) string {
			if hop.received() > 200 {
				once.Do(hop.down)
			}
			return ""
		}
		g.q.fill(1000)
		g.start()
		<-time.After(5 * time.Minute)
		if s := g.status(); s.State != "down" {
			t.Fatalf("%+v", s)
		}
		burnt := g.q.held()
		if burnt > 25 {
			t.Errorf("%d messages wait for their back-off, want at most one a connection", burnt)
		}
		hop.set(func() { hop.up = true })
		<-time.After(2 * time.Second)
		if g.q.left() != 0 || g.q.answered() != 1000 {
			t.Errorf("%d left, %d ended", g.q.left(), g.q.answered())
		}
		g.stop()
	})
}

// A reborn primary that refuses everything must not burn the queue.
func TestRebornPrimaryRefusesEverything(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"554 5.7.1 Relay access denied", "550 5.1.1 no such user", "451 4.3.0 lookup failure", "454 4.7.1 Relay access denied"} {
		synctest.Test(t, func(t *testing.T) {
			hop := newFakeHop(modern...)
			hop.rcpt = func(string) string { return reply }
			g := newRig(t, nil, hop.dial, "smtp://mx1.test")
			g.q.fill(200)
			g.start()
			<-time.After(time.Second)
			if s := g.status(); s.State != "paused" || !strings.Contains(s.Reason, reply[4:]) {
				t.Fatalf("%s: %+v", reply, s)
			}
			if n := g.q.tried(); n != 5 {
				t.Errorf("%s: %d messages were tried, want 5", reply, n)
			}
			if got := strings.Contains(g.alarms.String(), "paused"); got != (reply[0] == '5') {
				t.Errorf("%s: alarm at once: %v", reply, got)
			}
			<-time.After(time.Hour)
			if !strings.Contains(g.alarms.String(), "paused") {
				t.Errorf("no alarm: %s", g.alarms)
			}
			if n := g.q.tried(); n > 80 || n < 7 {
				t.Errorf("%s: %d messages were tried in an hour", reply, n)
			}
			if g.q.answered() != 0 || g.q.left() != 200 {
				t.Fatalf("%s: %d messages were given up", reply, g.q.answered())
			}
			hop.set(func() { hop.rcpt = nil })
			if err := g.Resume(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if g.q.left() != 0 || hop.received() != 200 {
				t.Errorf("%s: %d left", reply, g.q.left())
			}
			if s := g.alarms.String(); s != "map[]" {
				t.Errorf("the alarm stays: %s", s)
			}
			g.stop()
		})
	}
}

// It comes to its senses by itself: one message as a trial, then everything.
func TestPausedHopRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.mail = func(string) string { return "550 5.7.1 client refused" }
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.fill(50)
		g.start()
		<-time.After(20 * time.Second)
		hop.set(func() { hop.mail = nil })
		<-time.After(9 * time.Second)
		if hop.received() != 0 {
			t.Error("tried before its time")
		}
		<-time.After(2 * time.Second)
		if g.q.left() != 0 || g.q.expeditions() != 1 {
			t.Errorf("%d left, expedited %v", g.q.left(), g.q.expeditions())
		}
		g.stop()
	})
}

func TestBannerRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.banner = "554 5.3.2 no service here"
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.fill(50)
		g.start()
		<-time.After(time.Minute)
		if s := g.status(); s.State != "paused" || !strings.Contains(s.Reason, "no service here") {
			t.Errorf("%+v", s)
		}
		if g.q.tried() != 0 {
			t.Errorf("%d messages were burnt", g.q.tried())
		}
		if hop.connections() > 10 {
			t.Errorf("%d connections in a minute", hop.connections())
		}
		hop.set(func() { hop.banner = "220 hi" })
		<-time.After(5 * time.Minute)
		if g.q.left() != 0 {
			t.Errorf("%d left", g.q.left())
		}
		g.stop()
	})
}

// From a hop that works, a refusal is a refusal: kept per recipient.
func TestHalfRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.rcpt = func(a string) string {
			switch {
			case strings.HasPrefix(a, "no"):
				return "550 5.1.1 no such user"
			case strings.HasPrefix(a, "later"):
				return "450 4.2.1 mailbox busy"
			}
			return ""
		}
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.add("half", "x\r\n", "yes@x", "no@x", "later@x", "yes2@x")
		g.start()
		synctest.Wait()
		if got := g.q.outcomes("half"); got != "0:delivered:250 1:refused:550 3:delivered:250" {
			t.Error(got)
		}
		g.q.add("none", "x\r\n", "no@x")
		synctest.Wait()
		if got := g.q.outcomes("none"); got != "0:refused:550" {
			t.Error(got)
		}
		hop.set(func() { hop.rcpt = nil })
		g.q.Expedite("")
		synctest.Wait()
		if g.q.left() != 0 {
			t.Errorf("%d left", g.q.left())
		}
		g.stop()
	})
}

// A policy refusal by a hop that works is held back once, then believed.
func TestPolicyRefusalIsBelievedTheSecondTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.rcpt = func(a string) string {
			if strings.HasPrefix(a, "bad") {
				return "554 5.7.1 access denied"
			}
			return ""
		}
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.add("a", "x\r\n", "good@x")
		g.start()
		synctest.Wait()
		g.q.add("b", "x\r\n", "bad@x")
		synctest.Wait()
		if got := g.q.outcomes("b"); got != "" {
			t.Errorf("first time: %s", got)
		}
		g.q.Expedite("")
		synctest.Wait()
		if got := g.q.outcomes("b"); got != "" {
			t.Errorf("second time, with nothing accepted in between: %s", got)
		}
		g.q.add("c", "x\r\n", "good@x")
		synctest.Wait()
		g.q.Expedite("")
		synctest.Wait()
		if got := g.q.outcomes("b"); got != "0:refused:554" {
			t.Errorf("third time: %q", got)
		}
		g.stop()
	})
}

func TestFallback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeHop(modern...), newFakeHop(modern...)
		first.up = false
		dial := func(ctx context.Context, n, a string) (net.Conn, error) {
			if strings.HasPrefix(a, "first") {
				return first.dial(ctx, n, a)
			}
			return second.dial(ctx, n, a)
		}
		g := newRig(t, nil, dial, "smtp://first.test", "smtp://second.test")
		g.q.fill(10)
		g.start()
		synctest.Wait()
		if second.received() != 10 {
			t.Fatalf("%d arrived at the second", second.received())
		}
		first.set(func() { first.up = true })
		<-time.After(2 * time.Second)
		g.q.add("x", "x\r\n", "a@x")
		synctest.Wait()
		if first.received() != 1 {
			t.Errorf("the first hop is back and got %d", first.received())
		}
		g.stop()
	})
}

func TestViewMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newFakeHop(modern...), newFakeHop(modern...)
		dial := func(ctx context.Context, n, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "a.") {
				return a.dial(ctx, n, addr)
			}
			return b.dial(ctx, n, addr)
		}
		g := newRig(t, nil, dial)
		g.start()
		g.q.fill(3)
		<-time.After(time.Minute)
		if g.q.left() != 3 || g.q.tried() != 0 {
			t.Fatal("mail moved though there is nowhere to go")
		}
		g.move("smtp://a.test")
		synctest.Wait()
		if a.received() != 3 {
			t.Fatalf("a got %d", a.received())
		}
		g.move("smtp://b.test")
		g.q.add("x", "x\r\n", "u@x")
		synctest.Wait()
		if b.received() != 1 || a.open() != 0 {
			t.Errorf("b got %d; %d connections to a are left", b.received(), a.open())
		}
		// Another route, set by an operator, does not ask the view.
		g.q.addFor("smtp://a.test", "r", 3, func() io.Reader { return strings.NewReader("x\r\n") }, "u@x")
		synctest.Wait()
		if a.received() != 4 {
			t.Errorf("a got %d", a.received())
		}
		g.q.addFor("nonsense://", "n", 3, func() io.Reader { return strings.NewReader("x\r\n") }, "u@x")
		synctest.Wait()
		if !strings.Contains(g.alarms.String(), "nonsense") {
			t.Errorf("no alarm: %s", g.alarms)
		}
		g.q.setRoutes("")
		synctest.Wait()
		if st, _ := g.Status(t.Context()); len(st) != 1 {
			t.Errorf("routes without mail are left: %+v", st)
		}
		g.stop()
	})
}

func TestLMTPOverUnixSocket(t *testing.T) {
	t.Parallel()
	hop := newFakeHop(modern...)
	hop.lmtp = true
	hop.final = func(a string) string {
		if a == "full@x" {
			return "452 4.2.2 mailbox full"
		}
		return ""
	}
	sock := filepath.Join(t.TempDir(), "lmtp")
	hop.listen(t, "unix", sock)
	g := newRig(t, nil, nil, "lmtp://"+sock)
	g.q.fill(50)
	g.q.add("mixed", "x\r\n", "a@x", "full@x", "b@x")
	g.start()
	until(t, "all but one delivered", func() bool { return g.q.left() == 1 })
	if got := g.q.outcomes("mixed"); got != "0:delivered:250 2:delivered:250" {
		t.Error(got)
	}
	if res := g.q.ended["mixed"][0]; res.Relay != "localhost["+sock+"]" {
		t.Errorf("relay %q", res.Relay)
	}
}

// Half of the messages are stuck behind a final answer when the daemon stops:
// they get the stop time-out, and what has no answer is kept.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.final = func(string) string { <-time.After(3 * time.Second); return "" }
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.fill(1)
		g.start()
		<-time.After(time.Second)
		g.stop()
		if g.q.left() != 0 {
			t.Error("what was on its way was not waited for")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		hop := newFakeHop(modern...)
		hop.final = func(string) string { <-time.After(time.Hour); return "" }
		g := newRig(t, nil, hop.dial, "smtp://mx1.test")
		g.q.fill(1)
		g.start()
		<-time.After(time.Second)
		start := time.Now()
		g.stop()
		if d := time.Since(start); d > 6*time.Second || g.q.left() != 1 {
			t.Errorf("stopped after %v, %d left", d, g.q.left())
		}
		<-time.After(2 * time.Hour) // let the hop's goroutine end
	})
}

func TestClientAddressIsForwarded(t *testing.T) {
	t.Parallel()
	tests := []struct {
		ext    string
		header bool
		want   string
	}{
		{"XCLIENT ADDR HELO", true, ""},
		{"HELP", true, "X-Understudy-Client: addr=192.0.2.7; helo=client.test;"},
		{"HELP", false, ""},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			hop := newFakeHop(append([]string{tt.ext}, modern...)...)
			g := newRig(t, func(c *Config) { c.ClientHeader = tt.header }, hop.dial, "smtp://mx1.test")
			g.q.add("a", "Subject: x\r\n\r\n", "u@x")
			g.start()
			synctest.Wait()
			body := hop.got[0].body
			if !strings.HasPrefix(body, tt.want) || !strings.HasSuffix(body, "Subject: x\r\n\r\n") || strings.Contains(body, "X-Understudy") != (tt.want != "") {
				t.Errorf("%+v: %q", tt, body)
			}
			if strings.HasPrefix(tt.ext, "XCLIENT") && (len(hop.xclients) != 1 || hop.xclients[0] != "ADDR=192.0.2.7 HELO=client.test") {
				t.Errorf("XCLIENT: %q", hop.xclients)
			}
			g.stop()
		})
	}
}
