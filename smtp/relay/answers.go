package relay

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"understudy/smtp"
	"understudy/smtp/wire"
)

// handle takes one report in.
func (rt *route) handle(ev event) {
	h, now := ev.hop, time.Now()
	before := h.m.state
	switch {
	case ev.ended:
		rt.running--
		h.lanes = slices.DeleteFunc(h.lanes, func(l *lane) bool { return l == ev.lane })
	case ev.job != nil:
		rt.answered(ev, now)
	case ev.probe:
		rt.probed(ev, now)
	default:
		rt.connected(ev, now)
	}
	if !h.gone {
		rt.follow(h, before, now)
	}
}

// probed takes the end of a probe in; a connection it made is used.
func (rt *route) probed(ev event, now time.Time) {
	h := ev.hop
	h.probes--
	rt.running--
	if ev.err != nil {
		if errors.Is(ev.err, wire.ErrTLS) || errors.Is(ev.err, wire.ErrNoTLS) || errors.Is(ev.err, wire.ErrReply) {
			h.answeredProbes++
		}
		if rt.soft.Err() == nil && !h.gone && h.m.state == Down {
			rt.failed(h, ev.err, now)
		}
		return
	}
	rt.r.metrics.connections.WithLabelValues(h.hop.String(), "ok").Inc()
	if h.gone || h.m.state != Down {
		// Too late to be of use.
		rt.endLane(rt.newLane(h, ev.conn))
		return
	}
	h.endProbes()
	h.m.reached(now)
	rt.newLane(h, ev.conn)
}

// connected takes a lane's attempt to connect in.
func (rt *route) connected(ev event, now time.Time) {
	h := ev.hop
	if ev.err == nil {
		rt.r.metrics.connections.WithLabelValues(h.hop.String(), "ok").Inc()
		h.m.reached(now)
		return
	}
	if rt.soft.Err() != nil || h.gone {
		return
	}
	open := 0
	for _, l := range h.lanes {
		if c := l.live.Load(); c != nil && c.Err() == nil {
			open++
		}
	}
	if open == 0 {
		rt.failed(h, ev.err, now)
		return
	}
	rt.note(h, why(ev.err), now)
	rt.r.metrics.connections.WithLabelValues(h.hop.String(), "error").Inc()
	h.m.crowded(now, open)
	h.m.congested(h.m.round)
	rt.endLane(ev.lane)
}

// failed: no connection could be made and none is there.
func (rt *route) failed(h *hopState, err error, now time.Time) {
	rt.note(h, why(err), now)
	rt.r.metrics.connections.WithLabelValues(h.hop.String(), "error").Inc()
	if rep, ok := errors.AsType[*wire.ReplyError](err); ok && rep.Reply.Permanent() {
		h.m.turnedAway(now, why(err))
		return
	}
	h.m.unreachable(now, why(err))
}

func (rt *route) note(h *hopState, text string, now time.Time) { h.lastErr, h.lastErrAt = text, now }

// answered records what became of one message.
func (rt *route) answered(ev event, now time.Time) {
	h, l, j := ev.hop, ev.lane, ev.job
	h.inFlight--
	l.jobs--
	l.bytes -= j.bytes
	l.used = now
	id := j.d.Envelope().ID
	kinds := make([]kind, len(ev.answers))
	for i, a := range ev.answers {
		kinds[i] = classify(a)
		if ev.first > 0 && (a.Code == 421 || kinds[i] == lost && a.Stage == wire.StageMail) {
			// This connection had its share of messages, or of bad recipients:
			// it says nothing about the message. The first of a connection gets
			// no such grace, so nothing goes round for ever.
			kinds[i] = unsent
		}
	}
	if slices.Contains(kinds, accepted) {
		h.m.accept(now)
	}
	results := make([]smtp.Result, 0, len(ev.answers))
	for i, a := range ev.answers {
		if kinds[i] == unsent {
			continue
		}
		rcpt := j.pending[i]
		again := kinds[i] == policy && rt.suspects.again(id, rcpt, h.m.accepted)
		res := result(a, outcome(kinds[i], h.m.proven, again))
		res.Recipient, res.Relay, res.TLS = rcpt, ev.relay, ev.tls
		results = append(results, res)
		rt.r.metrics.recipients.WithLabelValues(h.hop.String(), outcomeName(res.Outcome)).Inc()
		if res.Outcome == smtp.Delivered {
			h.delivered++
		}
	}
	rt.learn(h, j, kinds, ev.answers, now)
	rt.r.metrics.seconds.WithLabelValues(h.hop.String()).Observe(now.Sub(j.start).Seconds())
	j.d.Done(results)
}

