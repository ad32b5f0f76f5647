package dnsfailover_test

import (
	"slices"
	"testing"
	"time"

	"understudy/dnsfailover"
	"understudy/dnsfailover/sim"
)

// A schedule is one history written by hand, at the edge of what the protocol
// allows. run returns the world at its end.
type schedule struct {
	name  string
	run   func(opts sim.Options) *sim.World
	stays bool // the role does not move at all
}

// slowFast are the clocks that stretch a permit and shorten a wait the most.
var slowFast = [2]float64{0.98, 1.02}

func isSwap(a dnsfailover.Action, kind dnsfailover.SwapKind) bool {
	s, ok := a.(dnsfailover.Swap)
	return ok && s.Kind == kind
}

// lastRead: the active site's last read is served a moment before the claim takes
// place; after that it reaches nobody. readBack is how long its answer takes,
// claimThere and claimBack how long the claim and its answer do.
func lastRead(readBack, claimThere, claimBack time.Duration) func(sim.Options) *sim.World {
	return func(opts sim.Options) *sim.World {
		opts.Rates = slowFast
		claimed, read := false, false
		opts.Fate = func(w *sim.World, site int, what dnsfailover.Action) (sim.Fate, bool) {
			_, isRead := what.(dnsfailover.Read)
			switch {
			case site == 1 && isSwap(what, dnsfailover.Claim) && !claimed:
				claimed = true
				return sim.Fate{There: claimThere, Back: claimBack}, true
			case site == 0 && claimed && !read && isRead:
				read = true
				return sim.Fate{There: time.Nanosecond, Back: readBack}, true
			case site == 0 && read:
				return sim.Fate{Lost: true}, true
			}
			return sim.Fate{There: time.Microsecond, Back: time.Microsecond}, true
		}
		// Vary the phase until the claim leaves just before the last read.
		var worst *sim.World
		for phase := range 50 {
			claimed, read = false, false
			w := sim.New(opts)
			w.RunFor(time.Minute + time.Duration(phase)*100*time.Millisecond)
			w.CutLink(true)
			w.RunUntil(w.Now()+2*time.Minute, func() bool { return claimed && w.Register().State == dnsfailover.Claimed })
			if !read { // the last read was before the claim left: none after
				read = true
			}
			w.RunFor(2 * time.Minute)
			if worst == nil || w.TwoActive() > worst.TwoActive() {
				worst = w
			}
		}
		return worst
	}
}

// isolated: the active site is cut off from everything.
func isolated(opts sim.Options) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.CutRegister(0, true)
	w.RunFor(2 * time.Minute)
	return w
}

// linkReturns: the link returns for a moment while a claim is open, and the
// active site, which cannot read the register, asks for a promise.
func linkReturns(opts sim.Options) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.RunUntil(w.Now()+time.Minute, func() bool { return w.Register().State == dnsfailover.Claimed })
	w.CutRegister(0, true)
	w.RunFor(12 * time.Second)
	w.CutLink(false)
	w.RunFor(6 * time.Second)
	w.CutLink(true)
	w.RunFor(time.Minute)
	return w
}

// lateTake: the claimant dies right after it has sent the take, which arrives
// when its next life has promised not to claim.
func lateTake(opts sim.Options) *sim.World {
	taken := false
	opts.Fate = func(_ *sim.World, site int, what dnsfailover.Action) (sim.Fate, bool) {
		if site == 1 && isSwap(what, dnsfailover.Take) && !taken {
			taken = true
			return sim.Fate{There: 12 * time.Second, Mute: true}, true
		}
		return sim.Fate{There: time.Millisecond, Back: time.Millisecond}, true
	}
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.CutRegister(0, true) // after its last read it is fenced, and holds the role still
	w.RunUntil(w.Now()+2*time.Minute, func() bool { return taken })
	w.Kill(1)
	w.CutRegister(1, true)
	w.RunFor(time.Second)
	w.Start(1)
	w.CutLink(false)
	w.RunFor(8 * time.Second) // A asks B for a promise; neither reads the register
	w.CutRegister(1, false)
	w.RunFor(time.Minute)
	return w
}

