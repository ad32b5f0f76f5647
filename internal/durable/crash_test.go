package durable_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"understudy/internal/durable"
	"understudy/internal/durable/simfs"
)

// history is what a run was told by the log.
type history struct {
	acked   map[durable.Pos][]byte // answered nil
	tried   map[string]bool        // everything ever given to the log
	refused map[string]bool        // answered with an error, and a later append was answered nil
	failing []string               // answered with an error since the last nil
	removed map[uint64]bool        // Remove was called
}

func simConfig(fsys durable.FS) durable.LogConfig {
	return durable.LogConfig{
		Dir: "/log", FS: fsys, Name: "sim", NoSpare: true,
		SegmentBytes: 64 << 10, MaxRecordBytes: 20 << 10, LazyDelay: time.Hour,
	}
}

// record makes payloads that can be told apart. Some look like what the log writes.
func payloadOf(rng *rand.Rand, i int) []byte {
	p := fmt.Appendf(nil, "record %06d ", i)
	n := rng.IntN(300)
	if rng.IntN(4) == 0 {
		n = rng.IntN(18 << 10)
	}
	for range n {
		p = append(p, byte(rng.Uint32()))
	}
	return p
}

// runHistory appends, seals and removes until done or the power is cut. It is the
// same sequence of operations for the same seed.
func runHistory(t *testing.T, fsys *simfs.FS, seed uint64, steps int) *history {
	t.Helper()
	h := &history{
		acked: map[durable.Pos][]byte{}, tried: map[string]bool{},
		refused: map[string]bool{}, removed: map[uint64]bool{},
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	log, err := durable.OpenLog(simConfig(fsys))
	if err != nil {
		return h
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	for i := range steps {
		for range rng.IntN(4) {
			p := payloadOf(rng, i)
			h.tried[string(p)] = true
			log.AppendLazy('L', p)
		}
		p := payloadOf(rng, i)
		h.tried[string(p)] = true
		cut := rng.IntN(len(p))
		pos, err := log.Append(ctx, 'M', p[:cut], p[cut:])
		if err != nil {
			h.failing = append(h.failing, string(p))
		} else {
			if old, twice := h.acked[pos]; twice {
				t.Errorf("position %v given twice: %.20q %.20q", pos, old, p)
			}
			h.acked[pos] = p
			for _, f := range h.failing {
				h.refused[f] = true
			}
			h.failing = nil
		}
		switch rng.IntN(12) {
		case 0:
			_ = log.Seal(ctx)
		case 1:
			if s := log.Segments(); len(s) > 2 {
				h.removed[s[0].ID] = true
				_ = log.Remove(s[0].ID)
			}
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil && !fsys.Crashed() {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end")
	}
	_ = log.Close()
	return h
}

type replayed struct {
	records []string
	report  durable.Report
}

func replaySim(t *testing.T, fsys durable.FS, from durable.Pos) (*durable.Log, replayed) {
	t.Helper()
	log, err := durable.OpenLog(simConfig(fsys))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	var r replayed
	last := durable.Pos{}
	r.report, err = log.Replay(from, func(rec durable.Record) error {
		if rec.Pos.Compare(last) <= 0 {
			t.Errorf("%v after %v", rec.Pos, last)
		}
		last = rec.Pos
		r.records = append(r.records, fmt.Sprintf("%v %c %s", rec.Pos, rec.Kind, rec.Payload))
		return nil
	})
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	return log, r
}

// check holds the promises of the log against what a restart finds.
func (h *history) check(t *testing.T, fsys *simfs.FS) {
	t.Helper()
	log, first := replaySim(t, fsys, durable.Pos{})
	found := map[string]bool{}
	for _, r := range first.records {
		found[r] = true
		payload := r[bytes.IndexByte([]byte(r), '}')+4:]
		if !h.tried[payload] {
			t.Errorf("a record nobody wrote: %.60q", r)
		}
		if h.refused[payload] {
			t.Errorf("resurrected after it was refused: %.60q", r)
		}
	}
	for pos, p := range h.acked {
		if !h.removed[pos.Segment] && !found[fmt.Sprintf("%v %c %s", pos, 'M', p)] {
			t.Errorf("lost %v %.20q", pos, p)
		}
	}
	if len(first.report.Quarantined) > 0 {
		t.Errorf("a crash is not rot: %+v", first.report.Quarantined)
	}
	_ = log.Close()

	log, second := replaySim(t, fsys, durable.Pos{})
	if fmt.Sprint(second) != fmt.Sprint(first) {
		t.Errorf("second replay differs: %+v, then %+v", first.report, second.report)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	pos, err := log.Append(ctx, 'M', []byte("one more"))
	if err != nil {
		t.Errorf("append after restart: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = log.Close()

	log, third := replaySim(t, fsys, durable.Pos{})
	_ = log.Close()
	want := append(first.records, fmt.Sprintf("%v M one more", pos))
	if fmt.Sprint(third.records) != fmt.Sprint(want) || len(third.report.Quarantined) > 0 || third.report.TornBytes < 0 {
		t.Errorf("after one more: %d records, want %d, %+v", len(third.records), len(want), third.report)
	}
	log, tail := replaySim(t, fsys, first.report.End)
	_ = log.Close()
	if len(tail.records) != 1 {
		t.Errorf("from the checkpoint %v: %d records, want 1", first.report.End, len(tail.records))
	}
}

// TestCrashAtEveryOperation cuts the power in every operation of random histories,
// and looks at several of the states a disk may be in afterwards.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	histories, outcomes := uint64(3), uint64(4)
	if testing.Short() {
		histories, outcomes = 1, 2
	}
	states := 0
	for seed := range histories {
		whole := simfs.New()
		h := runHistory(t, whole, seed, 40)
		if len(h.acked) != 40 {
			t.Fatalf("seed %d: %d appended", seed, len(h.acked))
		}
		h.check(t, whole.Restart(seed))
		for n := 1; n <= whole.Ops(); n++ {
			cut := simfs.New()
			cut.CrashAt(n)
			h := runHistory(t, cut, seed, 40)
			for o := range outcomes {
				h.check(t, cut.Restart(seed*1000+o))
				states++
				if t.Failed() {
					t.Fatalf("seed %d, operation %d, outcome %d", seed, n, o)
				}
			}
		}
	}
	t.Logf("%d states after a power cut", states)
}

// TestFaultAtEveryOperation makes every operation fail once, in each way, and cuts
// the power at the end.
func TestFaultAtEveryOperation(t *testing.T) {
	t.Parallel()
	faults := []simfs.Fault{
		{Err: simfs.ErrIO},
		{Err: simfs.ErrIO, Partly: true},
		{Err: durable.ErrNoSpace},
		{Err: durable.ErrNoSpace, Partly: true},
	}
	whole := simfs.New()
	runHistory(t, whole, 3, 25)
	for n := 1; n <= whole.Ops(); n++ {
		for i, fault := range faults {
			fsys := simfs.New()
			fsys.FailAt(n, fault)
			h := runHistory(t, fsys, 3, 25)
			if n > 1 && len(h.acked) < 24 {
				t.Errorf("one fault failed %d appends", 25-len(h.acked))
			}
			h.check(t, fsys.Clone())
			h.check(t, fsys.Restart(uint64(n)))
			if t.Failed() {
				t.Fatalf("operation %d, fault %d", n, i)
			}
		}
	}
}

// TestFaultThenCrash combines both: a failed operation, and a cut shortly after.
func TestFaultThenCrash(t *testing.T) {
	t.Parallel()
	whole := simfs.New()
	runHistory(t, whole, 5, 15)
	for n := 1; n <= whole.Ops(); n++ {
		for later := 1; later <= 8; later++ {
			fsys := simfs.New()
			fsys.FailAt(n, simfs.Fault{Err: simfs.ErrIO, Partly: n%2 == 0})
			fsys.CrashAt(n + later)
			h := runHistory(t, fsys, 5, 15)
			h.check(t, fsys.Restart(uint64(n+later)))
			if t.Failed() {
				t.Fatalf("fault %d, crash %d", n, n+later)
			}
		}
	}
}

// TestDiskFull fills a disk: what was answered stays, and appends work again when
// there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	fsys := simfs.New()
	fsys.SetCapacity(300 << 10)
	log, _ := replaySim(t, fsys, durable.Pos{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	acked := 0
	var err error
	for err == nil {
		if _, err = log.Append(ctx, 'M', make([]byte, 10<<10)); err == nil {
			acked++
		}
	}
	if !errors.Is(err, durable.ErrNoSpace) || acked < 15 {
		t.Fatalf("after %d: %v", acked, err)
	}
	first := log.Segments()[0]
	if err := log.Remove(first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(ctx, 'M', make([]byte, 10<<10)); err != nil {
		t.Fatalf("after making room: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	_ = log.Close()
}
