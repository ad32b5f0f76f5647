package peer

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// site runs a link that trusts trusted, on a free port.
func site(t *testing.T, trusted *Key, change func(*Config, *Link)) *Link {
	t.Helper()
	key := newTestKey(t)
	cfg := Config{Listen: []string{"127.0.0.1:0"}, Pins: []string{trusted.Pin().String()}, Ping: 50 * time.Millisecond, Silence: time.Second, HandshakeTimeout: 2 * time.Second}
	l, err := New(cfg, Deps{Site: "a", PeerSite: "b", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&l.cfg, l)
	}
	l.Serve(Redis, func(_ context.Context, c *Conn) {
		defer func() { _ = c.Close() }()
		_, _ = io.Copy(c, c)
	})
	runLink(t, l)
	return l
}

func runLink(t *testing.T, l *Link) {
	t.Helper()
	if err := l.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

func newTestKey(t *testing.T) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// client dials l as whoever has key, by its own hand.
func client(t *testing.T, l *Link, key *Key, change func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{string(Redis)}, ServerName: serverName}
	if key != nil {
		cfg.Certificates = []tls.Certificate{key.cert}
	}
	if change != nil {
		change(cfg)
	}
	d := tls.Dialer{Config: cfg}
	nc, err := d.DialContext(t.Context(), "tcp", l.Addrs()[0].String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	return nc.(*tls.Conn), nil
}

// answered says whether the site let the connection in: its first byte came.
func answered(c *tls.Conn, err error) error {
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err = c.Read(b[:]); err == nil && b[0] != answerReady {
		err = ErrNoService
	}
	return err
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	friend := newTestKey(t)
	l := site(t, friend, nil)
	if err := answered(client(t, l, friend, nil)); err != nil {
		t.Fatalf("the pinned key is refused: %v", err)
	}
	if err := answered(client(t, l, newTestKey(t), nil)); err == nil {
		t.Error("a key that is not pinned was let in")
	}
	if err := answered(client(t, l, nil, nil)); err == nil {
		t.Error("a client without a certificate was let in")
	}
	if err := answered(client(t, l, friend, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })); err == nil {
		t.Error("TLS 1.2 was let in")
	}
	if err := answered(client(t, l, friend, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} })); err == nil {
		t.Error("an unknown service was let in")
	}
	if err := answered(client(t, l, friend, func(c *tls.Config) { c.NextProtos = nil })); err == nil {
		t.Error("a client without ALPN was let in")
	}
	// Somebody else's certificate without its key.
	stolen := newTestKey(t)
	stolen.cert.Certificate = friend.cert.Certificate
	if err := answered(client(t, l, stolen, nil)); err == nil {
		t.Error("a certificate without its key was let in")
	}
}

func TestServerOfAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	me := newTestKey(t)
	impostor := site(t, me, nil)
	cfg := Config{Address: impostor.Addrs()[0].String(), Pins: []string{newTestKey(t).Pin().String()}}
	l, err := New(cfg, Deps{Key: me})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Dial(t.Context(), Redis); !errors.Is(err, ErrWrongKey) || !errors.Is(err, ErrDown) {
		t.Errorf("the impostor: %v", err)
	}
}

func TestPinsAreJudgedOnResumption(t *testing.T) {
	t.Parallel()
	me := newTestKey(t)
	server := site(t, me, nil)
	cfg := Config{Address: server.Addrs()[0].String(), Pins: []string{server.Pin().String()}}
	l, err := New(cfg, Deps{Key: me})
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (*Conn, error) {
		c, err := l.Dial(t.Context(), Redis)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		return c, c.confirm() // reads the session ticket too
	}
	first, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	second, err := dial()
	if err != nil || !second.ConnectionState().DidResume {
		t.Fatalf("the second connection did not resume: %v", err)
	}
	// The server forgets the key: what is open ends, what resumes is refused.
	if err := server.SetPins([]string{newTestKey(t).Pin().String()}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Conn{first, second} {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an open connection of a forgotten key: %v", err)
		}
	}
	if _, err := dial(); err == nil {
		t.Error("a resumed connection of a forgotten key was let in")
	}
	// The client forgets the server's: its ticket is worth nothing.
	if err := l.SetPins([]string{newTestKey(t).Pin().String()}); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(); !errors.Is(err, ErrWrongKey) {
		t.Errorf("resumed with a server whose key is forgotten: %v", err)
	}
}

