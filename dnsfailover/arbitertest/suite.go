package arbitertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"understudy/dnsfailover"
)

// Lab is an authority that a test owns.
type Lab struct {
	// Client returns a new client as site would have it, with its own key.
	Client func(t *testing.T, site dnsfailover.Site) dnsfailover.Arbiter
	// Zone ends in a dot. Records directly below it may be changed.
	Zone string
	// Edit sets a record as an operator would, behind the arbiter's back. nil: the
	// authority holds no records.
	Edit func(t *testing.T, set dnsfailover.RRSet)
	// Drop deletes the register as an operator would.
	Drop func(t *testing.T)
	// Unreachable returns a client of an authority that is not there.
	Unreachable func(t *testing.T) dnsfailover.Arbiter
	// WrongKey returns a client with a key that the authority does not accept.
	WrongKey func(t *testing.T) dnsfailover.Arbiter
	// Races is how many two-way races are run; 0 is 20.
	Races int
}

// value is a valid register for tests.
func value(epoch uint64, holder, by dnsfailover.Site, state dnsfailover.RegisterState) dnsfailover.Register {
	return dnsfailover.Register{
		Epoch: epoch, Holder: holder, State: state, By: by, Nonce: dnsfailover.NewNonce(),
		Config: "0badcafe", At: time.Now().Unix(),
	}
}

// Run checks the contract of dnsfailover.Arbiter. The register need not exist.
func Run(t *testing.T, lab Lab) {
	t.Helper()
	t.Run("missing", lab.missing)
	t.Run("create once", lab.create)
	t.Run("swap", lab.swap)
	t.Run("stale", lab.stale)
	t.Run("repeated", lab.repeated)
	t.Run("races", lab.races)
	t.Run("ended context", lab.ended)
	t.Run("unreachable", lab.unreachable)
	t.Run("wrong key", lab.wrongKey)
	if lab.Edit == nil {
		t.Run("no records", lab.noRecords)
		return
	}
	t.Run("records", lab.records)
	t.Run("records move with the register", lab.together)
	t.Run("conflict changes no record", lab.conflictKeeps)
	t.Run("foreign record", lab.foreign)
	t.Run("absent record", lab.absent)
}

// start drops the register and makes a new one.
func (l Lab) start(t *testing.T) (a, b dnsfailover.Arbiter, first dnsfailover.Register) {
	t.Helper()
	l.Drop(t)
	a, b = l.Client(t, "a"), l.Client(t, "b")
	first = value(1, "a", "a", dnsfailover.Held)
	if err := a.CompareAndSwap(t.Context(), dnsfailover.Register{}, first, nil); err != nil {
		t.Fatalf("create the register: %v", err)
	}
	return a, b, first
}

func holds(t *testing.T, a dnsfailover.Arbiter, want dnsfailover.Register) {
	t.Helper()
	got, err := a.Read(t.Context())
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if got != want {
		t.Fatalf("the register holds %s, want %s", got, want)
	}
}

func (l Lab) missing(t *testing.T) {
	l.Drop(t)
	a := l.Client(t, "a")
	if got, err := a.Read(t.Context()); !errors.Is(err, dnsfailover.ErrMissing) {
		t.Errorf("read without a register: %s, %v; want ErrMissing", got, err)
	}
	// Nobody may create it by swapping a value that was lost.
	err := a.CompareAndSwap(t.Context(), value(3, "a", "a", dnsfailover.Held), value(3, "a", "b", dnsfailover.Claimed), nil)
	if !errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("swap without a register: %v, want ErrConflict", err)
	}
	if got, err := a.Read(t.Context()); !errors.Is(err, dnsfailover.ErrMissing) {
		t.Errorf("after that: %s, %v; want ErrMissing", got, err)
	}
}

func (l Lab) create(t *testing.T) {
	a, b, first := l.start(t)
	if err := b.CompareAndSwap(t.Context(), dnsfailover.Register{}, value(1, "b", "b", dnsfailover.Held), nil); !errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("create again: %v, want ErrConflict", err)
	}
	holds(t, a, first)
	holds(t, b, first)
}