// claimantReturns: the claimant dies with its claim open and returns as the wait
// would have ended, while the active site has a permit from a promise that the
// new life gave before.
func claimantReturns(opts sim.Options) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.RunUntil(w.Now()+time.Minute, func() bool { return w.Register().State == dnsfailover.Claimed })
	w.CutRegister(0, true)
	w.Kill(1)
	w.RunFor(2 * time.Second)
	w.Start(1) // reads its claim at once; a permit read before the claim is in force
	w.RunFor(time.Minute)
	return w
}

// lateHandOver: the answer to a hand-over is lost, and it takes place only after
// the site has read that it still holds the role. dies: it has restarted by then.
func lateHandOver(dies bool) func(sim.Options) *sim.World {
	return func(opts sim.Options) *sim.World {
		sent := 0
		opts.Fate = func(_ *sim.World, site int, what dnsfailover.Action) (sim.Fate, bool) {
			if site == 0 && isSwap(what, dnsfailover.HandOver) {
				sent++
				if sent == 1 {
					return sim.Fate{There: 6 * time.Second, Mute: true}, true
				}
				return sim.Fate{Lost: true}, true
			}
			return sim.Fate{There: time.Millisecond, Back: time.Millisecond}, true
		}
		w := sim.New(opts)
		w.RunFor(time.Minute)
		w.Order(0, dnsfailover.Operator{Command: dnsfailover.SwitchOver, To: "b"})
		w.RunUntil(w.Now()+time.Minute, func() bool { return sent > 0 })
		if dies {
			w.Kill(0)
			w.RunFor(time.Second)
			w.Start(0)
		}
		w.RunFor(time.Minute)
		return w
	}
}

// clockBack: the active site is cut off and its wall clock steps back.
func clockBack(opts sim.Options) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.CutRegister(0, true)
	w.StepClock(0, -time.Hour)
	w.RunFor(2 * time.Minute)
	return w
}

// forged: the active site is cut off and an attacker answers its reads.
func forged(opts sim.Options) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.CutRegister(0, true)
	w.Forge(0, true)
	w.RunFor(2 * time.Minute)
	return w
}

// suspended: the active site is stopped past its permit, and continues.
func suspended(opts sim.Options) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.Stop(0)
	w.RunFor(90 * time.Second)
	w.Continue(0)
	w.RunFor(time.Minute)
	return w
}

var schedules = []schedule{
	{name: "last read just before the claim", run: lastRead(time.Microsecond, 2900*time.Millisecond, time.Microsecond)},
	{name: "last read answered late", run: lastRead(2900*time.Millisecond, 2900*time.Millisecond, time.Microsecond)},
	{name: "isolated", run: isolated},
	{name: "link returns", run: linkReturns},
	{name: "late take", run: lateTake},
	{name: "claimant returns", run: claimantReturns},
	{name: "late hand-over", run: lateHandOver(false)},
	{name: "late hand-over after a restart", run: lateHandOver(true), stays: true},
	{name: "clock steps back", run: clockBack},
	{name: "forged answers", run: forged},
	{name: "suspended", run: suspended},
}

// least is the timing with the shortest wait that is allowed.
func least() dnsfailover.Timing {
	t := dnsfailover.DefaultTiming()
	t.Wait = t.LeastWait()
	return t
}

func directed(timing dnsfailover.Timing) sim.Options {
	return sim.Options{Seed: 1, Timing: timing, Drift: 0.02}
}

func TestSchedules(t *testing.T) {
	for _, s := range schedules {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				opts := directed(least())
				opts.Seed = seed
				w := s.run(opts)
				if d := w.TwoActive(); d > 0 {
					t.Fatalf("seed %d: two sites were active for %s", seed, d)
				}
				if len(w.Moves()) == 0 != s.stays {
					t.Fatalf("seed %d: moves %v: the schedule shows nothing", seed, w.Moves())
				}
			}
		})
	}
}