func TestRotationNeedsNoOutage(t *testing.T) {
	t.Parallel()
	old, fresh := newTestKey(t), newTestKey(t)
	l := site(t, old, nil)
	if err := l.SetPins([]string{old.Pin().String(), fresh.Pin().String()}); err != nil {
		t.Fatal(err)
	}
	c, err := client(t, l, old, nil)
	if err := answered(c, err); err != nil {
		t.Errorf("old key: %v", err)
	}
	if err := answered(client(t, l, fresh, nil)); err != nil {
		t.Errorf("new key: %v", err)
	}
	if err := l.SetPins([]string{l.Pin().String()}); err == nil {
		t.Error("this site's own key was accepted as the other's")
	}
}

func TestSilentStrangersDoNotKeepThePort(t *testing.T) {
	t.Parallel()
	friend := newTestKey(t)
	l := site(t, friend, func(c *Config, _ *Link) { c.HandshakeTimeout = 300 * time.Millisecond })
	var held []net.Conn
	for range handshakesAtOnce + 20 {
		nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		held = append(held, nc)
	}
	_ = held[0].SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := held[0].Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent connection was not closed: %v", err)
	}
	wait(t, "a friend to be let in", func() bool { return answered(client(t, l, friend, nil)) == nil })
	// Plain text is refused at once.
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, context.DeadlineExceeded) {
		t.Error("plain text was not answered")
	}
}