func (l Lab) swap(t *testing.T) {
	a, b, cur := l.start(t)
	for i := range 6 { // several exchanges on one client
		next := value(uint64(i+2), "b", "b", dnsfailover.Held)
		next.Paused = i%2 == 1
		who := a
		if i%3 == 2 {
			who = b
		}
		if err := who.CompareAndSwap(t.Context(), cur, next, nil); err != nil {
			t.Fatalf("swap %d: %v", i, err)
		}
		holds(t, a, next)
		holds(t, b, next)
		cur = next
	}
}

func (l Lab) stale(t *testing.T) {
	a, b, first := l.start(t)
	claim := value(1, "a", "b", dnsfailover.Claimed)
	if err := b.CompareAndSwap(t.Context(), first, claim, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := a.CompareAndSwap(t.Context(), first, value(1, "a", "a", dnsfailover.Held), nil); !errors.Is(err, dnsfailover.ErrConflict) {
			t.Fatalf("swap from a stale value: %v, want ErrConflict", err)
		}
		holds(t, a, claim)
	}
	// Only the nonce differs.
	almost := claim
	almost.Nonce = dnsfailover.NewNonce()
	if err := a.CompareAndSwap(t.Context(), almost, value(2, "b", "b", dnsfailover.Held), nil); !errors.Is(err, dnsfailover.ErrConflict) {
		t.Fatalf("swap from another nonce: %v, want ErrConflict", err)
	}
}

// repeated: the same call again answers nil or ErrConflict and changes nothing.
func (l Lab) repeated(t *testing.T) {
	a, _, first := l.start(t)
	next := value(2, "b", "b", dnsfailover.Held)
	if err := a.CompareAndSwap(t.Context(), first, next, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.CompareAndSwap(t.Context(), first, next, nil); err != nil && !errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("the same again: %v, want nil or ErrConflict", err)
	}
	holds(t, a, next)
}

func (l Lab) races(t *testing.T) {
	n := l.Races
	if n == 0 {
		n = 20
	}
	a, b, cur := l.start(t)
	won := map[dnsfailover.Site]int{}
	for i := range n {
		next := [2]dnsfailover.Register{value(cur.Epoch+1, "a", "a", dnsfailover.Held), value(cur.Epoch+1, "b", "b", dnsfailover.Held)}
		var errs [2]error
		var wg sync.WaitGroup
		gate := make(chan struct{})
		for j, c := range []dnsfailover.Arbiter{a, b} {
			wg.Go(func() {
				<-gate
				errs[j] = c.CompareAndSwap(t.Context(), cur, next[j], nil)
			})
		}
		close(gate)
		wg.Wait()
		winner := 0
		if errs[1] == nil {
			winner = 1
		}
		if errs[winner] != nil || !errors.Is(errs[1-winner], dnsfailover.ErrConflict) {
			t.Fatalf("race %d: %v and %v; want one nil and one ErrConflict", i, errs[0], errs[1])
		}
		cur = next[winner]
		holds(t, a, cur)
		won[cur.Holder]++
	}
	t.Logf("%d races, one winner each: %v", n, won)
}

func (l Lab) ended(t *testing.T) {
	a, _, first := l.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Read(ctx); !errors.Is(err, dnsfailover.ErrUnreachable) {
		t.Errorf("read with an ended context: %v, want ErrUnreachable", err)
	}
	err := a.CompareAndSwap(ctx, first, value(2, "b", "b", dnsfailover.Held), nil)
	if !errors.Is(err, dnsfailover.ErrUnreachable) && !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("swap with an ended context: %v, want ErrUnreachable or ErrUnknownOutcome", err)
	}
	if errors.Is(err, dnsfailover.ErrUnreachable) {
		holds(t, a, first)
	}
}

