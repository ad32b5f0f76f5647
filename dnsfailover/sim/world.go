package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"understudy/dnsfailover"
)

// Options are the conditions of a World.
type Options struct {
	// Seed decides everything that is left to chance.
	Seed uint64
	// Timing of both sites; the zero value is dnsfailover.DefaultTiming.
	Timing dnsfailover.Timing
	// Rates of the two clocks; 0 is a random rate within Drift of 1.
	Rates [2]float64
	Drift float64
	// Loss is the probability of each message to be lost, MaxDelay its longest way.
	Loss     float64
	MaxDelay time.Duration
	// New makes a machine; tests make faulty ones. nil is dnsfailover.NewMachine.
	New func(dnsfailover.MachineConfig, dnsfailover.Instant) *dnsfailover.Machine
	// Fate decides one message to the register instead of chance; ok false leaves
	// it to chance.
	Fate func(w *World, site int, what dnsfailover.Action) (f Fate, ok bool)
	// Mode of both sites; "" is automatic.
	Mode dnsfailover.Mode

	// Mistakes outside the machine: a clock that steps, and an answer that is
	// believed without a signature.
	WallClock       bool
	BelieveUnsigned bool
}

// Fate is what becomes of one request to the register.
type Fate struct {
	// There and Back are the ways of the request and of its answer.
	There, Back time.Duration
	// Lost and Mute: the request, or only its answer, never arrives.
	Lost, Mute bool
}

// Never is a way that does not end within any time-out.
const Never = time.Hour

// World is the two sites, the register and what lies between them.
type World struct {
	opts   Options
	rng    *rand.Rand
	now    time.Duration // real time
	queue  events
	serial int

	sites     [2]*site
	register  dnsfailover.Register
	regDown   bool
	regCut    [2]bool // this site does not reach the register
	forged    [2]bool // an attacker answers instead
	linkDown  bool
	twoActive time.Duration
	noActive  time.Duration
	moves     []Move
	trace     func(format string, args ...any)
}

// Move is a change of the holder in the register.
type Move struct {
	At     time.Duration
	To     dnsfailover.Site
	Epoch  uint64
	Reason string
}

// site is one machine and the computer it runs on.
type site struct {
	index    int
	machine  *dnsfailover.Machine
	life     int // how often it was started
	up       bool
	stopped  bool // SIGSTOP: events wait
	waiting  []func()
	sick     bool
	doubted  bool // its last probe of itself has failed
	linked   bool // as it has noticed
	rate     float64
	offset   time.Duration
	step     time.Duration // of its wall clock
	request  int           // serial of the request under way
	asking   int
	draining dnsfailover.Instant // work is being stopped; it would have ended by itself then
	forced   uint64              // on disk
	tick     int                 // serial of the next tick
}

type event struct {
	at     time.Duration
	serial int
	do     func()
}

type events []event

func (q *events) Len() int { return len(*q) }

func (q *events) Less(i, j int) bool {
	a, b := (*q)[i], (*q)[j]
	return a.at < b.at || a.at == b.at && a.serial < b.serial
}

func (q *events) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }

func (q *events) Push(x any) { *q = append(*q, x.(event)) } //nolint:forcetypeassert // only events are pushed
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// New is a world in which site 0, "a", holds the role in epoch 1.
func New(opts Options) *World {
	if opts.Timing == (dnsfailover.Timing{}) {
		opts.Timing = dnsfailover.DefaultTiming()
	}
	if opts.New == nil {
		opts.New = dnsfailover.NewMachine
	}
	if opts.Mode == "" {
		opts.Mode = dnsfailover.Automatic
	}
	w := &World{opts: opts, rng: rand.New(rand.NewPCG(opts.Seed, 7)), trace: func(string, ...any) {}} //nolint:gosec // a simulation repeats itself
	w.register = dnsfailover.Register{
		Epoch: 1, Holder: "a", State: dnsfailover.Held, By: "a", Nonce: w.nonce(), Config: "0badcafe",
	}
	for i := range w.sites {
		rate := opts.Rates[i]
		if rate == 0 {
			rate = 1 + opts.Drift*(2*w.rng.Float64()-1)
		}
		w.sites[i] = &site{index: i, rate: rate, offset: time.Duration(w.rng.Int64N(int64(time.Hour))) + time.Minute}
	}
	for i := range w.sites {
		w.Start(i)
	}
	w.periodic(w.opts.Timing.Probe, func(s *site) { w.probe(s) })
	w.periodic(w.opts.Timing.Again(), func(s *site) { w.again(s) })
	w.periodic(w.opts.Timing.Poll, func(s *site) { w.say(s) })
	return w
}

// Trace makes the world tell what happens.
func (w *World) Trace(f func(format string, args ...any)) { w.trace = f }

// Now is the real time since the world began.
func (w *World) Now() time.Duration { return w.now }

// TwoActive is for how long both sites have acted as active; NoActive for how
// long neither had a permit.
func (w *World) TwoActive() time.Duration { return w.twoActive }

// NoActive is for how long neither site had a permit.
func (w *World) NoActive() time.Duration { return w.noActive }

// Moves are the changes of the holder.
func (w *World) Moves() []Move { return w.moves }

// Register is what the register holds.
func (w *World) Register() dnsfailover.Register { return w.register }

// View is what a site thinks at this moment.
func (w *World) View(i int) dnsfailover.View {
	s := w.sites[i]
	s.machine.Step(w.local(s), dnsfailover.Records{}) // only to tell it the time
	v, _ := s.machine.View()
	return v
}

