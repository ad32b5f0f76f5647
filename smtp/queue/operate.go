package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"understudy/smtp"
)

// Bouncer writes delivery status notifications.
type Bouncer interface {
	// Bounce tells the sender of env that the recipients (those not delivered) have
	// failed. Nil: the notification is durably queued or must not be written (null
	// sender, NOTIFY=NEVER), and the message may be removed. An error: the message
	// stays. It may be called again for the same message.
	Bounce(ctx context.Context, env *smtp.Envelope, recipients []RecipientStatus, body io.Reader) error
}

// List returns the selected messages, oldest first.
func (s *Spool) List(ctx context.Context, sel Selection) ([]Summary, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := s.find(sel)
	hop := s.nextHop()
	out := make([]Summary, 0, len(found))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range found {
		if !m.gone {
			out = append(out, m.summary(s.clock, hop))
		}
		if i%scanPause == scanPause-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	return out, nil
}

// lookup finds a message by the text of its id.
func (s *Spool) lookup(text string) (*message, error) {
	id, ok := parseIdent(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[id]; ok && m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("%s: %w", text, ErrNotFound)
}

// Show returns all about one message. ErrNotFound.
func (s *Spool) Show(ctx context.Context, id string) (Detail, error) {
	if err := ctx.Err(); err != nil {
		return Detail{}, err
	}
	m, err := s.lookup(id)
	if err != nil {
		return Detail{}, err
	}
	env, err := s.readEnvelope(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.gone {
		return Detail{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		// What the index knows is better than nothing.
		return Detail{Summary: m.summary(s.clock, s.nextHop()), History: m.attempts()}, nil
	}
	return Detail{Summary: m.summary(s.clock, s.nextHop()), Envelope: env, History: m.attempts()}, nil
}

// Body returns the stored bytes of one message; the access is logged. ErrNotFound,
// ErrBodyAccess.
func (s *Spool) Body(ctx context.Context, id string) (io.ReadCloser, error) {
	if !s.cfg.AllowBodyAccess {
		return nil, ErrBodyAccess
	}
	m, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	body, err := s.read(ctx, m)
	if err != nil {
		return nil, err
	}
	s.logger.Info("body read by an operator", "queue_id", m.id.String(), "from", m.sender)
	return body, nil
}

// Message opens a message for another part of the daemon: its envelope, its
// recipients as they stand, and its bytes, which the caller closes. It asks nobody
// for permission and logs nothing; operators use Body. ErrNotFound, ErrDamaged.
func (s *Spool) Message(ctx context.Context, id string) (*smtp.Envelope, []RecipientStatus, io.ReadCloser, error) {
	m, err := s.lookup(id)
	if err != nil {
		return nil, nil, nil, err
	}
	payload, err := s.payload(ctx, m)
	if err != nil {
		return nil, nil, nil, err
	}
	env, err := envelopeOf(payload)
	if err != nil {
		return nil, nil, nil, err
	}
	body, err := s.openBody(m, payload)
	if err != nil {
		return nil, nil, nil, err
	}
	s.mu.Lock()
	recipients := m.summary(s.clock, "").Recipients
	s.mu.Unlock()
	return env, recipients, body, nil
}

// GivesUp returns when a message received at that time has had its lifetime, for
// the recipient domains of env.
func (s *Spool) GivesUp(env *smtp.Envelope) time.Time {
	longest := time.Duration(0)
	for _, rc := range env.Recipients {
		longest = max(longest, s.domainLifetime(smtp.Domain(rc.Address)))
	}
	return env.Received.Add(longest)
}

// read opens the stored bytes of a message.
func (s *Spool) read(ctx context.Context, m *message) (io.ReadCloser, error) {
	payload, err := s.payload(ctx, m)
	if err != nil {
		return nil, err
	}
	return s.openBody(m, payload)
}

// payload reads the record of a message for an operator. ErrNotFound where the
// message has left the queue.
func (s *Spool) payload(ctx context.Context, m *message) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	payload, err := s.readMessage(m)
	if err == nil {
		return payload, nil
	}
	s.mu.Lock()
	gone := m.gone
	s.mu.Unlock()
	if gone {
		return nil, fmt.Errorf("%s: %w", m.id, ErrNotFound)
	}
	return nil, err
}

// applyChunk is how many messages change in one record of the log, and
// applyBytes is about how large it may become.
const (
	applyChunk = 1000
	applyBytes = 64 << 10
)

// Apply does action to the selected messages. Nil promises that the change is on
// disk. After an error Change lists what is on disk; the rest is in force too and
// will be on disk as soon as the disk takes it.
func (s *Spool) Apply(ctx context.Context, action Action, sel Selection, opt ApplyOptions) (Change, error) {
	switch action {
	case Hold, Release, Flush, Delete, Requeue:
	case Bounce:
		if s.bouncer == nil {
			return Change{}, errors.New("bounce: no notifications are configured")
		}
	default:
		return Change{}, fmt.Errorf("unknown action %q", action)
	}
	change := Change{IDs: []string{}}
	named := len(sel.IDs) > 0
	found := s.find(sel)
	if named {
		s.skipMissing(&change, sel, found)
	}
	for len(found) > 0 {
		if err := ctx.Err(); err != nil {
			return change, err
		}
		chunk := found[:min(len(found), applyChunk)]
		n, err := len(chunk), error(nil)
		if action == Bounce {
			err = s.bounce(ctx, chunk, opt, &change)
		} else {
			n, err = s.applyTo(ctx, action, chunk, opt, named, &change)
		}
		if err != nil {
			return change, err
		}
		found = found[n:]
	}
	if !opt.DryRun {
		s.logger.Info("queue changed by an operator", "action", string(action), "messages", change.Count,
			"reason", opt.Reason, "next_hop", opt.To)
		s.raiseCounts()
	}
	return change, nil
}

func (c *Change) skip(id, why string) {
	if c.Skipped == nil {
		c.Skipped = make(map[string]string)
	}
	c.Skipped[id] = why
}

func (c *Change) done(id string) {
	c.IDs = append(c.IDs, id)
	c.Count++
}

// skipMissing names the ids that select nothing.
func (s *Spool) skipMissing(change *Change, sel Selection, found []*message) {
	have := make(map[ident]bool, len(found))
	for _, m := range found {
		have[m.id] = true
	}
	for _, text := range sel.IDs {
		id, ok := parseIdent(text)
		if ok && have[id] {
			continue
		}
		s.mu.Lock()
		_, exists := s.messages[id]
		s.mu.Unlock()
		if ok && exists {
			change.skip(text, "does not match the selection")
		} else {
			change.skip(text, ErrNotFound.Error())
		}
	}
}

// verdict is what an action does to one message.
type verdict uint8

const (
	// applies: it changes.
	applies verdict = iota
	// already: it is as wanted.
	already
	// unfit: the action is not for such a message.
	unfit
)

// fits says what action does to m, and why not. Spool.mu is held.
func (m *message) fits(action Action, opt ApplyOptions) (verdict, string) {
	switch action {
	case Hold:
		if m.phase == phaseHeld {
			return already, ""
		}
		if m.phase == phaseRefused {
			return unfit, "it is refused and not being delivered"
		}
	case Release:
		if m.phase == phaseQueued {
			return unfit, "it is neither held nor refused"
		}
	case Flush:
		if m.phase != phaseQueued {
			return unfit, "it is " + string(m.state()) + ": release it"
		}
		if m.loaned {
			return already, ""
		}
	case Requeue:
		if m.loaned && m.route.name != opt.To {
			return unfit, "it is being delivered at this moment"
		}
	case Delete, Bounce:
	}
	return applies, ""
}

// applyTo changes the first of some messages in memory, then on disk, and returns
// how many it has looked at.
func (s *Spool) applyTo(ctx context.Context, action Action, chunk []*message, opt ApplyOptions, named bool, change *Change) (int, error) {
	kind := kindState
	if action == Delete {
		kind = kindRemoved
	}
	var payload []byte
	var ids []string
	var events []Event
	now := time.Now()
	watched := s.watchers.any()
	seen := 0
	s.mu.Lock()
	for _, m := range chunk {
		if len(payload) > applyBytes {
			break
		}
		seen++
		if m.gone {
			if named {
				change.skip(m.id.String(), ErrNotFound.Error())
			}
			continue
		}
		v, why := m.fits(action, opt)
		if v == unfit {
			if named {
				change.skip(m.id.String(), why)
			}
			continue
		}
		ids = append(ids, m.id.String())
		if v == already || opt.DryRun {
			continue
		}
		if action == Delete {
			payload = append(payload, s.remove(m, now)...)
		} else {
			s.change(m, action, opt)
			payload = appendStates(payload, m, s.clock)
		}
		if watched {
			events = append(events, Event{
				Time: now, Kind: actionEvent(action), ID: m.id.String(), Sender: m.sender,
				SizeBytes: m.size, Text: opt.Reason, Delay: max(now.Sub(time.Unix(0, m.received)), 0),
			})
		}
	}
	s.mu.Unlock()
	if err := s.persist(ctx, kind, payload); err != nil {
		return seen, fmt.Errorf("%s: %w", action, err)
	}
	for _, id := range ids {
		change.done(id)
		if action == Delete && !opt.DryRun {
			s.logger.Info("removed", "queue_id", id, "by", "operator", "reason", opt.Reason)
		}
	}
	for _, e := range events {
		s.watchers.send(e)
	}
	return seen, nil
}

// persist appends a record whose content is in force already. Where that fails,
// it goes to the log as soon as the disk takes it.
func (s *Spool) persist(ctx context.Context, kind byte, payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	_, err := s.log.Append(ctx, kind, payload)
	if err != nil {
		s.log.AppendLazy(kind, payload)
		return fmt.Errorf("store the change: %w", err)
	}
	return nil
}

// change does action to m in memory. Spool.mu is held.
func (s *Spool) change(m *message, action Action, opt ApplyOptions) {
	if action == Hold {
		s.setHeld(m, causeOperator, opt.Reason)
		return
	}
	s.totals.add(m, -1)
	now := s.clock.now()
	switch action {
	case Release, Requeue:
		m.phase, m.cause, m.reason = phaseQueued, causeNone, ""
		m.since = time.Now().UnixNano()
		m.restart(now, action == Requeue)
		if action == Requeue && m.route.name != opt.To {
			s.leave(m)
			s.join(m, opt.To)
		}
	case Flush:
		for i := range m.rcpts {
			if r := &m.rcpts[i]; r.pending() {
				r.next = min(r.next, now)
			}
		}
		m.due()
	case Hold, Delete, Bounce:
	}
	m.gen++
	s.totals.add(m, 1)
	s.arrange(m)
}

func actionEvent(a Action) Kind {
	switch a {
	case Hold:
		return EventHeld
	case Release:
		return EventReleased
	case Flush:
		return EventFlushed
	case Requeue:
		return EventRequeued
	case Bounce:
		return EventBounced
	case Delete:
	}
	return EventDeleted
}

// bounce gives messages to the bouncer, one by one, and removes those it took.
func (s *Spool) bounce(ctx context.Context, chunk []*message, opt ApplyOptions, change *Change) error {
	for _, m := range chunk {
		id := m.id.String()
		why := s.claim(m)
		if why != "" {
			change.skip(id, why)
			continue
		}
		if opt.DryRun {
			s.unclaim(m)
			change.done(id)
			continue
		}
		if err := s.bounceOne(ctx, m); err != nil {
			s.unclaim(m)
			change.skip(id, err.Error())
			continue
		}
		now := time.Now()
		s.mu.Lock()
		m.settleLoan(s)
		payload := []byte(nil)
		if !m.gone {
			payload = s.remove(m, now)
		}
		s.mu.Unlock()
		if err := s.persist(ctx, kindRemoved, payload); err != nil {
			return fmt.Errorf("bounce: %w", err)
		}
		change.done(id)
		s.logger.Info("removed", "queue_id", id, "by", "bounce", "reason", opt.Reason)
		s.watchers.send(Event{Time: now, Kind: EventBounced, ID: id, Sender: m.sender, SizeBytes: m.size, Text: opt.Reason})
	}
	return nil
}

// claim takes a message on loan for an operator, so that the relay does not
// deliver it meanwhile.
func (s *Spool) claim(m *message) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.gone:
		return ErrNotFound.Error()
	case m.loaned:
		return "it is being delivered at this moment"
	}
	s.totals.add(m, -1)
	m.loaned = true
	s.totals.add(m, 1)
	s.arrange(m)
	return ""
}

func (s *Spool) unclaim(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.settleLoan(s)
	if !m.gone {
		s.arrange(m)
	}
}

func (s *Spool) bounceOne(ctx context.Context, m *message) error {
	env, err := s.readEnvelope(m)
	if err != nil {
		return err
	}
	var open []RecipientStatus
	s.mu.Lock()
	for i := range m.rcpts {
		if m.rcpts[i].outcome != smtp.Delivered {
			open = append(open, m.status(i, s.clock))
		}
	}
	s.mu.Unlock()
	body, err := s.read(ctx, m)
	if err != nil {
		return err
	}
	return errors.Join(s.bouncer.Bounce(ctx, env, open, body), body.Close())
}
