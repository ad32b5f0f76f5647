package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"understudy/smtp"
	"understudy/smtp/wire"
)

// hopState is one hop of a route: what is believed of it and who works for it.
// It belongs to the route's loop.
type hopState struct {
	hop      Hop
	m        *machine
	lanes    []*lane
	inFlight int
	gone     bool // the route does not lead there any more

	probes    int
	probeCtx  context.Context //nolint:containedctx // of the probes that run now, to end all but the first to succeed
	endProbes context.CancelFunc
	nextProbe time.Time
	// answeredProbes counts probes that found a server without TLS, or no mail server.
	answeredProbes int

	lastErr   string
	lastErrAt time.Time
	alarmed   bool
	delivered uint64
}

// route carries the mail of one route. One goroutine, run, owns everything in
// it; lanes, probes and the one Take report to it.
type route struct {
	r    *Relay
	name string
	hops func() ([]Hop, <-chan struct{})
	end  context.CancelFunc

	events chan event
	taken  chan takeResult
	cmds   chan func()
	ended  chan struct{}

	list     []*hopState // by preference
	changed  <-chan struct{}
	running  int // lanes, probes and takes that have not ended
	stopTake context.CancelFunc
	stopping bool
	suspects suspicion

	soft, hard context.Context //nolint:containedctx // of run, for the goroutines it starts
}

type takeResult struct {
	deliveries []smtp.Delivery
	err        error
}

// maxTake bounds one Take; maxProbes the probes of one hop that wait for their
// connection at a time.
const (
	maxTake   = 128
	maxProbes = 3
)

func newRoute(r *Relay, name string, hops func() ([]Hop, <-chan struct{})) *route {
	return &route{
		r: r, name: name, hops: hops,
		events: make(chan event, 1024), taken: make(chan takeResult, 1),
		cmds: make(chan func()), ended: make(chan struct{}),
	}
}

// ask runs f in the loop and waits for it. A route that has ended has nothing
// to say.
func (rt *route) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case rt.cmds <- func() { f(); close(done) }:
		<-done
		return nil
	case <-rt.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run is the loop. It returns the queue's error, or nil after ctx ended.
func (rt *route) run(ctx context.Context) error {
	defer close(rt.ended)
	var cut context.CancelFunc
	rt.soft = ctx
	rt.hard, cut = context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	rt.reload(time.Now())
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		rt.tend(now)
		rt.pump(now)
		timer.Reset(rt.rest(now))
		select {
		case <-ctx.Done():
			rt.stop(cut)
			return nil
		case ev := <-rt.events:
			rt.handle(ev)
			rt.more()
		case res := <-rt.taken:
			if err := rt.took(res); err != nil {
				rt.stop(cut)
				return fmt.Errorf("take from queue: %w", err)
			}
		case f := <-rt.cmds:
			f()
		case <-rt.changed:
			rt.reload(time.Now())
		case <-timer.C:
		}
	}
}

// more handles what has come in meanwhile, before anything new is decided.
func (rt *route) more() {
	for range cap(rt.events) {
		select {
		case ev := <-rt.events:
			rt.handle(ev)
		default:
			return
		}
	}
}

// stop ends everything the route has started: what is on its way may finish
// within the stop time-out.
func (rt *route) stop(cut context.CancelFunc) {
	rt.stopping = true
	if rt.stopTake != nil {
		rt.stopTake()
	}
	for _, h := range rt.list {
		rt.retire(h)
	}
	timer := time.AfterFunc(rt.r.cfg.StopTimeout, cut)
	defer timer.Stop()
	for rt.running > 0 {
		select {
		case ev := <-rt.events:
			rt.handle(ev)
		case res := <-rt.taken:
			_ = rt.took(res) // its deliveries go back
		case f := <-rt.cmds:
			f()
		}
	}
	for _, h := range rt.list {
		rt.r.metrics.forget(h.hop.String())
		if rt.name != "" { // the route has no mail any more: nobody needs to look
			rt.r.alarms.Clear(rt.alarm(h))
		}
	}
}

