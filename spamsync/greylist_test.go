package spamsync

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func greyConfig() GreylistConfig {
	return GreylistConfig{Enabled: true, Delay: 5 * time.Minute, Window: 48 * time.Hour, Remember: 30 * 24 * time.Hour, MaxLocal: 100}
}

func question(n int) GreyQuestion {
	return GreyQuestion{Addr: netip.MustParseAddr("192.0.2.7"), Sender: fmt.Sprintf("s%d@a.example", n), Recipients: []string{"r@b.example"}}
}

func TestDecideGrey(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tc := range []struct {
		ago  time.Duration
		want GreyDecision
	}{
		{-time.Minute, GreyEarly}, {0, GreyEarly}, {5*time.Minute - 1, GreyEarly}, {5 * time.Minute, GreyPass}, {48 * time.Hour, GreyPass}, {48*time.Hour + 1, GreyNew},
	} {
		if got := DecideGrey(now.Add(-tc.ago), now, 5*time.Minute, 48*time.Hour); got != tc.want {
			t.Errorf("%v ago: %d, want %d", tc.ago, got, tc.want)
		}
	}
	if got := DecideGrey(time.Time{}, now, 0, time.Hour); got != GreyNew {
		t.Errorf("never seen: %d", got)
	}
}

func TestGreyKeys(t *testing.T) {
	t.Parallel()
	base := question(1)
	with := func(change func(*GreyQuestion)) GreyQuestion {
		q := base
		q.Recipients = []string{"r@b.example"}
		change(&q)
		return q
	}
	for name, tc := range map[string]struct {
		q                    GreyQuestion
		sameKey, sameKnownBy bool
	}{
		"same /24":         {with(func(q *GreyQuestion) { q.Addr = netip.MustParseAddr("192.0.2.200") }), true, true},
		"mapped":           {with(func(q *GreyQuestion) { q.Addr = netip.MustParseAddr("::ffff:192.0.2.7") }), true, true},
		"other /24":        {with(func(q *GreyQuestion) { q.Addr = netip.MustParseAddr("192.0.3.7") }), false, false},
		"case":             {with(func(q *GreyQuestion) { q.Sender = "S1@A.example" }), true, true},
		"other sender":     {with(func(q *GreyQuestion) { q.Sender = "x@a.example" }), false, true},
		"other recipients": {with(func(q *GreyQuestion) { q.Recipients = append(q.Recipients, "z@b.example") }), false, true},
		"a domain":         {with(func(q *GreyQuestion) { q.Domain = "a.example" }), false, false},
	} {
		if got := tc.q.Key() == base.Key(); got != tc.sameKey {
			t.Errorf("%s: same key %t", name, got)
		}
		if got := tc.q.Known() == base.Known(); got != tc.sameKnownBy {
			t.Errorf("%s: same sender %t", name, got)
		}
	}
	// A pool of machines of one authenticated domain is one sender.
	a, b := base, base
	a.Domain, b.Domain, b.Addr = "big.example", "BIG.example", netip.MustParseAddr("2001:db8::1")
	if a.Key() != b.Key() {
		t.Error("a big sender's machines are told apart")
	}
	v6, other := base, base
	v6.Addr, other.Addr = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	if v6.Key() != other.Key() {
		t.Error("a /64 is told apart")
	}
}

func TestGreylist(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	state := NewMemory(func() time.Time { return now })
	g := NewGreylist(state, greyConfig(), nil, nil)
	q := question(1)
	step := func(d time.Duration, q GreyQuestion, want GreyDecision) GreyAnswer {
		t.Helper()
		now = now.Add(d)
		peek := g.Peek(ctx, q, now)
		a := g.Check(ctx, q, now)
		if a.Decision != want || peek.Decision != want || a.Local {
			t.Errorf("%+v, peek %+v, want %d", a, peek, want)
		}
		return a
	}
	step(0, q, GreyNew)
	if a := step(time.Minute, q, GreyEarly); a.Wait != 4*time.Minute {
		t.Errorf("wait %v", a.Wait)
	}
	step(3*time.Minute, question(2), GreyNew)
	step(time.Minute, q, GreyPass)
	if a := step(time.Minute, question(3), GreyPass); !a.Known {
		t.Error("the sender came back, but is not known")
	}
	step(31*24*time.Hour, question(3), GreyNew)
}