// learn tells the machine what a message's answers say about the hop; of
// several, the one that says most.
func (rt *route) learn(h *hopState, j *job, kinds []kind, answers []wire.Answer, now time.Time) {
	id := j.d.Envelope().ID
	for _, k := range []kind{accepted, policy, refused, busy, lost, deferred, local, unsent} {
		i := slices.Index(kinds, k)
		if i < 0 {
			continue
		}
		a := answers[i]
		if k != accepted {
			rt.note(h, describe(a), now)
		}
		switch k {
		case accepted:
		case policy:
			h.m.refuse(now, id, describe(a), true)
		case refused:
			if a.Stage == wire.StageRcpt {
				h.m.nobody()
			}
			h.m.refuse(now, id, describe(a), false)
		case busy:
			if a.Code == 421 {
				h.m.congested(j.round)
			}
			h.m.busy(now, id, describe(a))
		case lost:
			h.m.congested(j.round)
			h.m.busy(now, id, describe(a))
		case deferred, local:
			h.m.deferred(now)
		case unsent: // the connection's own report says why
		}
		return
	}
}

// describe is an answer on one line.
func describe(a wire.Answer) string {
	if a.Code != 0 {
		return "in reply to " + a.Stage.String() + ": " + a.String()
	}
	if a.Stage == wire.StageNone {
		return a.Err.Error()
	}
	return fmt.Sprintf("waiting for the reply to %s: %v", a.Stage, a.Err)
}

// result is an answer as the queue keeps it.
func result(a wire.Answer, o smtp.Outcome) smtp.Result {
	res := smtp.Result{Outcome: o, Code: a.Code, Enhanced: a.Enhanced, Text: a.Text, At: a.At}
	if a.Code == 0 {
		res.Text = describe(a)
	}
	if res.At.IsZero() {
		res.At = time.Now()
	}
	return res
}

// follow does what a change of state asks for.
func (rt *route) follow(h *hopState, before State, now time.Time) {
	after := h.m.state
	if after == before {
		rt.r.metrics.limit.WithLabelValues(h.hop.String()).Set(float64(h.m.allowed(now)))
		rt.r.metrics.inFlight.WithLabelValues(h.hop.String()).Set(float64(h.inFlight))
		return
	}
	log := rt.r.log.With("route", rt.name, "hop", h.hop.String())
	switch after {
	case Up:
		log.Info("next hop is back")
		h.alarmed, h.answeredProbes = false, 0
		rt.r.alarms.Clear(rt.alarm(h))
		rt.r.queue.Expedite(rt.name)
	case Down:
		log.Warn("next hop is down", "err", h.m.why)
		h.nextProbe = now.Add(rt.r.cfg.ProbeInterval)
	case Paused:
		log.Error("next hop takes nothing and is paused", "err", h.m.why, "retry_at", h.m.next)
		if h.m.refusals { // being busy may pass before anyone has looked
			rt.raise(h)
		}
	}
	rt.gauges(h)
}

func (rt *route) gauges(h *hopState) {
	for _, s := range []State{Up, Down, Paused} {
		v := 0.0
		if s == h.m.state {
			v = 1
		}
		rt.r.metrics.state.WithLabelValues(h.hop.String(), s.String()).Set(v)
	}
}

// resume is an operator's word that the hops are fine.
func (rt *route) resume() {
	now := time.Now()
	for _, h := range rt.list {
		before := h.m.state
		switch before {
		case Paused:
			h.m.resume(now)
		case Down:
			h.nextProbe = now
		case Up:
		}
		rt.follow(h, before, now)
	}
}

func (rt *route) status() []HopStatus {
	now := time.Now()
	var out []HopStatus
	for _, h := range rt.list {
		s := HopStatus{
			Route: rt.name, Hop: h.hop.String(), State: h.m.state.String(), Since: h.m.since,
			Reason: h.m.why, LastError: h.lastErr, LastErrAt: h.lastErrAt, Proven: h.m.proven,
			Limit: h.m.allowed(now), InFlight: h.inFlight, Connections: len(h.lanes), Delivered: h.delivered,
		}
		if h.m.state == Paused {
			s.NextTry = h.m.next
		}
		out = append(out, s)
	}
	return out
}
