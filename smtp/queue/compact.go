package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"understudy/internal/durable"
)

// segmentUse is what planCompaction judges a segment by.
type segmentUse struct {
	durable.SegmentStat
	segment
}

// compactBelow is the share of live bytes below which a segment is copied.
const compactBelow = 0.25

// planCompaction says which segments are to be emptied by copying what is alive,
// and whether the newest segment must be sealed first. A segment qualifies where
// little of it is alive, or where something in it has been dead for so long that
// it must leave the disk.
func planCompaction(all []segmentUse, now time.Time, eraseAfter time.Duration) (copies []uint64, seal bool) {
	limit := overdue(now, eraseAfter)
	for _, g := range all {
		must := g.deadSince != 0 && g.deadSince <= limit
		if !g.Sealed {
			seal = seal || must
			continue
		}
		if g.live == 0 || g.keep {
			continue
		}
		if must || float64(g.liveBytes) < compactBelow*float64(g.UsedBytes) {
			copies = append(copies, g.ID)
		}
	}
	return copies, seal
}

// overdue is the time before which what has died must go now. It starts early:
// copying takes time, and rounds have an interval.
func overdue(now time.Time, eraseAfter time.Duration) int64 {
	return now.Add(-eraseAfter + eraseAfter/4).UnixNano()
}

// uses joins what the log and the index know of the segments. Every message that
// is on disk in a segment that was sealed before the call is counted.
func (s *Spool) uses() []segmentUse {
	stats := s.log.Segments()
	s.settled()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]segmentUse, len(stats))
	for i, g := range stats {
		out[i] = segmentUse{SegmentStat: g}
		if known := s.segments[g.ID]; known != nil {
			out[i].segment = *known
		}
	}
	return out
}

// compact copies what is alive in the segments that are to go.
func (s *Spool) compact(ctx context.Context) error {
	copies, seal := planCompaction(s.uses(), time.Now(), s.cfg.EraseAfter)
	if seal {
		if err := s.log.Seal(ctx); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		copies, _ = planCompaction(s.uses(), time.Now(), s.cfg.EraseAfter)
	}
	if len(copies) == 0 {
		return nil
	}
	bySegment := make(map[uint64][]*message)
	n := 0
	s.mu.Lock()
	for _, m := range s.messages {
		if slices.Contains(copies, m.pos.Segment) {
			bySegment[m.pos.Segment] = append(bySegment[m.pos.Segment], m)
		}
		if n++; n%scanPause == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	for _, id := range copies {
		if err := s.moveAll(ctx, bySegment[id]); err != nil {
			return fmt.Errorf("segment %d: %w", id, err)
		}
	}
	return nil
}

// moveWidth is how many messages are copied at once: they share a sync.
const moveWidth = 16

func (s *Spool) moveAll(ctx context.Context, list []*message) error {
	for chunk := range slices.Chunk(list, moveWidth) {
		if !s.space.roomForCopies() {
			return errors.New("no space to copy into")
		}
		errs := make([]error, len(chunk))
		var wg sync.WaitGroup
		for i, m := range chunk {
			wg.Go(func() { errs[i] = s.move(ctx, m) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// move copies one message, with its state, to the end of the log.
func (s *Spool) move(ctx context.Context, m *message) error {
	payload, err := s.readMessage(m)
	if err != nil {
		s.damaged(m, err)
		if errors.Is(err, durable.ErrClosed) {
			return err
		}
		return nil // the segment is kept
	}
	p, _, envelope, inline, err := parts(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if m.gone {
		s.mu.Unlock()
		return nil
	}
	state := m.appendState(nil, s.clock)
	s.mu.Unlock()
	p.state = uint32(len(state))
	head := appendPrefix(make([]byte, 0, prefixBytes), &p)
	pos, err := s.log.Append(ctx, kindMessage, head, state, envelope, inline)
	if err != nil {
		return err
	}
	disk := durable.DiskBytes(len(head) + len(state) + len(envelope) + len(inline))
	now := time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.gone {
		// It left meanwhile; its tombstone has a higher generation than the copy.
		g := s.segment(pos.Segment)
		if g.deadSince == 0 {
			g.deadSince = now
		}
		return nil
	}
	s.vacate(m.pos, m.disk, now)
	m.pos, m.disk = pos, disk
	s.occupy(m)
	return nil
}

// planErasure says which segments hold nothing alive, and whether removing them
// is worth a checkpoint now: when they are as large as half of one, when something
// in them is overdue, or when space is short. While a big queue drains, segments
// become empty all the time.
func planErasure(all []segmentUse, now time.Time, eraseAfter time.Duration, checkpointBytes int64, short bool) (empty []uint64, worth bool) {
	bytes := int64(0)
	worth = short
	for _, g := range all {
		if !g.Sealed || g.live > 0 || g.keep {
			continue
		}
		empty = append(empty, g.ID)
		bytes += g.UsedBytes
		worth = worth || g.deadSince != 0 && g.deadSince <= overdue(now, eraseAfter)
	}
	return empty, len(empty) > 0 && (worth || bytes >= checkpointBytes/2)
}

// erase removes the sealed segments in which nothing is alive, once a checkpoint
// has the states they hold.
func (s *Spool) erase(ctx context.Context) error {
	short := s.space.last.Load() < 2*s.cfg.ReserveBytes
	empty, worth := planErasure(s.uses(), time.Now(), s.cfg.EraseAfter, s.checkpoint.bytes, short)
	if !worth {
		return nil
	}
	if err := s.writeCheckpoint(ctx); err != nil {
		return err
	}
	for _, id := range empty {
		if id >= s.checkpoint.pos.Segment {
			continue
		}
		if err := s.log.Remove(id); err != nil {
			return fmt.Errorf("remove segment %d: %w", id, err)
		}
		s.metrics.erased.Inc()
		s.mu.Lock()
		delete(s.segments, id)
		s.mu.Unlock()
	}
	return nil
}
