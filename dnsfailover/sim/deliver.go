package sim

import (
	"time"

	"understudy/dnsfailover"
)

// tell gives a machine an event and carries out what it wants.
func (w *World) tell(s *site, ev dnsfailover.Event) []dnsfailover.Action {
	permit := s.machine.PermitEnd()
	actions := s.machine.Step(w.local(s), ev)
	for _, a := range actions {
		if _, ok := a.(dnsfailover.StopWork); ok {
			s.draining = permit
		}
		w.do(s, a)
	}
	s.tick++
	tick := s.tick
	w.at(s, w.real(s, s.machine.Next().Sub(w.local(s))), func() {
		if s.tick == tick {
			w.tell(s, dnsfailover.Tick{})
		}
	})
	return actions
}

func (w *World) do(s *site, a dnsfailover.Action) {
	switch a := a.(type) {
	case dnsfailover.Read:
		w.ask(s, a, func(d dnsfailover.ReadDone) {
			w.tell(s, d)
		}, nil)
	case dnsfailover.Swap:
		w.ask(s, a, nil, func(d dnsfailover.SwapDone) { w.tell(s, d) })
	case dnsfailover.AskPromise:
		w.promise(s, a)
	case dnsfailover.StopWork:
		w.at(s, time.Duration(w.rng.Int64N(int64(w.opts.Timing.StopAllowance)+1)), func() {
			s.draining = 0
			w.tell(s, dnsfailover.Stopped(a))
		})
	case dnsfailover.NudgePeer:
		w.toPeer(s, func(p *site) { w.tell(p, dnsfailover.Nudge{}) })
	case dnsfailover.SaveForced:
		w.at(s, 10*time.Millisecond, func() {
			s.forced = a.Epoch
			w.tell(s, dnsfailover.ForcedSaved(a))
		})
	case dnsfailover.Note:
		w.trace("%c: %s %s", 'a'+rune(s.index), a.Kind, a.Text)
	}
}

// fate decides what becomes of one request to the register.
func (w *World) fate(s *site, what dnsfailover.Action) Fate {
	if w.opts.Fate != nil {
		if f, ok := w.opts.Fate(w, s.index, what); ok {
			return f
		}
	}
	return Fate{There: w.way(), Back: w.way(), Lost: w.rng.Float64() < w.opts.Loss, Mute: w.rng.Float64() < w.opts.Loss}
}

func (w *World) way() time.Duration {
	if w.opts.MaxDelay == 0 {
		return time.Millisecond
	}
	// Mostly short, sometimes long.
	x := w.rng.Float64()
	return time.Duration(x * x * x * float64(w.opts.MaxDelay))
}

// ask sends a request to the register. What has left arrives whatever becomes of
// its sender.
func (w *World) ask(s *site, what dnsfailover.Action, read func(dnsfailover.ReadDone), swapped func(dnsfailover.SwapDone)) {
	sent := w.local(s)
	w.serial++
	id := w.serial
	s.request = id
	swap, _ := what.(dnsfailover.Swap)
	finish := func(o dnsfailover.Outcome, reg dnsfailover.Register) {
		if s.request != id {
			return
		}
		s.request = 0
		if read != nil {
			read(dnsfailover.ReadDone{Sent: sent, Register: reg, Outcome: o, Reason: "no answer"})
			return
		}
		swapped(dnsfailover.SwapDone{Sent: sent, Swap: swap, Outcome: o, Reason: "no answer"})
	}
	timeout := w.real(s, w.opts.Timing.Request)
	w.at(s, timeout, func() { finish(dnsfailover.Unknown, dnsfailover.Register{}) })
	f := w.fate(s, what)
	life := s.life
	if w.forged[s.index] && w.opts.BelieveUnsigned {
		me := [2]dnsfailover.Site{"a", "b"}[s.index]
		lie := dnsfailover.Register{Epoch: 1, Holder: me, State: dnsfailover.Held, By: me, Nonce: w.nonce(), Config: "0badcafe"}
		w.at(s, time.Millisecond, func() { finish(dnsfailover.OK, lie) })
	}
	if f.Lost || w.regCut[s.index] {
		return
	}
	w.after(f.There, func() {
		if w.regDown || w.regCut[s.index] {
			return
		}
		outcome, reg := w.serve(s, what)
		if f.Mute {
			return
		}
		w.after(f.Back, func() {
			if w.regCut[s.index] {
				return
			}
			w.deliver(s, life, func() { finish(outcome, reg) })
		})
	})
}

// serve is the register.
func (w *World) serve(s *site, what dnsfailover.Action) (dnsfailover.Outcome, dnsfailover.Register) {
	swap, ok := what.(dnsfailover.Swap)
	if !ok {
		if w.register.IsZero() {
			return dnsfailover.Absent, dnsfailover.Register{}
		}
		return dnsfailover.OK, w.register
	}
	if swap.Old != w.register {
		return dnsfailover.Conflict, dnsfailover.Register{}
	}
	if swap.New.Holder != w.register.Holder {
		w.moves = append(w.moves, Move{At: w.now, To: swap.New.Holder, Epoch: swap.New.Epoch, Reason: string(swap.Kind)})
	}
	w.register = swap.New
	w.trace("%c: register %s: %s", 'a'+rune(s.index), swap.Kind, swap.New)
	return dnsfailover.OK, dnsfailover.Register{}
}

