// Package peertest makes links for tests: two sites on this machine that know
// each other.
//
//	a, b := peertest.Pair(t, peertest.Options{})
//	peer.HandleJSON(b, "echo", func(_ context.Context, s string) (string, error) { return s, nil })
//	peertest.Run(t, a, b)
package peertest

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"understudy/internal/peer"
)

// Options change what Pair makes. The zero value is two sites, a and b, that can
// both dial.
type Options struct {
	// Hidden: b cannot be dialled, as behind NAT.
	Hidden bool
	// Config is where both configurations start; Listen, Address and Pins are set.
	Config peer.Config
	// Log gets both sites' messages; nil discards them.
	Log *slog.Logger
	// Dial connects both sites; nil is by TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Pair returns two links that know each other's key and address. They listen, but
// do not run yet.
func Pair(tb testing.TB, o Options) (a, b *peer.Link) {
	tb.Helper()
	if o.Config.Ping == 0 {
		o.Config.Ping, o.Config.Silence = 50*time.Millisecond, 2*time.Second
	}
	keyA, keyB := key(tb), key(tb)
	addrA, addrB := freeAddress(tb), freeAddress(tb)
	cfgA, cfgB := o.Config, o.Config
	cfgA.Listen, cfgA.Pins = []string{addrA}, []string{keyB.Pin().String()}
	cfgB.Address, cfgB.Pins = addrA, []string{keyA.Pin().String()}
	if !o.Hidden {
		cfgB.Listen, cfgA.Address = []string{addrB}, addrB
	}
	make1 := func(cfg peer.Config, site, other string, k *peer.Key) *peer.Link {
		l, err := peer.New(cfg, peer.Deps{Site: site, PeerSite: other, Key: k, Version: "test", Logger: o.Log, DialContext: o.Dial})
		if err != nil {
			tb.Fatal(err)
		}
		if err := l.Listen(tb.Context()); err != nil {
			tb.Fatal(err)
		}
		return l
	}
	return make1(cfgA, "a", "b", keyA), make1(cfgB, "b", "a", keyB)
}

// Run runs links until the test ends, and waits until all are up.
func Run(tb testing.TB, links ...*peer.Link) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	var running sync.WaitGroup
	for _, l := range links {
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				tb.Errorf("run link: %v", err)
			}
		})
	}
	tb.Cleanup(func() { cancel(); running.Wait() })
	WaitFor(tb, "the link to come up", func() bool {
		for _, l := range links {
			if !l.Up() || l.Status().Connections == 0 {
				return false
			}
		}
		return true
	})
}

// WaitFor polls until done, for at most ten seconds.
func WaitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !done() {
		select {
		case <-limit.C:
			tb.Fatalf("waited 10 s for %s", what)
		case <-poll.C:
		}
	}
}

func key(tb testing.TB) *peer.Key {
	tb.Helper()
	k, err := peer.NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// freeAddress is an address of this machine that nobody listens on now. Link
// listens with SO_REUSEPORT, so that the test keeps it meanwhile.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