func (l Lab) unreachable(t *testing.T) {
	if l.Unreachable == nil {
		t.Fatal("the lab has no unreachable authority")
	}
	c := l.Unreachable(t)
	if _, err := c.Read(t.Context()); !errors.Is(err, dnsfailover.ErrUnreachable) {
		t.Errorf("read: %v, want ErrUnreachable", err)
	}
	err := c.CompareAndSwap(t.Context(), value(1, "a", "a", dnsfailover.Held), value(2, "b", "b", dnsfailover.Held), nil)
	if !errors.Is(err, dnsfailover.ErrUnreachable) && !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("swap: %v, want ErrUnreachable or ErrUnknownOutcome", err)
	}
}

func (l Lab) wrongKey(t *testing.T) {
	if l.WrongKey == nil {
		t.Fatal("the lab has no wrong key")
	}
	a, _, first := l.start(t)
	c := l.WrongKey(t)
	if got, err := c.Read(t.Context()); !errors.Is(err, dnsfailover.ErrBadKey) {
		t.Errorf("read: %s, %v; want ErrBadKey", got, err)
	}
	if err := c.CompareAndSwap(t.Context(), first, value(2, "b", "b", dnsfailover.Held), nil); !errors.Is(err, dnsfailover.ErrBadKey) {
		t.Errorf("swap: %v, want ErrBadKey", err)
	}
	holds(t, a, first)
}

func (l Lab) noRecords(t *testing.T) {
	a, _, first := l.start(t)
	ch := dnsfailover.RRChange{RRKey: l.key("web", "A"), TTL: time.Minute, Old: []string{"192.0.2.1"}, New: []string{"192.0.2.2"}}
	if err := a.CompareAndSwap(t.Context(), first, value(2, "b", "b", dnsfailover.Held), []dnsfailover.RRChange{ch}); !errors.Is(err, dnsfailover.ErrRefused) {
		t.Errorf("records at a register without records: %v, want ErrRefused", err)
	}
	holds(t, a, first)
}

func (l Lab) key(name, typ string) dnsfailover.RRKey {
	return dnsfailover.RRKey{Name: name + "." + l.Zone, Type: typ}
}

// sets are three records of site n, and the changes that replace them with others'.
func (l Lab) sets(n byte) []dnsfailover.RRSet {
	host := "192.0.2." + string('0'+rune(n))
	return []dnsfailover.RRSet{
		{RRKey: l.key("web", "A"), TTL: time.Minute, Values: []string{host}},
		{RRKey: l.key("web", "AAAA"), TTL: time.Minute, Values: []string{"2001:db8::" + string('0'+rune(n))}},
		{RRKey: l.key("mail", "MX"), TTL: 5 * time.Minute, Values: []string{
			"10 mx" + string('0'+rune(n)) + "." + l.Zone, "20 mx9." + l.Zone,
		}},
	}
}

func (l Lab) moves(from, to byte) []dnsfailover.RRChange {
	old, next := l.sets(from), l.sets(to)
	out := make([]dnsfailover.RRChange, len(old))
	for i := range old {
		out[i] = dnsfailover.RRChange{RRKey: old[i].RRKey, TTL: next[i].TTL, Old: old[i].Values, New: next[i].Values}
	}
	return out
}

func (l Lab) put(t *testing.T, sets []dnsfailover.RRSet) {
	t.Helper()
	for _, s := range sets {
		l.Edit(t, s)
	}
}

func (l Lab) published(t *testing.T, a dnsfailover.Arbiter, want []dnsfailover.RRSet) {
	t.Helper()
	keys := make([]dnsfailover.RRKey, len(want))
	for i, w := range want {
		keys[i] = w.RRKey
	}
	got, err := a.Records(t.Context(), keys)
	if err != nil {
		t.Fatalf("records: %v", err)
	}
	for i, w := range want {
		if got[i].RRKey != w.RRKey || !slices.Equal(got[i].Values, w.Values) || len(w.Values) > 0 && got[i].TTL != w.TTL {
			t.Fatalf("published %+v, want %+v", got[i], w)
		}
	}
}

