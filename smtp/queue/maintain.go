package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
)

// maintain keeps the spool in order until ctx ends.
func (s *Spool) maintain(ctx context.Context) {
	watch := time.NewTicker(time.Second)
	defer watch.Stop()
	work := time.NewTicker(s.interval())
	defer work.Stop()
	s.housekeep(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch.C:
			s.watchSpace()
		case <-work.C:
			s.housekeep(ctx)
		}
	}
}

// interval is the time between two rounds of housekeeping.
func (s *Spool) interval() time.Duration {
	return min(max(s.cfg.EraseAfter/32, time.Second), time.Minute)
}

// watchSpace raises or clears the alarm about the file system.
func (s *Spool) watchSpace() {
	s.space.measure()
	if s.space.room(0) {
		s.alarms.Clear("queue:space")
		return
	}
	s.alarms.Raise("queue:space", fmt.Sprintf("the spool's file system has %d MiB left, the reserve is %d MiB: new mail is answered 452",
		s.space.last.Load()>>20, s.cfg.ReserveBytes>>20))
}

// housekeep does what needs doing now. The next round repeats what failed; the
// other steps go on meanwhile: one that finds no space must not keep another from
// freeing some.
func (s *Spool) housekeep(ctx context.Context) {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"expire", s.expire},
		{"erase spill files", s.eraseSpills},
		{"compact", s.compact},
		{"remove segments", s.erase},
		{"checkpoint", s.checkpointIfDue},
	} {
		err := step.do(ctx)
		if ctx.Err() != nil || errors.Is(err, durable.ErrClosed) {
			return
		}
		if err != nil {
			s.logger.Warn("housekeeping of the spool failed, it is tried again", "step", step.name, "err", err)
		}
	}
}

const expiredReason = "its lifetime has ended without delivery"

// lifetime is how long m is tried: the longest of its open recipients' domains.
func (s *Spool) lifetime(m *message) time.Duration {
	if len(s.cfg.DomainLifetimes) == 0 {
		return s.cfg.Lifetime
	}
	longest := time.Duration(0)
	for i := range m.rcpts {
		if m.rcpts[i].outcome == smtp.Delivered {
			continue
		}
		longest = max(longest, s.domainLifetime(strings.ToLower(domainOf(m.rcpts[i].addr.Value()))))
	}
	return longest
}

// domainLifetime is the lifetime of mail for a domain in lower case.
func (s *Spool) domainLifetime(domain string) time.Duration {
	if d, ok := s.cfg.DomainLifetimes[domain]; ok {
		return d
	}
	return s.cfg.Lifetime
}

func (s *Spool) expired(m *message, now time.Time) bool {
	return now.Sub(time.Unix(0, m.since)) > s.lifetime(m)
}

// expire holds queued messages whose lifetime has ended, and removes refused ones
// where that is configured.
func (s *Spool) expire(ctx context.Context) error {
	now := time.Now()
	var old, refused []*message
	n := 0
	s.mu.Lock()
	for _, m := range s.messages {
		switch {
		case m.phase == phaseQueued && !m.loaned && s.expired(m, now):
			old = append(old, m)
		case m.phase == phaseRefused && s.cfg.RefusedExpiry > 0 && now.Sub(m.newest()) > s.cfg.RefusedExpiry:
			refused = append(refused, m)
		}
		if n++; n%scanPause == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	var states, tombs []byte
	var held, gone []string
	for _, m := range old {
		if m.gone || m.phase != phaseQueued || m.loaned || len(held) == applyChunk || len(states) > applyBytes {
			continue
		}
		s.setHeld(m, causeExpired, expiredReason)
		states = appendStates(states, m, s.clock)
		held = append(held, m.id.String())
	}
	for _, m := range refused {
		if m.gone || m.phase != phaseRefused || len(gone) == applyChunk {
			continue
		}
		tombs = append(tombs, s.remove(m, now)...)
		gone = append(gone, m.id.String())
	}
	s.mu.Unlock()
	for _, id := range held {
		s.logger.Warn("message held", "queue_id", id, "reason", expiredReason)
		s.watchers.send(Event{Time: now, Kind: EventHeld, ID: id, Text: expiredReason})
	}
	for _, id := range gone {
		s.logger.Info("removed", "queue_id", id, "by", "refused_expiry")
		s.watchers.send(Event{Time: now, Kind: EventDeleted, ID: id, Text: "refused_expiry"})
	}
	s.raiseCounts()
	return errors.Join(s.persist(ctx, kindState, states), s.persist(ctx, kindRemoved, tombs))
}

// newest is the time of the last answer.
func (m *message) newest() time.Time {
	at := m.received
	for i := range m.rcpts {
		at = max(at, m.rcpts[i].at)
	}
	return time.Unix(0, at)
}

// raiseCounts raises and clears the alarms that depend on how many messages wait
// for a person.
func (s *Spool) raiseCounts() {
	s.mu.Lock()
	t := s.totals
	s.mu.Unlock()
	say := func(key string, n int, text string) {
		if n == 0 {
			s.alarms.Clear(key)
			return
		}
		s.alarms.Raise(key, fmt.Sprintf(text, n))
	}
	say("queue:refused", t.messages[stateIndex(Refused)], "%d messages were refused by the next hop and are kept")
	say("queue:damaged", t.causes[causeDamaged], "%d messages in the spool are damaged and held")
	say("queue:expired", t.causes[causeExpired], "%d messages could not be delivered in their lifetime and are held")
}

// eraseSpills removes the spill files of messages that have left the queue, after
// their tombstones are on disk.
func (s *Spool) eraseSpills(ctx context.Context) error {
	s.mu.Lock()
	doomed := s.doomed
	s.doomed = nil
	s.mu.Unlock()
	if len(doomed) == 0 {
		return nil
	}
	err := s.eraseFiles(ctx, doomed)
	if err != nil {
		s.mu.Lock()
		s.doomed = append(s.doomed, doomed...)
		s.mu.Unlock()
	}
	return err
}

func (s *Spool) eraseFiles(ctx context.Context, doomed []tomb) error {
	now := time.Now()
	for chunk := range slices.Chunk(doomed, applyChunk) {
		var payload []byte
		for _, d := range chunk {
			payload = appendTombstone(payload, d.id, d.gen, now)
		}
		// The lazy tombstones may still be on their way: this one is synced.
		if _, err := s.log.Append(ctx, kindRemoved, payload); err != nil {
			return err
		}
		for _, d := range chunk {
			if err := ignoreMissing(s.fs.Remove(s.spillPath(d.name))); err != nil {
				return err
			}
		}
	}
	return s.fs.SyncDir(s.spillDir())
}

// checkpointTail is how much log may follow a checkpoint before the next, in
// bytes, at least; a big index is written less often.
const checkpointTail = 256 << 20

func (s *Spool) checkpointIfDue(ctx context.Context) error {
	tail := int64(0)
	for _, g := range s.log.Segments() {
		switch {
		case g.ID > s.checkpoint.pos.Segment:
			tail += g.UsedBytes
		case g.ID == s.checkpoint.pos.Segment:
			tail += g.UsedBytes - s.checkpoint.pos.Offset
		}
	}
	dirty := s.dirty.Swap(false)
	if !dirty && !s.checkpoint.stale && tail < max(checkpointTail, 4*s.checkpoint.bytes) {
		return nil
	}
	err := s.writeCheckpoint(ctx)
	if err != nil && dirty {
		s.dirty.Store(true)
	}
	return err
}
