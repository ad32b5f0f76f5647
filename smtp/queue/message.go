package queue

import (
	"fmt"
	"strings"
	"time"
	"unique"

	"understudy/internal/durable"
	"understudy/smtp"
)

// phase is the durable state of a message. Active is not durable: a crash ends
// every loan.
type phase uint8

const (
	phaseQueued phase = iota
	phaseHeld
	phaseRefused
	phaseEnd
)

// cause is why a message is held.
type cause uint8

const (
	causeNone cause = iota
	causeOperator
	causeRule
	causeVerdict
	causeExpired
	causeDamaged
	causeEnd
)

// reply is a next hop's answer. Equal answers share one copy: during an outage a
// million messages have the same one.
type reply struct {
	code                       int
	enhanced, text, relay, tls string
}

// maxReplyText bounds what is kept of an answer, in bytes.
const maxReplyText = 512

func makeReply(r smtp.Result) unique.Handle[reply] {
	clip := func(s string, n int) string {
		if len(s) > n {
			s = s[:n]
		}
		return strings.ToValidUTF8(s, "?")
	}
	return unique.Make(reply{
		code: min(max(r.Code, 0), 999), enhanced: clip(r.Enhanced, 32), text: clip(r.Text, maxReplyText),
		relay: clip(r.Relay, 256), tls: clip(r.TLS, 64),
	})
}

func (r reply) String() string {
	out := r.text
	if r.enhanced != "" {
		out = r.enhanced + " " + out
	}
	if r.code != 0 {
		out = fmt.Sprintf("%d %s", r.code, out)
	}
	return strings.TrimSpace(out)
}

// rcpt is one recipient. Times at rest are Unix nanoseconds, next is an instant.
type rcpt struct {
	addr unique.Handle[string]
	// last is the last answer; the zero handle before the first.
	last     unique.Handle[reply]
	at       int64
	next     int64
	attempts uint32
	outcome  smtp.Outcome // Deferred is "pending"
}

func (r *rcpt) pending() bool { return r.outcome == smtp.Deferred }

// attempt is one line of a message's history.
type attempt struct {
	at      int64
	reply   unique.Handle[reply]
	rcpt    uint32
	outcome smtp.Outcome
}

// maxHistory bounds the history of a message.
const maxHistory = 16

// spill names the file that holds the body of a big message.
type spill struct {
	name ident
	size int64
	crc  uint32
}

// message is what the spool knows in memory: enough for listings, filters and the
// schedule. Envelope and bytes are read from disk when they are needed. It is
// guarded by Spool.mu.
type message struct {
	id       ident
	pos      durable.Pos
	disk     int64 // bytes in its segment
	size     int64 // header and body
	received int64
	since    int64 // when the lifetime began
	gen      uint64
	phase    phase
	cause    cause
	loaned   bool
	gone     bool // removed while on loan
	spill    *spill
	sender   string
	reason   string
	rcpts    []rcpt
	history  []attempt

	// route and place are the schedule's; place is -1 outside the heap.
	route *route
	place int32
	next  int64
}

// state is what operators see.
func (m *message) state() State {
	switch {
	case m.phase == phaseHeld:
		return Held
	case m.phase == phaseRefused:
		return Refused
	case m.loaned:
		return Active
	}
	return Queued
}

// due sets next to the instant of the first pending recipient.
func (m *message) due() (pending bool) {
	for i := range m.rcpts {
		r := &m.rcpts[i]
		if r.pending() && (!pending || r.next < m.next) {
			m.next, pending = r.next, true
		}
	}
	return pending
}

// open counts the recipients that were not delivered, and those that were refused.
func (m *message) open() (pending, refused int) {
	for i := range m.rcpts {
		switch m.rcpts[i].outcome {
		case smtp.Deferred:
			pending++
		case smtp.Refused:
			refused++
		case smtp.Delivered:
		}
	}
	return pending, refused
}

// record applies one answer to a recipient.
func (m *message) record(res smtp.Result, at time.Time, next int64) unique.Handle[reply] {
	r := &m.rcpts[res.Recipient]
	answer := makeReply(res)
	r.last, r.at, r.outcome = answer, at.UnixNano(), res.Outcome
	r.attempts++
	if res.Outcome == smtp.Deferred {
		r.next = next
	}
	if len(m.history) == maxHistory {
		copy(m.history, m.history[1:])
		m.history = m.history[:maxHistory-1]
	}
	m.history = append(m.history, attempt{at.UnixNano(), answer, uint32(res.Recipient), res.Outcome})
	return answer
}