// TestMutants: every mistake against the protocol is found by a schedule.
func TestMutants(t *testing.T) {
	with := func(f dnsfailover.Faults) func(*sim.Options) {
		return func(o *sim.Options) { o.New = faulty(f) }
	}
	for _, m := range []struct {
		name string
		make func(*sim.Options)
		by   string // the schedule that must find it
	}{
		{"no wait", with(dnsfailover.NoWait), "isolated"},
		{"wait under the bound", func(o *sim.Options) { o.Timing.Wait = o.Timing.Permit }, "last read just before the claim"},
		{"permit while a claim is open", with(dnsfailover.PermitDuringClaim), "cut between the sites"},
		{"permit counted from the reply", with(dnsfailover.PermitFromReply), "last read answered late"},
		{"wait counted from sending", with(dnsfailover.WaitFromSending), "last read just before the claim"},
		{"promise while a claim is open", with(dnsfailover.PromiseDuringClaim), "link returns"},
		{"promise before the first read", with(dnsfailover.PromiseBeforeRead), "late take"},
		{"wait not begun anew after a restart", with(dnsfailover.ResumeWait), "claimant returns"},
		{"wall clock", func(o *sim.Options) { o.WallClock = true }, "clock steps back"},
		{"unsigned reply accepted", func(o *sim.Options) { o.BelieveUnsigned = true }, "forged answers"},
		{"lost answer taken for a refusal", with(dnsfailover.PermitDuringHandOver), "late hand-over"},
		{"first permit by a read", with(dnsfailover.PermitWithoutRenewal), "late hand-over after a restart"},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			all := append(slices.Clone(schedules), schedule{name: "cut between the sites", run: func(o sim.Options) *sim.World {
				return cut(o, 5*time.Minute)
			}})
			i := slices.IndexFunc(all, func(s schedule) bool { return s.name == m.by })
			opts := directed(least())
			m.make(&opts)
			var worst time.Duration
			for seed := range uint64(20) {
				opts.Seed = seed
				worst = max(worst, all[i].run(opts).TwoActive())
			}
			if worst == 0 {
				t.Errorf("the schedule %q does not find it", m.by)
			}
			t.Logf("found by %q: two sites active for up to %s", m.by, worst.Round(time.Millisecond))
		})
	}
}

// cut cuts the two sites from each other for d; both reach the register.
func cut(opts sim.Options, d time.Duration) *sim.World {
	w := sim.New(opts)
	w.RunFor(time.Minute)
	w.CutLink(true)
	w.RunFor(d)
	return w
}

// TestNoMove: what must not move the role does not, and costs no service.
func TestNoMove(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(w *sim.World)
	}{
		{"cut between the sites for an hour", func(w *sim.World) { w.CutLink(true); w.RunFor(time.Hour) }},
		{"register outage for an hour", func(w *sim.World) { w.DownRegister(true); w.RunFor(time.Hour) }},
		{"active site loses the register", func(w *sim.World) { w.CutRegister(0, true); w.RunFor(time.Hour) }},
		{"standby loses the register", func(w *sim.World) { w.CutRegister(1, true); w.RunFor(time.Hour) }},
		{"standby dies", func(w *sim.World) { w.Kill(1); w.RunFor(time.Hour) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				w := sim.New(sim.Options{Seed: seed, Drift: 0.01, Loss: 0.02, MaxDelay: 300 * time.Millisecond})
				w.RunFor(time.Minute)
				before := w.NoActive()
				tc.run(w)
				if m := w.Moves(); len(m) > 0 {
					t.Fatalf("seed %d: moved: %+v", seed, m)
				}
				if lost := w.NoActive() - before; lost > 0 {
					t.Fatalf("seed %d: nobody was active for %s", seed, lost)
				}
			}
		})
	}
	t.Run("an active site that does not object loses the role", func(t *testing.T) {
		opts := directed(least())
		opts.New = faulty(dnsfailover.NoObjection)
		if w := cut(opts, 5*time.Minute); len(w.Moves()) == 0 {
			t.Error("the mutant is not found")
		}
	})
	t.Run("an active site that restarts keeps the role", func(t *testing.T) {
		for seed := range uint64(50) {
			w := sim.New(sim.Options{Seed: seed, Drift: 0.01, Loss: 0.02, MaxDelay: 300 * time.Millisecond})
			w.RunFor(time.Minute)
			w.Kill(0)
			w.RunFor(20 * time.Second)
			w.Start(0)
			w.RunFor(5 * time.Minute)
			if m := w.Moves(); len(m) > 0 {
				t.Fatalf("seed %d: moved: %+v", seed, m)
			}
			if v := w.View(0); v.Role != dnsfailover.Active {
				t.Fatalf("seed %d: %+v", seed, v)
			}
		}
	})
}

