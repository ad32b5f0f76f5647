package peer_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/peer"
	"understudy/internal/peer/peertest"
)

type question struct{ N int }

func TestCall(t *testing.T) {
	t.Parallel()
	for _, hidden := range []bool{false, true} {
		a, b := peertest.Pair(t, peertest.Options{Hidden: hidden})
		for _, l := range []*peer.Link{a, b} {
			peer.HandleJSON(l, "double", func(_ context.Context, q question) (int, error) {
				if q.N < 0 {
					return 0, errors.New("negative")
				}
				return 2 * q.N, nil
			})
			l.Handle("panic", func(context.Context, json.RawMessage) (any, error) { panic("at the other site") })
		}
		peertest.Run(t, a, b)
		for name, l := range map[string]*peer.Link{"a": a, "b": b} {
			var got int
			if err := l.Call(t.Context(), "double", question{21}, &got); err != nil || got != 42 {
				t.Errorf("hidden %t, %s: double 21 = %d, %v", hidden, name, got, err)
			}
			var remote *peer.RemoteError
			if err := l.Call(t.Context(), "double", question{-1}, &got); !errors.As(err, &remote) || remote.Text != "negative" {
				t.Errorf("%s: a refusal became %v", name, err)
			}
			if err := l.Call(t.Context(), "panic", nil, nil); !errors.As(err, &remote) {
				t.Errorf("%s: a panic became %v", name, err)
			}
			if err := l.Call(t.Context(), "nothing", nil, nil); !errors.Is(err, peer.ErrUnknownMethod) {
				t.Errorf("%s: an unknown method became %v", name, err)
			}
		}
	}
}

func TestConnectionsInBothDirections(t *testing.T) {
	t.Parallel()
	for _, hidden := range []bool{false, true} {
		a, b := peertest.Pair(t, peertest.Options{Hidden: hidden})
		for _, l := range []*peer.Link{a, b} {
			l.Serve(peer.IMAP, func(_ context.Context, c *peer.Conn) {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
				_ = c.CloseWrite()
			})
		}
		peertest.Run(t, a, b)
		if hidden {
			peertest.WaitFor(t, "spares", func() bool { return a.Status().Spares >= 4 })
		}
		for _, l := range []*peer.Link{a, b} {
			for range 6 { // more than the spares at the start
				var c *peer.Conn
				peertest.WaitFor(t, "a connection", func() bool {
					var err error
					c, err = l.Dial(t.Context(), peer.IMAP)
					return err == nil
				})
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
					t.Fatalf("hidden %t: got %q, %v", hidden, got, err)
				}
				_ = c.Close()
			}
			c, err := l.Dial(t.Context(), peer.Redis)
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				_ = c.Close()
			}
			if !errors.Is(err, peer.ErrNoService) {
				t.Errorf("a service nobody serves: %v", err)
			}
		}
	}
}

func TestOutcomeOfACall(t *testing.T) {
	t.Parallel()
	a, b := peertest.Pair(t, peertest.Options{})
	if err := a.Call(t.Context(), "x", nil, nil); !errors.Is(err, peer.ErrDown) {
		t.Errorf("before it runs: %v", err)
	}
	began, release := make(chan struct{}), make(chan struct{})
	var stopped atomic.Bool
	b.Handle("slow", func(ctx context.Context, _ json.RawMessage) (any, error) {
		close(began)
		<-ctx.Done()
		<-release
		stopped.Store(true)
		return nil, ctx.Err()
	})
	peertest.Run(t, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.Call(ctx, "slow", nil, nil); !errors.Is(err, peer.ErrLost) {
		t.Errorf("an answer that did not come in time: %v", err)
	}
	<-began
	close(release)
	peertest.WaitFor(t, "the handler to be told", stopped.Load)
}

func TestStatusComparesConfigurations(t *testing.T) {
	t.Parallel()
	a, b := peertest.Pair(t, peertest.Options{})
	a.SetConfig(map[string]string{"domains": "1", "failover.mode": "2"})
	b.SetConfig(map[string]string{"domains": "1", "failover.mode": "3", "spam.engine": "4"})
	peertest.Run(t, a, b)
	s := a.Status()
	if s.Site != "b" || s.Program != "test" || s.Config == s.PeerConfig || len(s.Differing) != 2 || s.Differing[0] != "failover.mode" {
		t.Errorf("status %+v", s)
	}
	b.SetConfig(map[string]string{"domains": "1", "failover.mode": "2"})
	peertest.WaitFor(t, "the new configuration", func() bool { return len(a.Status().Differing) == 0 })
	peertest.WaitFor(t, "a measurement", func() bool { return a.RTT() > 0 })
	if off := a.Status().ClockOffset.Abs(); off > 100*time.Millisecond {
		t.Errorf("one clock differs from itself by %s", off)
	}
}