// settle derives the phase from the recipients after answers were recorded. It
// reports true where every recipient was delivered.
func (m *message) settle() (done bool) {
	pending := m.due()
	if pending {
		return false
	}
	if _, refused := m.open(); refused == 0 {
		return true
	}
	if m.phase == phaseQueued {
		m.phase = phaseRefused
	}
	return false
}

// restart makes every recipient that was not delivered due at instant; fresh also
// forgets how often it was tried.
func (m *message) restart(instant int64, fresh bool) {
	for i := range m.rcpts {
		r := &m.rcpts[i]
		if r.outcome == smtp.Delivered {
			continue
		}
		r.outcome, r.next = smtp.Deferred, instant
		if fresh {
			r.attempts = 0
		}
	}
	m.due()
}

// lastError is the newest answer that was not a delivery.
func (m *message) lastError() (reply, bool) {
	var newest *rcpt
	for i := range m.rcpts {
		r := &m.rcpts[i]
		if r.outcome != smtp.Delivered && r.last != (unique.Handle[reply]{}) && (newest == nil || r.at > newest.at) {
			newest = r
		}
	}
	if newest == nil {
		return reply{}, false
	}
	return newest.last.Value(), true
}

func (m *message) summary(c clock, nextHop string) Summary {
	s := Summary{
		ID: m.id.String(), Sender: m.sender, SizeBytes: m.size, State: m.state(), Reason: m.reason,
		Received: time.Unix(0, m.received).UTC(), NextHop: nextHop,
		Recipients: make([]RecipientStatus, len(m.rcpts)),
	}
	if m.route != nil && m.route.name != "" {
		s.NextHop = m.route.name
	}
	for i := range m.rcpts {
		s.Recipients[i] = m.status(i, c)
		s.Attempts = max(s.Attempts, int(m.rcpts[i].attempts))
	}
	if m.phase == phaseQueued {
		s.NextAttempt = m.wall(m.next, c)
	}
	if r, ok := m.lastError(); ok {
		s.LastError = r.String()
	}
	return s
}

// wall is when an instant is; what is long due was due at receipt.
func (m *message) wall(instant int64, c clock) time.Time {
	if instant == 0 {
		return time.Unix(0, m.received).UTC()
	}
	return c.wall(instant).UTC()
}

func (m *message) status(i int, c clock) RecipientStatus {
	r := &m.rcpts[i]
	s := RecipientStatus{Address: r.addr.Value(), Attempts: int(r.attempts)}
	switch r.outcome {
	case smtp.Deferred:
		s.State = RecipientPending
		if m.phase == phaseQueued {
			s.NextAttempt = m.wall(r.next, c)
		}
	case smtp.Delivered:
		s.State = RecipientDelivered
	case smtp.Refused:
		s.State = RecipientRefused
	}
	if r.last != (unique.Handle[reply]{}) {
		v := r.last.Value()
		s.Code, s.Enhanced, s.Text, s.Relay = v.code, v.enhanced, v.text, v.relay
		s.At = time.Unix(0, r.at).UTC()
	}
	return s
}

// attempts is the history for people.
func (m *message) attempts() []Attempt {
	out := make([]Attempt, len(m.history))
	for i, h := range m.history {
		v := h.reply.Value()
		out[i] = Attempt{
			At: time.Unix(0, h.at).UTC(), Status: statusWord(h.outcome),
			Code: v.code, Enhanced: v.enhanced, Text: v.text, Relay: v.relay, TLS: v.tls,
		}
		if int(h.rcpt) < len(m.rcpts) {
			out[i].Recipient = m.rcpts[h.rcpt].addr.Value()
		}
	}
	return out
}

// statusWord is Postfix's word for an outcome, with "refused" for what Postfix
// bounces.
func statusWord(o smtp.Outcome) string {
	switch o {
	case smtp.Delivered:
		return "sent"
	case smtp.Refused:
		return "refused"
	case smtp.Deferred:
	}
	return "deferred"
}

// newMessage is a message as it is accepted.
func newMessage(id ident, env *smtp.Envelope, now int64) *message {
	m := &message{
		id: id, size: env.SizeBytes, received: env.Received.UnixNano(), since: env.Received.UnixNano(),
		sender: strings.Clone(env.Sender), rcpts: make([]rcpt, len(env.Recipients)), place: -1, next: now,
	}
	for i := range env.Recipients {
		m.rcpts[i] = rcpt{addr: unique.Make(env.Recipients[i].Address), next: now}
	}
	return m
}
