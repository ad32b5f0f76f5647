package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
)

// Take waits until a message of route is due and lends out at most limit of
// them, first due first, oldest first among equals. Route "" is where the view
// points; other routes are set by Requeue. It returns no message only with ctx's
// error. A message on loan is not lent again before Done; a crash ends the loan.
func (s *Spool) Take(ctx context.Context, route string, limit int) ([]smtp.Delivery, error) {
	if limit < 1 {
		return nil, fmt.Errorf("take %d messages", limit)
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		r := s.routes[route]
		if r == nil {
			changed := s.changed
			s.mu.Unlock()
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-changed:
			}
			continue
		}
		now := s.clock.now()
		loans, next, more := r.due(now, limit)
		for _, m := range loans {
			s.totals.add(m, -1)
			m.loaned = true
			s.totals.add(m, 1)
		}
		if more && next <= now {
			// Another taker may sleep while there is work.
			r.signal()
		}
		changed := s.changed
		s.mu.Unlock()
		out := make([]smtp.Delivery, 0, len(loans))
		for _, m := range loans {
			if d := s.lend(m, now); d != nil {
				out = append(out, d)
			}
		}
		if len(out) > 0 {
			return out, nil
		}
		if len(loans) > 0 {
			continue // all of them were unreadable
		}
		if err := r.wait(ctx, s.clock, next, more, changed); err != nil {
			return nil, err
		}
	}
}

// smallRecord is how long a record may be to be read whole, and kept, when it is
// lent, in bytes.
const smallRecord = 64 << 10

