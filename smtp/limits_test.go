package smtp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// waitFor polls until ok, at most 10 s.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited too long")
		}
		<-tick.C
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config, _ *Deps) {
			c.Limits.Connections = 2
			c.Limits.ConnectionsPerMinute = 5
		})
		a, b := w.session("192.0.2.1"), w.session("192.0.2.1")
		if _, err := w.dial("192.0.2.1"); reply(err) != "421 4.7.0 too many connections from your network" {
			t.Errorf("third connection: %s", reply(err))
		}
		if _, err := w.dial("192.0.2.2"); err != nil {
			t.Errorf("another address: %s", reply(err))
		}
		for _, s := range []*session{a, b, w.session("192.0.2.250"), w.session("127.0.0.1")} {
			if err := s.Logout(); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			if err := w.session("192.0.2.1").Logout(); err != nil {
				t.Error(err)
			}
		}
		if _, err := w.dial("192.0.2.1"); reply(err) != "421 4.7.0 too many new connections from your network" {
			t.Errorf("sixth connection in a minute: %s", reply(err))
		}
		<-time.After(70 * time.Second)
		if _, err := w.dial("192.0.2.1"); err != nil {
			t.Errorf("a minute later: %s", reply(err))
		}
	})
}

func TestNetworksShareLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config, _ *Deps) { c.Limits.Connections = 1 })
	w.session("2001:db8::1")
	if _, err := w.dial("2001:db8::2"); err == nil {
		t.Error("the same /64 is counted apart")
	}
	if _, err := w.dial("2001:db8:0:1::1"); err != nil {
		t.Error("another /64 is counted together")
	}
	w.session("192.0.2.1")
	if _, err := w.dial("::ffff:192.0.2.1"); err == nil {
		t.Error("a mapped address is counted apart")
	}
	for range 3 { // exempt
		w.session("127.0.0.1")
		w.session("192.0.2.250")
	}
}

func TestMessageAndRecipientLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config, _ *Deps) {
			c.Limits.MessagesPerMinute = 2
			c.Limits.RecipientsPerMinute = 3
		})
		s, other := w.session("192.0.2.1"), w.session("192.0.2.1")
		step := func(got error, want string) {
			t.Helper()
			if r := reply(got); !strings.HasPrefix(r, want) {
				t.Errorf("got %q, want %q", r, want)
			}
		}
		step(s.Mail("", nil), "250")
		step(s.Rcpt("user@example.com", nil), "250")
		step(s.Rcpt("nobody@example.com", nil), "550")
		step(s.Rcpt("user@example.com", nil), "250")
		step(s.Rcpt("other@example.com", nil), "450 4.7.1 <other@example.com>: Too many recipients from your network")
		step(other.Mail("", nil), "250")
		step(s.Mail("", nil), "450 4.7.1 Too many messages from your network")
		<-time.After(70 * time.Second)
		step(s.Mail("", nil), "250")
		step(s.Rcpt("user@example.com", nil), "250")
		peer := w.session("192.0.2.250")
		for range 10 {
			step(peer.Mail("", nil), "250")
			step(peer.Rcpt("user@example.com", nil), "250")
		}
	})
}

// In no 60 s are more than limit events let through, and after 70 s of silence
// the whole limit is free.
func TestWindowProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		var w window
		var now time.Duration
		var taken []time.Duration
		for i, n := 0, rapid.IntRange(1, 200).Draw(t, "n"); i < n; i++ {
			step := time.Duration(rapid.IntRange(0, 30_000).Draw(t, "step")) * time.Millisecond
			now += step
			if w.take(int64(now/slotLength), 1, limit) {
				taken = append(taken, now)
			} else if len(taken) > 0 && now-taken[len(taken)-1] >= 70*time.Second {
				t.Fatal("refused after a long silence")
			}
			var recent int
			for _, at := range taken {
				if now-at < time.Minute {
					recent++
				}
			}
			if recent > limit {
				t.Fatalf("%d in a minute, limit %d", recent, limit)
			}
		}
		now += 70 * time.Second
		for i := range limit {
			if !w.take(int64(now/slotLength), 1, limit) {
				t.Fatalf("only %d of %d after a silence", i, limit)
			}
		}
	})
}

// The table against a simple model: never larger than its bound, open connections
// are never forgotten, and the concurrency limit is exact.
func TestLimiterProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const maxClients = 4
		l := newLimiter(maxClients)
		cfg := LimitsConfig{Connections: 2}
		open := make(map[netip.Addr]int)
		used := func() (n int) {
			for _, c := range open {
				if c > 0 {
					n++
				}
			}
			return n
		}
		for i, n := 0, rapid.IntRange(1, 300).Draw(t, "n"); i < n; i++ {
			a := netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 8).Draw(t, "addr")))
			if rapid.Bool().Draw(t, "connect") {
				got := l.connect(a, &cfg) == ""
				want := open[a] < cfg.Connections && (open[a] > 0 || used() < maxClients)
				if got != want {
					t.Fatalf("connect %s: %t, want %t", a, got, want)
				}
				if got {
					open[a]++
				}
			} else if open[a] > 0 {
				l.disconnect(a)
				open[a]--
			}
			if l.size() > maxClients {
				t.Fatalf("%d clients remembered", l.size())
			}
			idle := 0
			for c := l.idle.next; c != &l.idle; c = c.next {
				idle++
			}
			if idle+used() != l.size() {
				t.Fatalf("%d idle + %d used != %d", idle, used(), l.size())
			}
		}
	})
}

func BenchmarkLimiter(b *testing.B) {
	l := newLimiter(100_000)
	cfg := DefaultConfig().Limits
	cfg.ConnectionsPerMinute = 0
	a := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if l.connect(a, &cfg) != "" {
			b.Fatal("limited")
		}
		l.disconnect(a)
	}
}
