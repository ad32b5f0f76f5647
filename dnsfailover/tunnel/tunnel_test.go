package tunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"understudy/dnsfailover"
	"understudy/internal/peer"
	"understudy/internal/peer/peertest"
)

// backend is a server that expects a PROXY header, greets with its name and the
// client's address, and echoes lines. "half" is answered after the client's end.
type backend struct {
	name string
	l    net.Listener
	mu   sync.Mutex
	seen []string // clients
	open atomic.Int64
}

func newBackend(t *testing.T, name string) *backend {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{name: name, l: l}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return b
}

func (b *backend) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	b.open.Add(1)
	defer b.open.Add(-1)
	r := bufio.NewReader(c)
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	h, err := proxyproto.Read(r)
	if err != nil {
		return
	}
	b.mu.Lock()
	b.seen = append(b.seen, h.SourceAddr.String())
	b.mu.Unlock()
	if _, err := io.WriteString(c, "* OK "+b.name+" "+h.SourceAddr.String()+"\r\n"); err != nil {
		return
	}
	_, _ = io.Copy(c, r)
	_ = c.(*net.TCPConn).CloseWrite()
}

// twoSites is a pair of tunnels with a backend each.
type twoSites struct {
	views    [2]atomic.Pointer[dnsfailover.View]
	backends [2]*backend
	tunnels  [2]*Tunnel
	links    [2]*peer.Link
	banned   atomic.Pointer[netip.Addr]
}

func (w *twoSites) set(i int, v dnsfailover.View) {
	w.views[i].Store(&v)
	if w.tunnels[i] != nil {
		w.tunnels[i].ViewChanged()
	}
}

// move makes site i active.
func (w *twoSites) move(i int) {
	names := []dnsfailover.Site{"a", "b"}
	w.set(1-i, dnsfailover.View{Active: names[i], Role: dnsfailover.Standby})
	w.set(i, dnsfailover.View{Active: names[i], Role: dnsfailover.Active})
}