// lend makes the delivery of a message on loan; nil where its envelope cannot be
// read, and it is held then.
func (s *Spool) lend(m *message, now int64) smtp.Delivery {
	d := &delivery{s: s, m: m, taken: time.Now()}
	s.mu.Lock()
	small := m.disk <= smallRecord // compaction may be moving it
	s.mu.Unlock()
	var err error
	if small {
		d.payload, err = s.readMessage(m)
		if err == nil {
			d.env, err = envelopeOf(d.payload)
		}
	} else {
		d.env, err = s.readEnvelope(m)
	}
	if err != nil {
		s.mu.Lock()
		m.settleLoan(s)
		s.mu.Unlock()
		s.damaged(m, err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range m.rcpts {
		if m.rcpts[i].pending() && m.rcpts[i].next <= now {
			d.pending = append(d.pending, i)
		}
	}
	return d
}

// position is where the record of m is now: compaction moves it.
func (s *Spool) position(m *message) durable.Pos {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.pos
}

// readMessage reads and verifies the record of m.
func (s *Spool) readMessage(m *message) ([]byte, error) {
	for {
		pos := s.position(m)
		rec, err := s.log.Read(pos)
		if err != nil {
			if pos != s.position(m) {
				continue
			}
			return nil, fmt.Errorf("read %s: %w", m.id, err)
		}
		p, err := parsePrefix(rec.Payload, int64(len(rec.Payload)))
		if err != nil || p.id != m.id || rec.Kind != kindMessage {
			return nil, fmt.Errorf("read %s: %w: not the record of this message", m.id, ErrDamaged)
		}
		return rec.Payload, nil
	}
}

func envelopeOf(payload []byte) (*smtp.Envelope, error) {
	_, _, text, _, err := parts(payload)
	if err != nil {
		return nil, err
	}
	env := &smtp.Envelope{}
	if err := json.Unmarshal(text, env); err != nil {
		return nil, fmt.Errorf("%w: envelope: %w", ErrDamaged, err)
	}
	return env, nil
}

func (s *Spool) readEnvelope(m *message) (*smtp.Envelope, error) {
	payload, err := s.readMessage(m)
	if err != nil {
		return nil, err
	}
	return envelopeOf(payload)
}

// passing reports whether err says something about the machine at this moment, and
// nothing about the bytes.
func passing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// damaged holds a message whose bytes cannot be read; a loan goes on. A closed log
// is not damage, and neither are the missing bytes of a message that has left.
func (s *Spool) damaged(m *message, err error) {
	if s.closed.Load() {
		return
	}
	s.mu.Lock()
	if m.gone {
		s.mu.Unlock()
		return
	}
	if m.phase != phaseHeld {
		s.segment(m.pos.Segment).keep = true
		s.setHeld(m, causeDamaged, err.Error())
		s.log.AppendLazy(kindState, appendStates(nil, m, s.clock))
	}
	s.mu.Unlock()
	s.logger.Error("message is damaged", "queue_id", m.id.String(), "err", err)
	s.raiseCounts()
}

// settleLoan ends a loan. Spool.mu is held.
func (m *message) settleLoan(s *Spool) {
	if !m.loaned {
		return
	}
	if m.gone {
		m.loaned = false
		return
	}
	s.totals.add(m, -1)
	m.loaned = false
	s.totals.add(m, 1)
}

// setHeld holds m. The caller logs the state. Spool.mu is held.
func (s *Spool) setHeld(m *message, why cause, reason string) {
	s.totals.add(m, -1)
	m.phase, m.cause, m.reason = phaseHeld, why, reason
	m.gen++
	s.totals.add(m, 1)
	s.arrange(m)
}

// open returns the stored bytes of a message, given its record.
func (s *Spool) openBody(m *message, payload []byte) (io.ReadCloser, error) {
	p, _, _, inline, err := parts(payload)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", m.id, err)
	}
	if p.flags&flagSpill == 0 {
		return io.NopCloser(bytes.NewReader(inline)), nil
	}
	f, err := s.fs.OpenFile(s.spillPath(p.spill.name), os.O_RDONLY, 0)
	if passing(err) {
		return nil, fmt.Errorf("open %s: %w", m.id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: %w", m.id, ErrDamaged, err)
	}
	return &spillReader{f: f, header: inline, ref: p.spill, failed: func(err error) { s.damaged(m, err) }}, nil
}

// spillReader reads a header and a spill file. It gives the last bytes away only
// when the checksum of all is right: a reader that was cut short knows that the
// message is not whole.
type spillReader struct {
	f      durable.File
	header []byte
	ref    spill
	off    int64
	crc    uint32
	failed func(error)
}

func (r *spillReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.header) > 0 {
		n := copy(p, r.header)
		r.header = r.header[n:]
		return n, nil
	}
	left := r.ref.size - r.off
	if left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), left)]
	n, err := r.f.ReadAt(p, r.off)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		err = fmt.Errorf("%w: spill file %s: %w", ErrDamaged, r.ref.name, err)
		r.failed(err)
		return 0, err
	}
	r.crc = crc32.Update(r.crc, castagnoli(), p)
	r.off += int64(n)
	if r.off == r.ref.size && r.crc != r.ref.crc {
		err = fmt.Errorf("%w: spill file %s: checksum", ErrDamaged, r.ref.name)
		r.failed(err)
		return 0, err
	}
	return n, nil
}

func (r *spillReader) Close() error { return r.f.Close() }

// delivery is a message on loan.
type delivery struct {
	s       *Spool
	m       *message
	env     *smtp.Envelope
	pending []int
	payload []byte // of small records
	taken   time.Time
	once    sync.Once
}

var _ smtp.Delivery = (*delivery)(nil)

func (d *delivery) Envelope() *smtp.Envelope { return d.env }

func (d *delivery) Pending() []int { return d.pending }

func (d *delivery) Open(ctx context.Context) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	payload := d.payload
	var err error
	if payload == nil {
		payload, err = d.s.readMessage(d.m)
	}
	var body io.ReadCloser
	if err == nil {
		body, err = d.s.openBody(d.m, payload)
	}
	if err != nil {
		if !passing(err) {
			d.s.damaged(d.m, err)
		}
		return nil, 0, err
	}
	return body, d.m.size, nil
}

// Done implements smtp.Delivery.
func (d *delivery) Done(results []smtp.Result) {
	d.once.Do(func() { d.s.finish(d, results) })
}