func TestHostileFrames(t *testing.T) {
	t.Parallel()
	friend := newTestKey(t)
	l := site(t, friend, nil)
	rpc := func() *tls.Conn {
		c, err := client(t, l, friend, func(c *tls.Config) { c.NextProtos = []string{string(RPC)} })
		if err := answered(c, err); err != nil {
			t.Fatal(err)
		}
		return c
	}
	ends := func(name string, c *tls.Conn) {
		t.Helper()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	frame := func(text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	}
	good := frame(`{"kind":"hello","hello":{"site":"b","oldest":1,"newest":1}}`)
	for name, sent := range map[string][]byte{
		"huge length":         {0xff, 0xff, 0xff, 0xff},
		"huge after greeting": append(append([]byte{}, good...), 0xff, 0xff, 0xff, 0xff),
		"no json":             frame("hello"),
		"call first":          frame(`{"kind":"call","id":1,"method":"x"}`),
		"own name":            frame(`{"kind":"hello","hello":{"site":"a","oldest":1,"newest":1}}`),
		"wrong name":          frame(`{"kind":"hello","hello":{"site":"c","oldest":1,"newest":1}}`),
		"too new":             frame(`{"kind":"hello","hello":{"site":"b","oldest":2,"newest":3}}`),
		"silence":             nil,
		"silence after hello": good,
	} {
		c := rpc()
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		ends(name, c)
	}
	if l.Up() && l.Status().Connections > 0 {
		t.Error("a hostile connection counts")
	}
	// A newer site that still speaks this version is welcome, and what it says
	// beyond it is ignored.
	c := rpc()
	_, _ = c.Write(frame(`{"kind":"hello","new":1,"hello":{"site":"b","oldest":1,"newest":2,"x":[]}}`))
	_, _ = c.Write(frame(`{"kind":"song","id":7}`))
	wait(t, "the newer site", func() bool { s := l.Status(); return s.Up && s.Protocol == 1 })
}

// TestFloodOfCalls: more questions than are worked on at once are told so.
func TestFloodOfCalls(t *testing.T) {
	t.Parallel()
	friend := newTestKey(t)
	release := make(chan struct{})
	l := site(t, friend, nil)
	HandleJSON(l, "wait", func(ctx context.Context, _ any) (int, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return 1, nil
	})
	other, err := New(Config{Address: l.Addrs()[0].String(), Pins: []string{l.Pin().String()}, Ping: 50 * time.Millisecond, Silence: 5 * time.Second}, Deps{Site: "b", PeerSite: "a", Key: friend})
	if err != nil {
		t.Fatal(err)
	}
	runLink(t, other)
	wait(t, "the link", func() bool { return other.Status().Connections == 1 })
	var wg sync.WaitGroup
	errs := make(chan error, 2*callsAtOnce)
	for range 2 * callsAtOnce {
		wg.Go(func() { errs <- other.Call(t.Context(), "wait", nil, nil) })
	}
	busy := 0
	for range callsAtOnce {
		if err := <-errs; errors.Is(err, ErrBusy) {
			busy++
		} else {
			t.Errorf("one too many: %v", err)
		}
	}
	close(release)
	wg.Wait()
	for range callsAtOnce {
		if err := <-errs; err != nil {
			t.Errorf("one that was worked on: %v", err)
		}
	}
	if busy != callsAtOnce {
		t.Errorf("%d of %d were told that the site is busy", busy, callsAtOnce)
	}
	if err := other.Call(t.Context(), "wait", strings.Repeat("x", MaxFrameBytes), nil); !errors.Is(err, ErrTooBig) {
		t.Errorf("a huge question: %v", err)
	}
}

func TestLinkGoesDownAndComesBack(t *testing.T) {
	t.Parallel()
	keyA, keyB := newTestKey(t), newTestKey(t)
	a, err := New(Config{Listen: []string{"127.0.0.1:0"}, Pins: []string{keyB.Pin().String()}, Ping: 50 * time.Millisecond, Silence: 400 * time.Millisecond}, Deps{Site: "a", Key: keyA})
	if err != nil {
		t.Fatal(err)
	}
	runLink(t, a)
	var mu sync.Mutex
	var open []net.Conn
	cut := false
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if cut {
			return nil, errors.New("cut")
		}
		nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			open = append(open, nc)
		}
		return nc, err
	}
	b, err := New(Config{Address: a.Addrs()[0].String(), Pins: []string{keyA.Pin().String()}, Ping: 50 * time.Millisecond, Silence: 400 * time.Millisecond}, Deps{Site: "b", Key: keyB, DialContext: dial})
	if err != nil {
		t.Fatal(err)
	}
	var changes []bool
	b.OnChange(func(up bool) { mu.Lock(); defer mu.Unlock(); changes = append(changes, up) })
	runLink(t, b)
	wait(t, "the link", func() bool { return a.Up() && b.Up() })
	// A connection that breaks and is made again does not take the link down.
	mu.Lock()
	_ = open[len(open)-1].Close()
	mu.Unlock()
	wait(t, "a new connection", func() bool { mu.Lock(); defer mu.Unlock(); return len(open) >= 2 })
	wait(t, "rpc", func() bool { return b.Status().Connections == 1 })
	mu.Lock()
	cut = true
	for _, nc := range open {
		_ = nc.Close()
	}
	mu.Unlock()
	wait(t, "both to notice", func() bool { return !a.Up() && !b.Up() })
	if s := b.Status(); s.Fault == "" || s.Heard.IsZero() {
		t.Errorf("status of a link that is down: %+v", s)
	}
	mu.Lock()
	cut = false
	mu.Unlock()
	wait(t, "the link to come back", func() bool { return a.Up() && b.Up() })
	mu.Lock()
	defer mu.Unlock()
	if len(changes) != 3 || !changes[0] || changes[1] || !changes[2] {
		t.Errorf("told %v, want up, down, up", changes)
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "peer.key")
	k := newTestKey(t)
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := newTestKey(t).Save(path); !errors.Is(err, ErrKeyExists) {
		t.Errorf("a key was replaced: %v", err)
	}
	again, err := LoadKey(path)
	if err != nil || again.Pin() != k.Pin() {
		t.Fatalf("read back: %v", err)
	}
	p := Pairing{Site: "a", Address: "mx1.example.net:7025", Pin: k.Pin()}
	if got, err := ParsePairing(p.String()); err != nil || got != p {
		t.Errorf("pairing %s: %+v, %v", p, got, err)
	}
	for _, bad := range []string{"", "a", "a@b", "a@b/sha256:xx", "a@host/" + k.Pin().String(), "@h:1/" + k.Pin().String()} {
		if _, err := ParsePairing(bad); err == nil {
			t.Errorf("%q was read as a pairing string", bad)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x10{\"kind\":\"hello\"}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := readFrame(strings.NewReader(string(raw)), maxHelloBytes)
		if err != nil {
			return
		}
		if _, err := encode(m); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
		if m.Hello != nil {
			_, _ = agree(oldestVersion, newestVersion, m.Hello)
		}
	})
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !done() {
		select {
		case <-limit.C:
			t.Fatalf("waited 10 s for %s", what)
		case <-poll.C:
		}
	}
}