func (w *World) nonce() string { return fmt.Sprintf("%016x", w.rng.Uint64()) }

// local is the site's own clock.
func (w *World) local(s *site) dnsfailover.Instant {
	t := s.offset + time.Duration(float64(w.now)*s.rate)
	if w.opts.WallClock {
		t += s.step
	}
	return dnsfailover.Instant(t)
}

// real is how long d of the site's clock lasts.
func (w *World) real(s *site, d time.Duration) time.Duration {
	return time.Duration(float64(d)/s.rate) + 1
}

// after does something after d of real time.
func (w *World) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, event{at: w.now + max(d, 0), serial: w.serial, do: do})
}

// at does something at a site, if it still lives the same life then; while the
// site is stopped it waits.
func (w *World) at(s *site, d time.Duration, do func()) {
	life := s.life
	w.after(d, func() { w.deliver(s, life, do) })
}

func (w *World) deliver(s *site, life int, do func()) {
	switch {
	case !s.up || s.life != life:
	case s.stopped:
		s.waiting = append(s.waiting, func() { w.deliver(s, life, do) })
	default:
		do()
	}
}

// RunFor lets d of real time pass.
func (w *World) RunFor(d time.Duration) { w.RunUntil(w.now+d, nil) }

// RunUntil lets time pass until then, or until done says so after an event.
func (w *World) RunUntil(then time.Duration, done func() bool) {
	for len(w.queue) > 0 && w.queue[0].at <= then {
		e := heap.Pop(&w.queue).(event) //nolint:forcetypeassert // only events are pushed
		w.pass(e.at)
		e.do()
		if done != nil && done() {
			return
		}
	}
	w.pass(then)
}

// pass moves the clock to then and adds up who was active meanwhile. Nothing
// changes in between but that permits run out.
func (w *World) pass(then time.Duration) {
	a, b := w.actsUntil(w.sites[0]), w.actsUntil(w.sites[1])
	w.twoActive += max(0, min(a, b, then)-w.now)
	w.noActive += max(0, then-max(a, b, w.now))
	w.now = then
}

// actsUntil is until when a site acts as active if nothing happens: to the end
// of its permit, which includes what stopping takes.
func (w *World) actsUntil(s *site) time.Duration {
	switch {
	case !s.up:
		return 0
	case s.machine.PermitEnd() == 0 && s.draining == 0:
		return 0
	}
	left := max(s.machine.PermitEnd(), s.draining).Sub(w.local(s))
	if left <= 0 {
		return 0
	}
	return w.now + w.real(s, left)
}

// Start starts a site that is down.
func (w *World) Start(i int) {
	s := w.sites[i]
	if s.up {
		return
	}
	s.life++
	s.up, s.stopped, s.waiting, s.linked, s.draining = true, false, nil, false, 0
	s.request, s.asking = 0, 0
	names := [2]dnsfailover.Site{"a", "b"}
	s.machine = w.opts.New(dnsfailover.MachineConfig{
		Site: names[i], Peer: names[1-i], Primary: "a", Mode: w.opts.Mode, Timing: w.opts.Timing,
		Hash: "0badcafe", Nonce: w.nonce, Wall: func() int64 { return 1795540000 + int64(w.now/time.Second) },
		Forced: s.forced,
	}, w.local(s))
	w.trace("%s starts", names[i])
	w.tell(s, dnsfailover.Tick{})
	w.linkChanges()
}

// Kill ends a site without a word.
func (w *World) Kill(i int) {
	w.sites[i].up = false
	w.trace("%c dies", 'a'+rune(i))
	w.linkChanges()
}

// Stop is SIGSTOP, Continue SIGCONT.
func (w *World) Stop(i int) {
	w.sites[i].stopped = true
	w.trace("%c is stopped", 'a'+rune(i))
	w.linkChanges()
}

// Continue lets a stopped site go on with all that has arrived meanwhile.
func (w *World) Continue(i int) {
	s := w.sites[i]
	s.stopped = false
	w.trace("%c continues", 'a'+rune(i))
	waiting := s.waiting
	s.waiting = nil
	for _, do := range waiting {
		do()
	}
	w.linkChanges()
}

// CutLink cuts or heals the way between the sites, CutRegister that between a
// site and the register, and DownRegister stops the register.
func (w *World) CutLink(cut bool) {
	w.linkDown = cut
	w.trace("link cut: %v", cut)
	w.linkChanges()
}

// CutRegister cuts or heals the way between a site and the register.
func (w *World) CutRegister(i int, cut bool) {
	w.regCut[i] = cut
	w.trace("%c cut from the register: %v", 'a'+rune(i), cut)
}

// DownRegister stops the register, or starts it.
func (w *World) DownRegister(down bool) {
	w.regDown = down
	w.trace("register down: %v", down)
}

// Forge lets an attacker answer a site's requests that get no answer.
func (w *World) Forge(i int, on bool) { w.forged[i] = on }

// StepClock moves the wall clock of a site.
func (w *World) StepClock(i int, d time.Duration) { w.sites[i].step += d }

// Sicken makes the services of a site fail, or work again.
func (w *World) Sicken(i int, sick bool) { w.sites[i].sick = sick }

// Order gives an operator's command to a site and returns why it was refused.
func (w *World) Order(i int, o dnsfailover.Operator) string {
	s := w.sites[i]
	if !s.up || s.stopped {
		return "the daemon does not answer"
	}
	refused := "no reply"
	for _, a := range w.tell(s, o) {
		if r, ok := a.(dnsfailover.Reply); ok {
			refused = r.Refused
		}
	}
	return refused
}