func start(t *testing.T, name string, change func(*Config, *ServiceConfig), opts peertest.Options) *twoSites {
	t.Helper()
	w := &twoSites{}
	w.links[0], w.links[1] = peertest.Pair(t, opts)
	for i, site := range []string{"a", "b"} {
		w.backends[i] = newBackend(t, site)
		cfg := Config{StopDrain: 50 * time.Millisecond}
		svc := ServiceConfig{Listen: []string{"127.0.0.1:0"}, Local: w.backends[i].l.Addr().String(), MaxPerClient: 100000, MaxConnections: 100000}
		if change != nil {
			change(&cfg, &svc)
		}
		cfg.Services = map[string]ServiceConfig{name: svc}
		w.set(i, dnsfailover.View{})
		var err error
		w.tunnels[i], err = New(cfg, Deps{
			Site: site, View: func() dnsfailover.View { return *w.views[i].Load() }, Link: w.links[i],
			Banned: func(a netip.Addr) bool { b := w.banned.Load(); return b != nil && *b == a },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.tunnels[i].Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	peertest.Run(t, w.links[0], w.links[1])
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	for _, tn := range w.tunnels {
		running.Go(func() {
			if err := tn.Run(ctx); err != nil {
				t.Errorf("run tunnel: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// connect is a client at site i.
func (w *twoSites) connect(t *testing.T, i int) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	for _, addrs := range w.tunnels[i].Addrs() {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		return c.(*net.TCPConn), bufio.NewReader(c)
	}
	t.Fatal("nothing listens")
	return nil, nil
}

// greeting reads who serves the client, and checks that it knows its address.
func greeting(t *testing.T, c net.Conn, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("no greeting: %v", err)
	}
	f := strings.Fields(line)
	if len(f) != 4 || f[3] != c.LocalAddr().String() {
		t.Fatalf("greeting %q to client %s", line, c.LocalAddr())
	}
	return f[2]
}

func TestClientIsServedByTheActiveSite(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]peertest.Options{"both dial": {}, "b is hidden": {Hidden: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, "imaps", nil, opts)
			for active, want := range []string{"a", "b"} {
				w.move(active)
				for at := range 2 {
					c, r := w.connect(t, at)
					if got := greeting(t, c, r); got != want {
						t.Errorf("client at %d is served by %s, want %s", at, got, want)
					}
					// Half-close: the answer comes after the client's end.
					big := strings.Repeat("0123456789abcdef", 100_000)
					go func() {
						_, _ = io.WriteString(c, big)
						_ = c.CloseWrite()
					}()
					got, err := io.ReadAll(r)
					if err != nil || string(got) != big {
						t.Errorf("echo of %d bytes: %d bytes, %v", len(big), len(got), err)
					}
				}
			}
		})
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Now()
	view := func(r dnsfailover.Role, until time.Time) dnsfailover.View {
		return dnsfailover.View{Active: "a", Role: r, Until: until}
	}
	for _, tc := range []struct {
		name   string
		view   dnsfailover.View
		up     bool
		local  Way
		refuse Way
	}{
		{"active for ever", view(dnsfailover.Active, time.Time{}), false, Local, Local},
		{"active with a permit", view(dnsfailover.Active, now.Add(time.Second)), false, Local, Local},
		{"active, lapsed", view(dnsfailover.Active, now), true, Local, Refuse},
		{"standby", view(dnsfailover.Standby, time.Time{}), true, Across, Across},
		{"standby, link down", view(dnsfailover.Standby, time.Time{}), false, Local, Refuse},
		{"fenced", view(dnsfailover.Fenced, time.Time{}), true, Local, Refuse},
		{"unknown", dnsfailover.View{}, true, Local, Refuse},
	} {
		if got := Decide(tc.view, now, tc.up, FencedLocal); got != tc.local {
			t.Errorf("%s, local: %s", tc.name, got)
		}
		if got := Decide(tc.view, now, tc.up, FencedRefuse); got != tc.refuse {
			t.Errorf("%s, refuse: %s", tc.name, got)
		}
	}
	for name, want := range map[string]string{
		"imap": FencedLocal, "imaps": FencedLocal, "submission": FencedLocal, "submissions": FencedLocal, "pop3s": FencedLocal,
		"sieve": FencedLocal, "https": FencedRefuse, "webmail": FencedRefuse, "imaps-old": FencedRefuse, "imap-old": FencedLocal,
	} {
		if got := whenFencedOf(name, FencedAuto); got != want {
			t.Errorf("%s when fenced: %s, want %s", name, got, want)
		}
	}
}

// isReset says that a connection was ended with RST.
func isReset(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err == nil {
		return errors.New("orderly end")
	}
	return err
}

// refused wants a new client at site i to be reset.
func (w *twoSites) refused(t *testing.T, i int, say string) error {
	t.Helper()
	for _, addrs := range w.tunnels[i].Addrs() {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addrs[0].String())
		if errors.Is(err, syscall.ECONNRESET) {
			return nil // it was quicker than connect
		}
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = io.WriteString(c, say)
		return isReset(c)
	}
	return errors.New("nothing listens")
}

func TestFencedSite(t *testing.T) {
	t.Parallel()
	mail := start(t, "imaps", nil, peertest.Options{})
	c, r := mail.connect(t, 1)
	if got := greeting(t, c, r); got != "b" {
		t.Errorf("fenced mail is served by %s", got)
	}
	web := start(t, "https", nil, peertest.Options{})
	if err := web.refused(t, 1, ""); err != nil {
		t.Errorf("fenced webmail: %v", err)
	}
	// A client of an active site whose permit is withdrawn is cut off at once.
	web.move(1)
	c, r = web.connect(t, 1)
	greeting(t, c, r)
	web.set(1, dnsfailover.View{})
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the fence: %v", err)
	}
}

func TestTwoStandbysDoNotPingPong(t *testing.T) {
	t.Parallel()
	w := start(t, "imaps", nil, peertest.Options{})
	for i := range 2 {
		w.set(i, dnsfailover.View{Active: "x", Role: dnsfailover.Standby})
	}
	c, r := w.connect(t, 0)
	if line, err := func() (string, error) {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		return r.ReadString('\n')
	}(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("served by nobody active: %q, %v", line, err)
	}
	// The role arrives at the other site: the client that waited is served.
	w.set(1, dnsfailover.View{Active: "b", Role: dnsfailover.Active})
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if got := greeting(t, c, r); got != "b" {
		t.Errorf("served by %s", got)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := start(t, "imap", func(c *Config, _ *ServiceConfig) { c.Drain = 1500 * time.Millisecond }, peertest.Options{})
	w.move(0)
	here, rHere := w.connect(t, 0)
	there, rThere := w.connect(t, 1)
	greeting(t, here, rHere)
	greeting(t, there, rThere)
	w.move(1)
	began := time.Now()
	// New clients go to the new active site at once.
	c, r := w.connect(t, 0)
	if got := greeting(t, c, r); got != "b" {
		t.Errorf("a new client is served by %s", got)
	}
	// Old ones go on for a while, and then are told.
	if _, err := io.WriteString(here, "still here\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := rHere.ReadString('\n'); err != nil || line != "still here\r\n" {
		t.Errorf("while it drains: %q, %v", line, err)
	}
	for name, r := range map[string]*bufio.Reader{"at the old site": rHere, "at the new site": rThere} {
		rest, err := io.ReadAll(r)
		if err != nil || !strings.HasPrefix(string(rest), "* BYE ") {
			t.Errorf("%s: told %q, %v", name, rest, err)
		}
	}
	if took := time.Since(began); took < time.Second || took > 5*time.Second {
		t.Errorf("drained after %s", took)
	}
	if got := w.tunnels[0].Status()[0]; got.Way != "across" || got.Connections["across"] != 1 {
		t.Errorf("status %+v", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := start(t, "imaps", func(_ *Config, s *ServiceConfig) { s.MaxPerClient = 2 }, peertest.Options{})
	w.move(0)
	var open []net.Conn
	for range 2 {
		c, r := w.connect(t, 1)
		greeting(t, c, r)
		open = append(open, c)
	}
	if err := w.refused(t, 1, ""); err != nil {
		t.Errorf("one too many: %v", err)
	}
	_ = open[0].Close()
	peertest.WaitFor(t, "room", func() bool {
		c, r := w.connect(t, 1)
		defer func() { _ = c.Close() }()
		line, err := r.ReadString('\n')
		return err == nil && line != ""
	})
	_ = open[1].Close()
	peertest.WaitFor(t, "the sessions to end", func() bool { return len(w.tunnels[1].list()) == 0 })
	for _, forged := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", string(proxyproto.SIGV2) + "\x21\x11\x00\x0c............"} {
		c, r := w.connect(t, 1)
		greeting(t, c, r)
		if _, err := io.WriteString(c, forged); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a forged header: %q, %v", rest, err)
		}
	}
	here := netip.MustParseAddr("127.0.0.1")
	peertest.WaitFor(t, "the sessions to end", func() bool { return len(w.tunnels[1].list()) == 0 })
	c, r := w.connect(t, 1)
	greeting(t, c, r)
	w.banned.Store(&here)
	if _, err := io.ReadAll(r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a session of a banned client: %v", err)
	}
	if err := w.refused(t, 1, ""); err != nil {
		t.Errorf("a banned client: %v", err)
	}
}

func TestTrustedLoadBalancer(t *testing.T) {
	t.Parallel()
	w := start(t, "imaps", func(_ *Config, s *ServiceConfig) { s.AcceptProxyFrom = []string{"127.0.0.0/8"} }, peertest.Options{})
	w.move(0)
	c, r := w.connect(t, 1)
	if _, err := io.WriteString(c, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 993\r\nafter\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "* OK a 192.0.2.1:1000\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "after\r\n" {
		t.Errorf("what came behind the header: %q, %v", line, err)
	}
	if err := w.refused(t, 1, "a1 login\r\n\r\n"); err != nil {
		t.Errorf("without a header: %v", err)
	}
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	w := start(t, "imaps", nil, peertest.Options{})
	w.move(0)
	_ = w.backends[0].l.Close()
	for at := range 2 {
		if err := w.refused(t, at, ""); err != nil {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

func TestSlowReaderAndIdleClient(t *testing.T) {
	t.Parallel()
	w := start(t, "imaps", func(c *Config, _ *ServiceConfig) { c.StallTimeout, c.IdleTimeout = time.Second, 2*time.Second }, peertest.Options{})
	w.move(0)
	idle, r := w.connect(t, 1)
	greeting(t, idle, r)
	began := time.Now()
	slow, r2 := w.connect(t, 1)
	greeting(t, slow, r2)
	// The backend echoes, nobody reads: everything on the way fills up.
	_ = slow.SetWriteDeadline(time.Now().Add(20 * time.Second))
	junk := make([]byte, 1<<20)
	for range 256 {
		if _, err := slow.Write(junk); err != nil {
			break
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the slow reader was ended after %s", took)
	}
	peertest.WaitFor(t, "both to end", func() bool { return len(w.tunnels[1].list()) == 0 })
	if took := time.Since(began); took < time.Second {
		t.Errorf("ended after %s", took)
	}
}

func TestCutLinkEndsClients(t *testing.T) {
	t.Parallel()
	var cut atomic.Bool
	var mu sync.Mutex
	var conns []net.Conn
	opts := peertest.Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if cut.Load() {
			return nil, syscall.EHOSTUNREACH
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// A path that swallows everything from the moment of the cut.
		h := &hole{Conn: c, cut: &cut}
		mu.Lock()
		conns = append(conns, h)
		mu.Unlock()
		return h, nil
	}}
	opts.Config.Ping, opts.Config.Silence = 50*time.Millisecond, 500*time.Millisecond
	w := start(t, "https", func(c *Config, _ *ServiceConfig) { c.LinkLost = time.Second }, opts)
	w.move(0)
	c, r := w.connect(t, 1)
	greeting(t, c, r)
	cut.Store(true)
	began := time.Now()
	_, _ = io.ReadAll(r)
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the client was ended after %s", took)
	} else {
		t.Logf("the client was ended after %s", took)
	}
	if err := w.refused(t, 1, ""); err != nil {
		t.Errorf("a client while the link is down: %v", err)
	}
	peertest.WaitFor(t, "the other end to notice", func() bool { return len(w.tunnels[0].list()) == 0 })
}

// hole is a connection that carries nothing any more once cut is set.
type hole struct {
	net.Conn
	cut *atomic.Bool
}

func (h *hole) Write(p []byte) (int, error) {
	if h.cut.Load() {
		return len(p), nil
	}
	return h.Conn.Write(p)
}

func (h *hole) Read(p []byte) (int, error) {
	for {
		n, err := h.Conn.Read(p)
		if err != nil || !h.cut.Load() {
			return n, err
		}
	}
}

func TestNothingLeaks(t *testing.T) {
	w := start(t, "imaps", nil, peertest.Options{})
	w.move(0)
	count := 1_000
	if os.Getenv("LAB_CONNECTS") != "" {
		count = 10_000
	}
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc here")
		}
		return len(list)
	}
	run := func(n int) {
		var wg sync.WaitGroup
		work := make(chan int)
		for range 20 {
			wg.Go(func() {
				for i := range work {
					for _, addrs := range w.tunnels[1].Addrs() {
						c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addrs[0].String())
						if err != nil {
							t.Error(err)
							return
						}
						_ = c.SetDeadline(time.Now().Add(20 * time.Second))
						if i%4 != 0 { // some leave at once
							if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
								t.Errorf("client %d: %v", i, err)
							}
						}
						_ = c.Close()
					}
				}
			})
		}
		for i := range n {
			work <- i
		}
		close(work)
		wg.Wait()
		peertest.WaitFor(t, "the sessions to end", func() bool {
			return len(w.tunnels[0].list())+len(w.tunnels[1].list()) == 0 && w.backends[0].open.Load() == 0
		})
	}
	run(200)
	goroutines, fds := runtime.NumGoroutine(), descriptors()
	run(count)
	// The pool at its cap is 256 connections, two descriptors and one goroutine each.
	peertest.WaitFor(t, "goroutines and descriptors to go back", func() bool {
		return runtime.NumGoroutine() <= goroutines+300 && descriptors() <= fds+600
	})
	w.tunnels[1].mu.Lock()
	defer w.tunnels[1].mu.Unlock()
	if len(w.tunnels[1].perNet) != 0 || w.tunnels[1].open["imaps"] != 0 {
		t.Errorf("still counted: %v", w.tunnels[1].perNet)
	}
}

func FuzzPassage(f *testing.F) {
	p := passage{service: "imaps", origin: "b", hops: 1, client: netip.MustParseAddrPort("192.0.2.1:5"), server: netip.MustParseAddrPort("192.0.2.2:993")}
	raw, err := p.format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	p6 := p
	p6.client, p6.server = netip.MustParseAddrPort("[2001:db8::1]:5"), netip.MustParseAddrPort("[2001:db8::2]:993")
	if raw, err = p6.format(); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := readPassage(strings.NewReader(string(raw)))
		if err != nil {
			return
		}
		again, err := p.format()
		if err != nil {
			t.Skip() // addresses of two families: never written by us
		}
		q, err := readPassage(strings.NewReader(string(again)))
		if err != nil || *q != *p {
			t.Errorf("%+v became %+v, %v", p, q, err)
		}
	})
}