func (l Lab) records(t *testing.T) {
	a, _, _ := l.start(t)
	l.put(t, l.sets(1))
	want := append(l.sets(1), dnsfailover.RRSet{RRKey: l.key("nowhere", "A")})
	l.published(t, a, want)
	two := dnsfailover.RRSet{RRKey: l.key("two", "A"), TTL: time.Minute, Values: []string{"192.0.2.1", "192.0.2.2"}}
	l.Edit(t, two)
	l.published(t, a, []dnsfailover.RRSet{two})
}

func (l Lab) together(t *testing.T) {
	a, b, first := l.start(t)
	l.put(t, l.sets(1))
	next := value(2, "b", "b", dnsfailover.Held)
	if err := b.CompareAndSwap(t.Context(), first, next, l.moves(1, 2)); err != nil {
		t.Fatalf("take with records: %v", err)
	}
	holds(t, a, next)
	l.published(t, a, l.sets(2))
}

func (l Lab) conflictKeeps(t *testing.T) {
	a, b, first := l.start(t)
	l.put(t, l.sets(1))
	object := value(1, "a", "a", dnsfailover.Held)
	if err := a.CompareAndSwap(t.Context(), first, object, nil); err != nil {
		t.Fatal(err)
	}
	err := b.CompareAndSwap(t.Context(), first, value(2, "b", "b", dnsfailover.Held), l.moves(1, 2))
	if !errors.Is(err, dnsfailover.ErrConflict) || errors.Is(err, dnsfailover.ErrForeign) {
		t.Fatalf("take from a stale register: %v, want ErrConflict", err)
	}
	l.published(t, a, l.sets(1))
}

func (l Lab) foreign(t *testing.T) {
	a, b, first := l.start(t)
	l.put(t, l.sets(1))
	strange := dnsfailover.RRSet{RRKey: l.key("web", "A"), TTL: time.Minute, Values: []string{"203.0.113.77"}}
	l.Edit(t, strange)
	err := b.CompareAndSwap(t.Context(), first, value(2, "b", "b", dnsfailover.Held), l.moves(1, 2))
	if !errors.Is(err, dnsfailover.ErrForeign) || errors.Is(err, dnsfailover.ErrConflict) {
		t.Fatalf("take over a foreign record: %v, want ErrForeign", err)
	}
	var named *dnsfailover.ForeignError
	if !errors.As(err, &named) || len(named.Found) != 1 || named.Found[0].RRKey != strange.RRKey {
		t.Errorf("the error does not name the record: %v", err)
	}
	// One value more is foreign too.
	l.Edit(t, dnsfailover.RRSet{RRKey: strange.RRKey, TTL: time.Minute, Values: []string{"192.0.2.1", "203.0.113.77"}})
	if err := b.CompareAndSwap(t.Context(), first, value(2, "b", "b", dnsfailover.Held), l.moves(1, 2)); !errors.Is(err, dnsfailover.ErrForeign) {
		t.Errorf("take over an added value: %v, want ErrForeign", err)
	}
	holds(t, a, first)
	l.published(t, a, l.sets(1)[1:]) // the others have not moved either
}

func (l Lab) absent(t *testing.T) {
	a, _, first := l.start(t)
	fresh := l.key("fresh", "A")
	l.Edit(t, dnsfailover.RRSet{RRKey: fresh})
	ch := dnsfailover.RRChange{RRKey: fresh, TTL: time.Minute, New: []string{"192.0.2.2"}}
	second := value(2, "b", "b", dnsfailover.Held)
	if err := a.CompareAndSwap(t.Context(), first, second, []dnsfailover.RRChange{ch}); err != nil {
		t.Fatalf("add a record that is absent: %v", err)
	}
	if err := a.CompareAndSwap(t.Context(), second, value(3, "b", "b", dnsfailover.Held), []dnsfailover.RRChange{ch}); !errors.Is(err, dnsfailover.ErrForeign) {
		t.Errorf("add a record that is there: %v, want ErrForeign", err)
	}
}
