package statetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"understudy/spamsync"
)

// Subject is a fresh, empty state.
type Subject struct {
	State spamsync.State
	// Advance lets d pass for the state; nil waits on the real clock.
	Advance func(d time.Duration)
}

// Run tests what open returns; it is called once a test.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Subject){
		"unknown tokens are zero": testUnknown,
		"learn":                   testLearn,
		"relearn and forget":      testRelearn,
		"learned once by many":    testConcurrentLearn,
		"greylist":                testGreylist,
		"greylist expires":        testGreylistExpires,
		"counters":                testCounters,
		"counters add up":         testConcurrentAdd,
		"counters expire":         testCountersExpire,
		"cancelled":               testCancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// until waits for ok with the state's own clock, at most for 10 s.
func (s Subject) until(t *testing.T, step time.Duration, ok func() bool) {
	t.Helper()
	if s.Advance != nil {
		s.Advance(step)
		if !ok() {
			t.Fatal("it did not happen")
		}
		return
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not happen")
		}
	}
}

func tokens(t *testing.T, s spamsync.State, hashes ...uint64) ([]spamsync.Pair, spamsync.Pair) {
	t.Helper()
	counts, total, err := s.Tokens(t.Context(), hashes)
	if err != nil {
		t.Fatal(err)
	}
	if len(counts) != len(hashes) {
		t.Fatalf("%d counts of %d tokens", len(counts), len(hashes))
	}
	return counts, total
}

func learn(t *testing.T, s spamsync.State, digest string, class spamsync.Class, want bool, hashes ...uint64) {
	t.Helper()
	changed, err := s.Learn(t.Context(), digest, class, hashes)
	if err != nil || changed != want {
		t.Fatalf("learn %s as %s: %t, %v; want %t", digest, class, changed, err, want)
	}
}

func testUnknown(t *testing.T, s Subject) {
	t.Helper()
	counts, total := tokens(t, s.State, 1, 0, 1<<63)
	for _, c := range counts {
		if c != (spamsync.Pair{}) {
			t.Errorf("unknown token has %+v", c)
		}
	}
	if total != (spamsync.Pair{}) {
		t.Errorf("learned %+v", total)
	}
	if c, _ := tokens(t, s.State); len(c) != 0 {
		t.Errorf("no tokens give %v", c)
	}
}

func testLearn(t *testing.T, s Subject) {
	t.Helper()
	learn(t, s.State, "m1", spamsync.Spam, true, 1, 2, 1<<63+5)
	learn(t, s.State, "m2", spamsync.Ham, true, 2, 3)
	learn(t, s.State, "m3", spamsync.Spam, true, 2)
	counts, total := tokens(t, s.State, 1<<63+5, 3, 2, 1, 9)
	want := []spamsync.Pair{{Spam: 1}, {Ham: 1}, {Spam: 2, Ham: 1}, {Spam: 1}, {}}
	for i := range want {
		if counts[i] != want[i] {
			t.Errorf("token %d: %+v, want %+v", i, counts[i], want[i])
		}
	}
	if total != (spamsync.Pair{Spam: 2, Ham: 1}) {
		t.Errorf("learned %+v", total)
	}
}

func testRelearn(t *testing.T, s Subject) {
	t.Helper()
	learn(t, s.State, "m", spamsync.Unlearned, false, 1, 2)
	learn(t, s.State, "m", spamsync.Spam, true, 1, 2)
	learn(t, s.State, "m", spamsync.Spam, false, 1, 2)
	learn(t, s.State, "m", spamsync.Ham, true, 1, 2)
	counts, total := tokens(t, s.State, 1, 2)
	if want := (spamsync.Pair{Ham: 1}); counts[0] != want || counts[1] != want || total != want {
		t.Errorf("moved: %v, %v", counts, total)
	}
	learn(t, s.State, "m", spamsync.Unlearned, true, 1, 2)
	counts, total = tokens(t, s.State, 1, 2)
	if zero := (spamsync.Pair{}); counts[0] != zero || counts[1] != zero || total != zero {
		t.Errorf("forgotten: %v, %v", counts, total)
	}
	learn(t, s.State, "m", spamsync.Ham, true, 1, 2)
}

func testConcurrentLearn(t *testing.T, s Subject) {
	t.Helper()
	const workers = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	changes := 0
	for range workers {
		wg.Go(func() {
			changed, err := s.State.Learn(t.Context(), "same", spamsync.Spam, []uint64{7})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if changed {
				changes++
			}
		})
	}
	wg.Wait()
	counts, total := tokens(t, s.State, 7)
	if changes != 1 || counts[0].Spam != 1 || total.Spam != 1 {
		t.Errorf("%d of %d taught it; counts %+v, %+v", changes, workers, counts, total)
	}
}

