package dnsfailover_test

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/dnsfailover"
	"understudy/dnsfailover/sim"
)

// chaosTiming lets the role move often; what safety depends on is the default.
func chaosTiming() dnsfailover.Timing {
	t := dnsfailover.DefaultTiming()
	t.BetweenMoves, t.Good, t.Backoff = 0, 2, 5*time.Second
	return t
}

func chaos(seed uint64) sim.Options {
	return sim.Options{Seed: seed, Timing: chaosTiming(), Drift: 0.02, Loss: 0.1, MaxDelay: 4 * time.Second}
}

// faulty makes machines with a planted mistake.
func faulty(f dnsfailover.Faults) func(dnsfailover.MachineConfig, dnsfailover.Instant) *dnsfailover.Machine {
	return func(cfg dnsfailover.MachineConfig, now dnsfailover.Instant) *dnsfailover.Machine {
		m := dnsfailover.NewMachine(cfg, now)
		m.Plant(f)
		return m
	}
}

// TestHistories: in no history are two sites active. LAB_HISTORIES sets how many.
func TestHistories(t *testing.T) {
	n := 2000
	if s := os.Getenv("LAB_HISTORIES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		n = 200
	}
	var moves, bad, none atomic.Int64
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				seed := next.Add(1)
				if seed > uint64(n) {
					return
				}
				w := sim.New(chaos(seed))
				w.Chaos(15*time.Minute, 30)
				moves.Add(int64(len(w.Moves())))
				none.Add(int64(w.NoActive()))
				if d := w.TwoActive(); d > 0 {
					bad.Add(1)
					t.Errorf("seed %d: two sites were active for %s", seed, d)
				}
			}
		})
	}
	wg.Wait()
	if moves.Load() < int64(n)/10 {
		t.Errorf("the role has moved %d times only: the histories are too quiet", moves.Load())
	}
	t.Logf("%d histories of 15 min, %d moves, %d with two sites active, nobody active %s a history",
		n, moves.Load(), bad.Load(), (time.Duration(none.Load()) / time.Duration(n)).Round(time.Second))
}