// TestMovesUnderLoad: while 50 clients work, the role moves back and forth. A
// client whose connection ends connects again, and is served by whoever is active
// then; no line of a session is lost or repeated.
func TestMovesUnderLoad(t *testing.T) {
	t.Parallel()
	w := start(t, "imap", func(c *Config, _ *ServiceConfig) { c.Drain = 300 * time.Millisecond }, peertest.Options{})
	w.move(0)
	var stop atomic.Bool
	var lines, sessions atomic.Int64
	var worst atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for !stop.Load() {
				lost := time.Now()
				c, r := w.connect(t, i%2)
				line, err := r.ReadString('\n')
				if err != nil || !strings.HasPrefix(line, "* OK ") {
					t.Errorf("client %d: greeting %q, %v", i, line, err)
					return
				}
				for took, old := time.Since(lost).Nanoseconds(), worst.Load(); took > old && !worst.CompareAndSwap(old, took); old = worst.Load() {
				}
				sessions.Add(1)
				for n := 0; !stop.Load(); n++ {
					want := strings.Repeat("x", n%50) + "\r\n"
					if _, err := io.WriteString(c, want); err != nil {
						break
					}
					got, err := r.ReadString('\n')
					if err != nil || strings.HasPrefix(got, "* BYE ") {
						break
					}
					if got != want {
						t.Errorf("client %d: %q for %q", i, got, want)
						return
					}
					lines.Add(1)
					<-time.After(2 * time.Millisecond)
				}
				_ = c.Close()
			}
		})
	}
	for i := range 3 {
		<-time.After(2 * time.Second)
		w.move((i + 1) % 2)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d sessions of 50 clients, %d lines, slowest return %s", sessions.Load(), lines.Load(), time.Duration(worst.Load()))
	if sessions.Load() < 150 {
		t.Errorf("only %d sessions: the moves ended few", sessions.Load())
	}
	if back := time.Duration(worst.Load()); back > 5*time.Second {
		t.Errorf("a client was back after %s", back)
	}
}