// TestNeverForEver: while the state refuses writes, or is away altogether, every
// sender gets in after the delay, also over a restart.
func TestNeverForEver(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string][2]error{
		"read-only": {nil, ErrReadOnly},
		"away":      {ErrAway, ErrAway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
			state := NewMemory(func() time.Time { return now })
			dir := t.TempDir()
			g, stop := withJournal(t, dir, state)
			seen := question(1)
			g.Check(t.Context(), seen, now) // before the failure: in the state
			state.Fail(fail[0], fail[1])

			const messages = 20
			for i := range messages {
				if a := g.Check(t.Context(), question(100+i), now); a.Decision != GreyNew || !a.Local {
					t.Fatalf("first sight: %+v", a)
				}
			}
			stop()
			g, stop = withJournal(t, dir, state)
			if g.Local() != messages {
				t.Fatalf("%d records after a restart", g.Local())
			}
			now = now.Add(time.Minute)
			if a := g.Check(t.Context(), question(100), now); a.Decision != GreyEarly {
				t.Fatalf("early: %+v", a)
			}
			now = now.Add(4 * time.Minute)
			for i := range messages {
				if a := g.Check(t.Context(), question(100+i), now); a.Decision != GreyPass {
					t.Fatalf("after the delay: %+v", a)
				}
			}
			if _, err := g.Merge(t.Context(), now); err == nil {
				t.Error("merged into a state that refuses")
			}

			// The state is back: the records move there, and the journal empties.
			state.Fail(nil, nil)
			if n, err := g.Merge(t.Context(), now); err != nil || n != messages+1 {
				t.Errorf("merged %d, %v", n, err)
			}
			if first, err := state.First(t.Context(), question(105).Key()); err != nil || !first.Equal(now.Add(-5*time.Minute)) {
				t.Errorf("the state knows %v, %v", first, err)
			}
			stop()
			g, stop = withJournal(t, dir, state)
			defer stop()
			if g.Local() != 0 {
				t.Errorf("%d records after the merge", g.Local())
			}
		})
	}
}

// withJournal opens a greylist with a journal and runs it until stop.
func withJournal(t *testing.T, dir string, state State) (g *Greylist, stop func()) {
	t.Helper()
	j, err := OpenGreyJournal(dir, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	g = NewGreylist(state, greyConfig(), j, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	return g, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNowhereToWrite: what can be recorded nowhere is let in.
func TestNowhereToWrite(t *testing.T) {
	t.Parallel()
	now := time.Now()
	state := NewMemory(nil)
	state.Fail(nil, ErrReadOnly)
	cfg := greyConfig()
	cfg.MaxLocal = 2
	g := NewGreylist(state, cfg, nil, nil)
	for i, want := range []GreyDecision{GreyNew, GreyNew, GreyPass} {
		if a := g.Check(t.Context(), question(i), now); a.Decision != want {
			t.Errorf("record %d: %+v", i, a)
		}
	}
	// Expired ones make room.
	if a := g.Check(t.Context(), question(9), now.Add(49*time.Hour)); a.Decision != GreyNew {
		t.Errorf("after a while: %+v", a)
	}
}

func TestReputation(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	r := &Reputation{State: NewMemory(func() time.Time { return now }), Config: ReputationConfig{HalfLife: 7 * day, Keep: 40 * day}}
	good, bad := r.DomainKey("Good.example"), r.NetworkKey(netip.MustParseAddr("192.0.2.1"))
	for range 24 {
		if err := r.Note(ctx, now, Ham, good); err != nil {
			t.Fatal(err)
		}
		if err := r.Note(ctx, now, Spam, bad); err != nil {
			t.Fatal(err)
		}
	}
	look := func() []Standing {
		t.Helper()
		s, err := r.Look(ctx, now, good, bad, "none")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := look(); s[0].Score() != -0.75 || s[1].Score() != 0.75 || s[2].Score() != 0 || s[2].Known() {
		t.Errorf("%+v", s)
	}
	now = now.Add(7 * day)
	if s := look(); s[0].Ham != 12 || s[1].Spam != 12 {
		t.Errorf("after a half-life: %+v", s)
	}
	now = now.Add(34 * day)
	if s := look(); s[0].Known() {
		t.Errorf("for ever: %+v", s)
	}
}

func TestRatelimit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	r := &Ratelimit{State: NewMemory(func() time.Time { return now }), Config: RatelimitConfig{Messages: 10, Window: time.Hour}}
	send := func(addr string) bool {
		t.Helper()
		a := netip.MustParseAddr(addr)
		rate, err := r.Look(ctx, a, now)
		if err != nil {
			t.Fatal(err)
		}
		if !rate.Over {
			if err := r.Count(ctx, a, now); err != nil {
				t.Fatal(err)
			}
		}
		return rate.Over
	}
	for i := range 10 {
		if send(fmt.Sprintf("2001:db8::%d", i+1)) || send("192.0.2.1") {
			t.Fatalf("message %d is over", i)
		}
	}
	if !send("2001:db8::ffff") || !send("192.0.2.1") {
		t.Error("the eleventh is not over")
	}
	if send("192.0.2.2") || send("2001:db8:0:1::1") {
		t.Error("a neighbour is over")
	}
	now = now.Add(time.Hour)
	if !send("192.0.2.1") {
		t.Error("the window before does not count")
	}
	now = now.Add(30 * time.Minute)
	if send("192.0.2.1") {
		t.Error("half of the window before is too much")
	}
	r.Config.Messages = 0
	if send("192.0.2.1") {
		t.Error("no limit is over")
	}
}