// reload follows a change of the route's hops. What is on its way to a hop that
// has gone ends there.
func (rt *route) reload(now time.Time) {
	hops, changed := rt.hops()
	rt.changed = changed
	old := rt.list
	rt.list = nil
	for _, hop := range hops {
		i := slices.IndexFunc(old, func(h *hopState) bool { return h.hop.String() == hop.String() })
		if i >= 0 {
			rt.list = append(rt.list, old[i])
			old = slices.Delete(slices.Clone(old), i, i+1)
			continue
		}
		h := &hopState{hop: hop, m: newMachine(rt.tuning(hop), now)}
		rt.list = append(rt.list, h)
		rt.gauges(h)
	}
	for _, h := range old {
		rt.retire(h)
		rt.r.alarms.Clear(rt.alarm(h))
		rt.r.metrics.forget(h.hop.String())
	}
}

// retire ends a hop's lanes and probes.
func (rt *route) retire(h *hopState) {
	h.gone = true
	if h.endProbes != nil {
		h.endProbes()
	}
	for _, l := range h.lanes {
		rt.endLane(l)
	}
}

func (rt *route) endLane(l *lane) {
	if !l.closed {
		l.closed = true
		close(l.in)
	}
}

func (rt *route) tuning(h Hop) tuning {
	c := rt.r.cfg
	t := tuning{
		lanes: c.Connections, pauseAfter: c.PauseAfter, pauseFirst: c.PauseFirst, pauseMax: c.PauseMax,
		crowdedAfter: 30 * time.Second,
	}
	if h.Connections > 0 {
		t.lanes = h.Connections
	}
	t.max = t.lanes * c.Window
	if h.LMTP {
		t.max = t.lanes
	}
	return t
}

// tend does what time asks for: probes, alarms, idle connections.
func (rt *route) tend(now time.Time) {
	for _, h := range rt.list {
		if h.m.state == Down {
			if !now.Before(h.nextProbe) {
				h.nextProbe = now.Add(rt.probeEvery(h))
				rt.probe(h)
			}
		}
		if h.m.state != Up && !h.alarmed && now.Sub(h.m.since) >= rt.r.cfg.AlarmAfter {
			rt.raise(h)
		}
		for _, l := range h.lanes {
			if l.jobs == 0 && !now.Before(l.used.Add(rt.r.cfg.IdleTimeout)) {
				rt.endLane(l)
			}
		}
	}
}

// rest is how long nothing will have to be done.
func (rt *route) rest(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	for _, h := range rt.list {
		switch h.m.state {
		case Down:
			sooner(h.nextProbe)
		case Paused:
			if now.Before(h.m.next) {
				sooner(h.m.next)
			}
		case Up:
		}
		if h.m.state != Up && !h.alarmed {
			sooner(h.m.since.Add(rt.r.cfg.AlarmAfter))
		}
		for _, l := range h.lanes {
			if l.jobs == 0 && !l.closed {
				sooner(l.used.Add(rt.r.cfg.IdleTimeout))
			}
		}
	}
	return max(next.Sub(now), 0)
}

// target is the hop that gets the next message: the first that is up; before
// it, one that is paused and due for a trial.
func (rt *route) target(now time.Time) *hopState {
	for _, h := range rt.list {
		if n := h.m.allowed(now); h.m.state == Up || n > h.inFlight {
			return h
		}
	}
	return nil
}

// pump asks the queue for as much as may be given out.
func (rt *route) pump(now time.Time) {
	h := rt.target(now)
	if h == nil {
		if rt.stopTake != nil {
			rt.stopTake()
		}
		return
	}
	room := min(h.m.allowed(now)-h.inFlight, rt.free(h, now))
	if room <= 0 || rt.stopTake != nil {
		return
	}
	ctx, cancel := context.WithCancel(rt.soft)
	rt.stopTake = cancel
	rt.running++
	go func() {
		ds, err := rt.r.queue.Take(ctx, rt.name, min(room, maxTake))
		if err != nil && ctx.Err() != nil {
			err = nil
		}
		rt.taken <- takeResult{ds, err}
	}()
}