func testGreylist(t *testing.T, s Subject) {
	t.Helper()
	ctx := t.Context()
	at := time.Now().Truncate(time.Millisecond).UTC()
	first, err := s.State.First(ctx, "k")
	if err != nil || !first.IsZero() {
		t.Fatalf("unknown key: %v, %v", first, err)
	}
	for _, tc := range []struct{ at, want time.Time }{
		{at, at},
		{at.Add(time.Minute), at}, // the first sight stays
		{at.Add(-time.Minute), at.Add(-time.Minute)}, // an earlier one corrects it
		{at, at.Add(-time.Minute)},
	} {
		got, err := s.State.Touch(ctx, "k", tc.at, time.Hour)
		if err != nil || !got.Equal(tc.want) {
			t.Fatalf("touch at %v: %v, %v; want %v", tc.at, got, err, tc.want)
		}
		if got, err = s.State.First(ctx, "k"); err != nil || !got.Equal(tc.want) {
			t.Fatalf("first after touch at %v: %v, %v; want %v", tc.at, got, err, tc.want)
		}
	}
	if first, _ := s.State.First(ctx, "other"); !first.IsZero() {
		t.Errorf("another key: %v", first)
	}
}

func testGreylistExpires(t *testing.T, s Subject) {
	t.Helper()
	ctx := t.Context()
	now := time.Now()
	if _, err := s.State.Touch(ctx, "k", now, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	// An earlier record does not make it live longer.
	if _, err := s.State.Touch(ctx, "k", now.Add(-time.Second), time.Hour); err != nil {
		t.Fatal(err)
	}
	s.until(t, time.Second, func() bool {
		first, err := s.State.First(ctx, "k")
		return err == nil && first.IsZero()
	})
	later := now.Add(time.Hour).Truncate(time.Millisecond)
	if got, err := s.State.Touch(ctx, "k", later, time.Hour); err != nil || !got.Equal(later) {
		t.Errorf("a new life: %v, %v", got, err)
	}
}

func testCounters(t *testing.T, s Subject) {
	t.Helper()
	ctx := t.Context()
	if err := s.State.Add(ctx, nil); err != nil {
		t.Fatal(err)
	}
	err := s.State.Add(ctx, []spamsync.Counter{
		{Key: "a", Field: "x", Delta: 2, TTL: time.Hour},
		{Key: "a", Field: "y", Delta: -1, TTL: time.Hour},
		{Key: "b", Field: "x", Delta: 5, TTL: time.Hour},
		{Key: "a", Field: "x", Delta: 1, TTL: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.State.Counters(ctx, []string{"b", "none", "a"})
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	if got[0]["x"] != 5 || len(got[1]) != 0 || got[2]["x"] != 3 || got[2]["y"] != -1 || len(got[2]) != 2 {
		t.Errorf("counters: %v", got)
	}
}

func testConcurrentAdd(t *testing.T, s Subject) {
	t.Helper()
	var wg sync.WaitGroup
	const workers, rounds = 4, 25
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				err := s.State.Add(t.Context(), []spamsync.Counter{
					{Key: "sum", Field: "n", Delta: 1, TTL: time.Hour},
					{Key: fmt.Sprint("own", w), Field: "n", Delta: 2, TTL: time.Hour},
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := s.State.Counters(t.Context(), []string{"sum", "own0"})
	if err != nil || got[0]["n"] != workers*rounds || got[1]["n"] != 2*rounds {
		t.Errorf("%v, %v", got, err)
	}
}

func testCountersExpire(t *testing.T, s Subject) {
	t.Helper()
	ctx := t.Context()
	if err := s.State.Add(ctx, []spamsync.Counter{{Key: "a", Field: "x", Delta: 2, TTL: 50 * time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	s.until(t, time.Second, func() bool {
		got, err := s.State.Counters(ctx, []string{"a"})
		return err == nil && len(got[0]) == 0
	})
	if err := s.State.Add(ctx, []spamsync.Counter{{Key: "a", Field: "x", Delta: 1, TTL: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.State.Counters(ctx, []string{"a"}); err != nil || got[0]["x"] != 1 {
		t.Errorf("a new life: %v, %v", got, err)
	}
}

func testCancelled(t *testing.T, s Subject) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.State.Learn(ctx, "m", spamsync.Spam, []uint64{1}); err == nil {
		t.Error("learned in a cancelled context")
	}
	if _, _, err := s.State.Tokens(ctx, []uint64{1}); err == nil {
		t.Error("read in a cancelled context")
	}
	if counts, _ := tokens(t, s.State, 1); counts[0] != (spamsync.Pair{}) {
		t.Errorf("a cancelled learn counted: %v", counts)
	}
}