// quantiles of the time from an accident to the change of the register.
func quantiles(t *testing.T, runs int, timing dnsfailover.Timing, accident func(w *sim.World)) (p50, p99 time.Duration) {
	t.Helper()
	var took []time.Duration
	for seed := range uint64(runs) {
		w := sim.New(sim.Options{Seed: seed, Timing: timing, Drift: 0.01, Loss: 0.02, MaxDelay: 300 * time.Millisecond})
		w.RunFor(time.Minute)
		began := w.Now()
		accident(w)
		w.RunUntil(began+10*time.Minute, func() bool { return len(w.Moves()) > 0 })
		if len(w.Moves()) == 0 || w.TwoActive() > 0 {
			t.Fatalf("seed %d: moves %v, two active %s", seed, w.Moves(), w.TwoActive())
		}
		took = append(took, w.Moves()[0].At-began)
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

func fast() dnsfailover.Timing {
	t := dnsfailover.DefaultTiming()
	t.Probe, t.Poll, t.Permit, t.Wait, t.StopAllowance = 3*time.Second, 3*time.Second, 12*time.Second, 14*time.Second, time.Second
	return t
}

func TestTimes(t *testing.T) {
	if err := fast().Validate(); err != nil {
		t.Fatal(err)
	}
	kill := func(w *sim.World) { w.Kill(0) }
	for _, tc := range []struct {
		name     string
		timing   dnsfailover.Timing
		accident func(w *sim.World)
		p50, p99 time.Duration
	}{
		{"active site dies", dnsfailover.DefaultTiming(), kill, 40 * time.Second, 65 * time.Second},
		{"active site dies, fast", fast(), kill, 23 * time.Second, 40 * time.Second},
		{"active site is cut off", dnsfailover.DefaultTiming(), func(w *sim.World) { w.CutLink(true); w.CutRegister(0, true) }, 40 * time.Second, 65 * time.Second},
		{"active site is sick", dnsfailover.DefaultTiming(), func(w *sim.World) { w.Sicken(0, true) }, 8 * time.Second, 13 * time.Second},
		{"switchover", dnsfailover.DefaultTiming(), func(w *sim.World) {
			if refused := w.Order(0, dnsfailover.Operator{Command: dnsfailover.SwitchOver, To: "b"}); refused != "" {
				t.Error(refused)
			}
		}, 3 * time.Second, 8 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p50, p99 := quantiles(t, 500, tc.timing, tc.accident)
			t.Logf("p50 %s, p99 %s", p50.Round(100*time.Millisecond), p99.Round(100*time.Millisecond))
			if p50 > tc.p50 || p99 > tc.p99 {
				t.Errorf("p50 %s, p99 %s; want at most %s and %s", p50, p99, tc.p50, tc.p99)
			}
		})
	}
}