// took gives out what Take brought.
func (rt *route) took(res takeResult) error {
	rt.stopTake()
	rt.stopTake = nil
	rt.running--
	now := time.Now()
	for _, d := range res.deliveries {
		if !rt.give(d, now) {
			d.Done(nil)
		}
	}
	return res.err
}

// give puts a delivery on a lane.
func (rt *route) give(d smtp.Delivery, now time.Time) bool {
	if rt.stopping {
		return false
	}
	h := rt.target(now)
	if h == nil {
		return false
	}
	l := rt.lane(h, now)
	if l == nil {
		return false
	}
	j := &job{d: d, pending: d.Pending(), bytes: d.Envelope().SizeBytes, start: now, round: h.m.round}
	if len(j.pending) == 0 {
		return false
	}
	h.inFlight++
	l.jobs++
	l.bytes += j.bytes
	l.used = now
	l.in <- j // never full: lane() looks
	return true
}

// lane picks a connection: an idle one, the last used first; else a new one
// while the hop may have more; else the one with the least to do.
func (rt *route) lane(h *hopState, now time.Time) *lane {
	var idle, least *lane
	open := 0
	for _, l := range h.lanes {
		if l.closed {
			continue
		}
		open++
		if l.jobs == 0 && (idle == nil || l.used.After(idle.used)) {
			idle = l
		}
		if l.jobs < cap(l.in) && (least == nil || l.load() < least.load()) {
			least = l
		}
	}
	switch {
	case idle != nil:
		return idle
	case open < h.m.connections(now):
		return rt.newLane(h, nil)
	}
	return least
}

// free is how many messages the lanes of a hop can still take, those it may
// still open included.
func (rt *route) free(h *hopState, now time.Time) int {
	n, open := 0, 0
	for _, l := range h.lanes {
		if !l.closed {
			open++
			n += cap(l.in) - l.jobs
		}
	}
	return n + max(0, h.m.connections(now)-open)*rt.r.cfg.Window
}

// load counts a message like 16 KiB.
func (l *lane) load() int64 { return l.bytes + int64(l.jobs)<<14 }

func (rt *route) newLane(h *hopState, conn *connection) *lane {
	l := &lane{hop: h, in: make(chan *job, rt.r.cfg.Window), used: time.Now()}
	l.conn = conn
	l.live.Store(conn)
	h.lanes = append(h.lanes, l)
	rt.running++
	go l.run(rt.soft, rt.hard, rt.r, rt.post)
	return l
}

func (rt *route) post(ev event) { rt.events <- ev }

// probe tries to connect to a hop that is down. A probe that hangs does not
// hold up the next.
func (rt *route) probe(h *hopState) {
	if h.probes >= maxProbes {
		return
	}
	if h.probes == 0 {
		if h.endProbes != nil {
			h.endProbes()
		}
		h.probeCtx, h.endProbes = context.WithCancel(rt.soft)
	}
	ctx := h.probeCtx
	h.probes++
	rt.running++
	go func() {
		c, err := rt.r.connect(ctx, h.hop)
		rt.post(event{hop: h, probe: true, conn: c, err: err})
	}()
}

// probeEvery is the interval between probes: the configured one while nobody
// answers, longer for a server that answers and cannot be used: each try costs it
// a handshake and a line in its log.
func (rt *route) probeEvery(h *hopState) time.Duration {
	every := rt.r.cfg.ProbeInterval
	return min(every<<min(h.answeredProbes/10, 5), max(every, 30*time.Second))
}

// raise tells people that a hop is down or paused.
func (rt *route) raise(h *hopState) {
	h.alarmed = true
	what := "cannot be reached"
	if h.m.state == Paused {
		what = "takes nothing and is paused, messages wait,"
	}
	rt.r.alarms.Raise(rt.alarm(h), fmt.Sprintf("next hop %s %s since %s: %s",
		h.hop, what, h.m.since.UTC().Format(time.RFC3339), h.m.why))
}

func (rt *route) alarm(h *hopState) string { return "hop:" + h.hop.String() }

// why is an error on one line.
func why(err error) string {
	if rep, ok := errors.AsType[*wire.ReplyError](err); ok {
		return rep.Error()
	}
	return err.Error()
}