// finish ends a loan with what the next hop said.
func (s *Spool) finish(d *delivery, results []smtp.Result) {
	m, now := d.m, time.Now()
	lines := make([]deliveryLine, 0, len(results))
	s.mu.Lock()
	m.settleLoan(s)
	if m.gone {
		for _, res := range results {
			if res.Recipient >= 0 && res.Recipient < len(m.rcpts) {
				lines = append(lines, deliveryLine{res.Recipient, res.Outcome, makeReply(res).Value()})
			}
		}
		s.mu.Unlock()
		s.report(d, lines, false, now)
		return
	}
	s.totals.add(m, -1)
	instant := s.clock.now()
	answered := false
	for _, res := range results {
		if res.Recipient < 0 || res.Recipient >= len(m.rcpts) || !m.rcpts[res.Recipient].pending() {
			continue
		}
		if res.Outcome > smtp.Refused {
			res.Outcome = smtp.Deferred
		}
		at := res.At
		if at.IsZero() {
			at = now
		}
		wait := s.schedule.Wait(int(m.rcpts[res.Recipient].attempts)+1, rand.Float64())
		answer := m.record(res, at, instant+int64(wait))
		lines = append(lines, deliveryLine{res.Recipient, res.Outcome, answer.Value()})
		answered = true
	}
	removed := answered && m.settle()
	if answered {
		m.gen++
	}
	s.totals.add(m, 1)
	switch {
	case removed:
		s.log.AppendLazy(kindRemoved, s.remove(m, now))
	case answered:
		if m.phase == phaseQueued && s.expired(m, now) {
			s.setHeld(m, causeExpired, expiredReason)
		}
		s.log.AppendLazy(kindState, appendStates(nil, m, s.clock))
		s.arrange(m)
	default:
		s.arrange(m)
	}
	expired := m.cause == causeExpired
	s.mu.Unlock()
	s.report(d, lines, removed, now)
	if expired && answered {
		s.raiseCounts()
	}
}

// deliveryLine is one result, for the log.
type deliveryLine struct {
	rcpt    int
	outcome smtp.Outcome
	reply   reply
}

// report writes what happened to the log, the metrics and the watchers.
func (s *Spool) report(d *delivery, lines []deliveryLine, removed bool, now time.Time) {
	m := d.m
	received := time.Unix(0, m.received)
	delay := max(now.Sub(received), 0)
	inQueue, active := max(d.taken.Sub(received), 0), max(now.Sub(d.taken), 0)
	id := m.id.String()
	refused := false
	for _, l := range lines {
		addr := m.rcpts[l.rcpt].addr.Value()
		s.metrics.attempted(l.outcome, delay)
		refused = refused || l.outcome == smtp.Refused
		relay := l.reply.relay
		if relay == "" {
			relay = "none"
		}
		s.logger.Info("delivery", "queue_id", id, "from", m.sender, "to", addr, "relay", relay,
			"delay", delay.Seconds(), "delays", fmt.Sprintf("0/%.2g/0/%.2g", inQueue.Seconds(), active.Seconds()),
			"dsn", dsn(l), "status", statusWord(l.outcome), "reply", l.reply.String())
		if s.watchers.any() {
			s.watchers.send(Event{
				Time: now, Kind: eventKind(l.outcome), ID: id, Sender: m.sender, Recipient: addr, SizeBytes: m.size,
				Code: l.reply.code, Enhanced: l.reply.enhanced, Text: l.reply.text, Relay: l.reply.relay, Delay: delay,
			})
		}
	}
	if removed {
		s.metrics.removed()
		s.logger.Info("removed", "queue_id", id)
		s.watchers.send(Event{Time: now, Kind: EventRemoved, ID: id, Sender: m.sender, SizeBytes: m.size, Delay: delay})
	}
	if refused {
		s.raiseCounts()
	}
}

// dsn is the status code of RFC 3463 that a result stands for.
func dsn(l deliveryLine) string {
	if l.reply.enhanced != "" {
		return l.reply.enhanced
	}
	switch l.outcome {
	case smtp.Delivered:
		return "2.0.0"
	case smtp.Refused:
		return "5.0.0"
	case smtp.Deferred:
	}
	return "4.0.0"
}

func eventKind(o smtp.Outcome) Kind {
	switch o {
	case smtp.Delivered:
		return EventDelivered
	case smtp.Refused:
		return EventRefused
	case smtp.Deferred:
	}
	return EventDeferred
}