// linked says whether the sites see each other.
func (w *World) linked() bool {
	up := func(s *site) bool { return s != nil && s.up && !s.stopped }
	return !w.linkDown && up(w.sites[0]) && up(w.sites[1])
}

// linkChanges lets both sites notice, each in its time.
func (w *World) linkChanges() {
	for _, s := range w.sites {
		if s == nil || !s.up {
			continue
		}
		w.at(s, time.Duration(w.rng.Int64N(int64(2*time.Second))), func() {
			if up := w.linked(); up != s.linked {
				s.linked = up
				w.tell(s, dnsfailover.Link{Up: up})
				if up {
					w.say(w.sites[1-s.index])
				}
			}
		})
	}
}

// toPeer carries a message over the link.
func (w *World) toPeer(s *site, do func(p *site)) {
	if w.linkDown || w.rng.Float64() < w.opts.Loss {
		return
	}
	p := w.sites[1-s.index]
	w.after(w.way(), func() {
		if !w.linkDown && p != nil {
			w.deliver(p, p.life, func() { do(p) })
		}
	})
}

// promise asks the peer and brings its answer.
func (w *World) promise(s *site, a dnsfailover.AskPromise) {
	sent, life := w.local(s), s.life
	w.serial++
	id := w.serial
	s.asking = id
	done := func(given bool) {
		if s.asking == id {
			s.asking = 0
			w.tell(s, dnsfailover.PromiseDone{Sent: sent, Epoch: a.Epoch, Given: given})
		}
	}
	w.at(s, w.real(s, w.opts.Timing.Request), func() { done(false) })
	w.toPeer(s, func(p *site) {
		given := false
		for _, act := range w.tell(p, dnsfailover.PromiseAsked(a)) {
			if ans, ok := act.(dnsfailover.PromiseAnswer); ok {
				given = ans.Given
			}
		}
		w.toPeer(p, func(back *site) {
			if back.life == life {
				done(given)
			}
		})
	})
}

// periodic does something at each site every d of its clock while it lives.
func (w *World) periodic(d time.Duration, do func(s *site)) {
	for _, s := range w.sites {
		var again func()
		again = func() {
			w.deliver(s, s.life, func() { do(s) })
			w.after(w.real(s, d), again)
		}
		w.after(time.Duration(w.rng.Int64N(int64(d))), again)
	}
}

// probe probes a site's own services and the peer's through its public address.
func (w *World) probe(s *site) {
	s.doubted = s.sick
	w.tell(s, dnsfailover.Probed{Self: true, Failed: s.sick, Reason: "sick"})
	p := w.sites[1-s.index]
	failed := w.linkDown || !p.up || p.stopped || p.sick
	w.tell(s, dnsfailover.Probed{Failed: failed, Reason: "no answer"})
}

// again probes a site's own services once more after a failure, sooner than usual.
func (w *World) again(s *site) {
	if s.doubted && s.sick {
		w.tell(s, dnsfailover.Probed{Self: true, Failed: true, Reason: "sick"})
	}
}

// say tells the peer how this site is.
func (w *World) say(s *site) {
	if !s.up || s.stopped || !w.linked() {
		return
	}
	says := s.machine.Says()
	w.toPeer(s, func(p *site) {
		if p.linked {
			w.tell(p, dnsfailover.PeerSays{PeerState: says})
		}
	})
}

// Chaos lets d pass with about changes accidents in it, and repairs them again.
func (w *World) Chaos(d time.Duration, changes int) {
	end := w.now + d
	for range changes {
		w.after(time.Duration(w.rng.Int64N(int64(d))), w.accident)
	}
	w.RunUntil(end, nil)
}

// accident is one random change, mostly with its repair.
func (w *World) accident() {
	i := w.rng.IntN(2)
	lasts := time.Duration(w.rng.ExpFloat64() * float64(40*time.Second))
	switch w.rng.IntN(12) {
	case 0, 1:
		w.Kill(i)
		if w.rng.IntN(3) == 0 {
			lasts = time.Duration(w.rng.Int64N(int64(3 * time.Second))) // restarted at once
		}
		w.after(lasts, func() { w.Start(i) })
	case 2, 3:
		w.CutLink(true)
		w.after(lasts, func() { w.CutLink(false) })
	case 4, 5:
		w.CutRegister(i, true)
		w.after(lasts, func() { w.CutRegister(i, false) })
	case 6:
		w.DownRegister(true)
		w.after(lasts, func() { w.DownRegister(false) })
	case 7:
		if w.sites[i].up {
			w.Stop(i)
			w.after(lasts, func() {
				if w.sites[i].stopped {
					w.Continue(i)
				}
			})
		}
	case 8:
		w.Sicken(i, true)
		w.after(lasts, func() { w.Sicken(i, false) })
	case 9:
		to := [2]dnsfailover.Site{"a", "b"}[1-i]
		w.Order(i, dnsfailover.Operator{Command: dnsfailover.SwitchOver, To: to})
	case 10:
		w.StepClock(i, time.Duration(w.rng.Int64N(int64(2*time.Minute)))-time.Minute)
		w.Forge(i, true)
		w.after(lasts, func() { w.Forge(i, false) })
	case 11: // cut off from everything
		w.CutLink(true)
		w.CutRegister(i, true)
		w.after(lasts, func() { w.CutRegister(i, false) })
		w.after(lasts+time.Duration(w.rng.Int64N(int64(10*time.Second))), func() { w.CutLink(false) })
	}
}
