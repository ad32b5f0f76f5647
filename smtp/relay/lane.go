package relay

import (
	"context"
	"sync/atomic"
	"time"

	"understudy/smtp"
	"understudy/smtp/wire"
)

// job is one delivery on its way. It belongs to the route's loop, but for the
// fields above the line, which never change.
type job struct {
	d       smtp.Delivery
	pending []int
	bytes   int64
	start   time.Time

	round uint64 // of the machine, when it was given out
}

// event is what lanes and probes report to the loop of their route.
type event struct {
	hop  *hopState
	lane *lane
	// An answer to job:
	job     *job
	answers []wire.Answer
	relay   string
	tls     string
	first   int // messages this connection had answered before
	// The end of an attempt to connect (job is nil): err, or conn, which a probe
	// hands over and a lane keeps.
	probe bool
	conn  *connection
	err   error
	// A lane has ended.
	ended bool
}

// lane is one connection to a hop at a time, and the goroutine that uses it.
type lane struct {
	hop  *hopState
	in   chan *job // closed to end the lane
	conn *connection
	live atomic.Pointer[connection] // conn, for the loop to look at

	// Of the loop:
	jobs   int
	bytes  int64
	used   time.Time
	closed bool
}

// run sends what comes in. It ends when in is closed; hard cuts everything short.
func (l *lane) run(soft, hard context.Context, r *Relay, post func(event)) {
	defer post(event{hop: l.hop, lane: l, ended: true})
	defer l.hangUp(hard)
	for j := range l.in {
		c, err := l.ready(soft, hard, r, post)
		if err != nil {
			l.giveBack(j, err, post)
			continue
		}
		l.send(hard, r, c, j, post)
	}
}

// giveBack returns a message that could not be sent, and all behind it: another hop
// may be up, and each attempt to connect takes its time.
func (l *lane) giveBack(j *job, err error, post func(event)) {
	for ok := true; ok; {
		post(event{hop: l.hop, lane: l, job: j, answers: unsentAnswers(len(j.pending), err), relay: "none"})
		select {
		case j, ok = <-l.in:
		default:
			return
		}
	}
}

// ready returns a connection that can be used.
func (l *lane) ready(soft, hard context.Context, r *Relay, post func(event)) (*connection, error) {
	if l.conn != nil && (l.conn.Err() != nil || l.conn.Sent() >= r.cfg.Messages) {
		l.hangUp(hard)
	}
	if l.conn != nil {
		return l.conn, nil
	}
	c, err := r.connect(soft, l.hop.hop)
	post(event{hop: l.hop, lane: l, err: err})
	if err != nil {
		return nil, err
	}
	l.conn = c
	l.live.Store(c)
	return c, nil
}

func (l *lane) hangUp(hard context.Context) {
	if l.conn == nil {
		return
	}
	_ = l.conn.Close(hard) // what is lost with it was reported by its answers
	l.conn = nil
	l.live.Store(nil)
}

func (l *lane) send(hard context.Context, r *Relay, c *connection, j *job, post func(event)) {
	done := func(answers []wire.Answer) {
		post(event{hop: l.hop, lane: l, job: j, answers: answers, relay: c.relay, tls: c.tls, first: c.Sent() - 1})
	}
	m := outgoing(j.d, j.pending, r.cfg.ClientHeader && !c.Forwards())
	if l.hop.hop.Network == "unix" {
		m.RequireTLS = false // what does not leave the machine needs no protection
	}
	if m.RequireTLS && c.tlsFailed {
		// RFC 3207, section 4: 454 is TLS that is not there for the moment.
		rep := wire.Reply{Code: 454, Enhanced: "4.7.0", Text: "REQUIRETLS needed, TLS with the next hop does not work at the moment"}
		answers := unsentAnswers(len(m.To), nil)
		for i := range answers {
			answers[i].Reply, answers[i].At = rep, time.Now()
		}
		done(answers)
		return
	}
	if m.RequireTLS && !c.authentic {
		done(refuseAll(len(m.To), wire.Reply{
			Code: 550, Enhanced: "5.7.30",
			Text: "REQUIRETLS needed, the connection to the next hop is not authenticated",
		}))
		return
	}
	_ = c.Send(hard, m, done) // done has been told
}

// unsentAnswers are the answers of a message that was not tried.
func unsentAnswers(n int, err error) []wire.Answer {
	answers := make([]wire.Answer, n)
	for i := range answers {
		answers[i].Err = err
	}
	return answers
}

func refuseAll(n int, rep wire.Reply) []wire.Answer {
	answers := unsentAnswers(n, wire.ErrLacks)
	for i := range answers {
		answers[i].Reply, answers[i].At = rep, time.Now()
	}
	return answers
}
