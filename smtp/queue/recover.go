package queue

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"understudy/internal/durable"
)

func (s *Spool) logDir() string { return filepath.Join(s.cfg.Dir, "log") }

// recover builds the index from the newest good checkpoint and the log behind it.
func (s *Spool) recover() error {
	start := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routeNamed("")
	s.loadCheckpoint()
	indexed := len(s.messages)
	r := replay{s: s, dead: make(map[ident]uint64)}
	report, err := s.log.Replay(s.checkpoint.pos, r.apply)
	if err != nil {
		return err
	}
	// What was removed during the replay has its tombstone on disk, but perhaps not
	// synced: its files are orphans until the next checkpoint.
	s.doomed = nil
	lost := s.checkBytes()
	if err := s.findOrphans(len(report.Quarantined) > 0 || r.bad > 0); err != nil {
		return err
	}
	s.checkpoint.stale = report.Records > 0 || s.checkpoint.seq == 0
	s.logger.Info("spool recovered", "messages", len(s.messages), "from_checkpoint", indexed,
		"records", report.Records, "torn_bytes", report.TornBytes, "quarantined", len(report.Quarantined),
		"seconds", time.Since(start).Seconds())
	if n := len(report.Quarantined); n > 0 || r.bad > 0 || lost > 0 {
		var files []string
		for _, span := range report.Quarantined {
			files = append(files, span.File)
		}
		text := fmt.Sprintf("%d damaged spans (kept in %q) and %d unreadable records in the spool's log, %d messages without their bytes",
			n, files, r.bad, lost)
		s.logger.Error("spool is damaged", "err", text)
		s.alarms.Raise("queue:log", text)
	}
	return nil
}

// replay applies records to the index in the order of the log. Every change of a
// message carries a generation, and only a newer one is applied: records may come
// twice, or after a checkpoint that knows them already.
type replay struct {
	s    *Spool
	dead map[ident]uint64 // tombstones seen
	bad  int
}

func (r *replay) apply(rec durable.Record) error {
	var err error
	switch rec.Kind {
	case kindMessage:
		err = r.message(rec)
	case kindState:
		err = eachState(rec.Payload, r.state)
	case kindRemoved:
		err = eachTombstone(rec.Payload, r.removed)
	case kindRules:
		var rules []HoldRule
		if err = json.Unmarshal(rec.Payload, &rules); err == nil {
			r.s.rules.Store(&rules)
		}
	case kindMark:
	default:
		err = fmt.Errorf("%w: kind %d", errFormat, rec.Kind)
	}
	if err != nil {
		// The checksum is right, so this is a newer version's record or a bug. Go on,
		// and keep the segment.
		r.bad++
		r.s.segment(rec.Pos.Segment).keep = true
		r.s.logger.Error("record cannot be read", "segment", rec.Pos.Segment, "offset", rec.Pos.Offset, "err", err)
	}
	return nil
}

func (r *replay) message(rec durable.Record) error {
	s := r.s
	m, route, _, err := decodeMessage(rec.Payload, s.clock, s.cfg.RetryMax)
	if err != nil {
		return err
	}
	m.pos, m.disk = rec.Pos, rec.DiskBytes()
	if gen, ok := r.dead[m.id]; ok && gen > m.gen {
		s.segment(rec.Pos.Segment).deadSince = time.Now().UnixNano()
		return nil
	}
	old := s.messages[m.id]
	switch {
	case old == nil:
		s.insert(m, route)
	case old.pos == m.pos:
	default:
		// A copy made by compaction.
		s.vacate(old.pos, old.disk, time.Now().UnixNano())
		old.pos, old.disk = m.pos, m.disk
		s.occupy(old)
		if m.gen > old.gen {
			r.adopt(old, m, route)
		}
	}
	return nil
}

func (r *replay) state(id ident, b []byte) error {
	m := r.s.messages[id]
	if m == nil {
		return nil
	}
	next := message{rcpts: m.rcpts}
	route, err := next.decodeState(b, r.s.clock, r.s.cfg.RetryMax)
	if err != nil {
		return err
	}
	if next.gen > m.gen {
		r.adopt(m, &next, route)
	}
	return nil
}

// adopt gives m the durable state of from.
func (r *replay) adopt(m, from *message, route string) {
	s := r.s
	s.totals.add(m, -1)
	m.phase, m.cause, m.gen, m.since, m.reason = from.phase, from.cause, from.gen, from.since, from.reason
	m.rcpts, m.history, m.next = from.rcpts, from.history, from.next
	s.totals.add(m, 1)
	if m.route.name != route {
		s.leave(m)
		s.join(m, route)
	}
	s.arrange(m)
}

func (r *replay) removed(id ident, gen uint64, at time.Time) {
	r.dead[id] = max(r.dead[id], gen)
	if m := r.s.messages[id]; m != nil && gen > m.gen {
		r.s.remove(m, at)
	}
}

// checkBytes holds the messages whose segment or spill file is missing, and counts
// them. Spool.mu is held.
func (s *Spool) checkBytes() (lost int) {
	have := make(map[uint64]bool)
	for _, g := range s.log.Segments() {
		have[g.ID] = true
	}
	for _, m := range s.messages {
		var what string
		switch {
		case !have[m.pos.Segment]:
			what = fmt.Sprintf("segment %d is missing", m.pos.Segment)
		case m.spill != nil && !s.spillIntact(m.spill):
			what = "spill file " + m.spill.name.String() + " is missing or has the wrong length"
		default:
			continue
		}
		lost++
		if m.cause == causeDamaged {
			continue
		}
		s.logger.Error("message has lost its bytes", "queue_id", m.id.String(), "err", what)
		s.setHeld(m, causeDamaged, what)
	}
	for id := range s.segments {
		if !have[id] {
			delete(s.segments, id)
		}
	}
	return lost
}

func (s *Spool) spillIntact(ref *spill) bool {
	f, err := s.fs.OpenFile(s.spillPath(ref.name), os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	size, err := f.Size()
	closeErr := f.Close()
	return err == nil && closeErr == nil && size == ref.size
}

// findOrphans lists the spill files that belong to no message: drafts that a crash
// has ended, and removed messages. Where records were lost an orphan may be the
// body of one of them, and stays. Spool.mu is held.
func (s *Spool) findOrphans(damaged bool) error {
	used := make(map[string]bool)
	for _, m := range s.messages {
		if m.spill != nil {
			used[m.spill.name.String()] = true
		}
	}
	entries, err := s.fs.ReadDir(s.spillDir())
	if err != nil {
		return fmt.Errorf("list spill files: %w", err)
	}
	for _, e := range entries {
		if used[e.Name()] {
			continue
		}
		if damaged {
			s.logger.Warn("spill file without a message is kept because the log is damaged", "file", e.Name())
			continue
		}
		s.checkpoint.orphans = append(s.checkpoint.orphans, e.Name())
	}
	return nil
}
