package learn

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	// markChunk bounds the marks of one record, each at most maxMarkBytes.
	markChunk    = 1000
	maxMarkBytes = 128
	// garbageBytes of done messages are removed at once, less after idleAfter: what
	// was learned does not stay on the disk.
	garbageBytes = 8 << 20
	idleAfter    = 10 * time.Minute
)

// tidyUntil looks after disk and memory until ctx ends.
func (q *Queue) tidyUntil(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := q.tidy(ctx); err != nil && ctx.Err() == nil {
				q.deps.Logger.Warn("learn queue not compacted", "err", err)
			}
		}
	}
}

// tidy forgets the oldest of too many taught messages, and removes segments in
// which nothing waits; what they say of taught messages is written anew first.
func (q *Queue) tidy(ctx context.Context) error {
	q.forget()
	q.mu.Lock()
	seal := q.garbage >= garbageBytes || q.garbage > 0 && q.deps.Now().Sub(q.touched) >= idleAfter
	q.mu.Unlock()
	if seal {
		if err := q.log.Seal(ctx); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		q.mu.Lock()
		q.garbage = 0
		q.mu.Unlock()
	}
	segments := q.log.Segments()
	for i, s := range segments {
		if !s.Sealed {
			break
		}
		// In order only: a later record may be why an earlier one no longer counts.
		done, err := q.clear(ctx, s.ID, len(segments)-i)
		if err != nil || !done {
			return err
		}
	}
	return nil
}

// clear removes the oldest segment of so many, and first writes anew what it says
// of taught messages. Messages that wait in it keep it, unless the log has become
// far larger than they are: then they are written anew too.
func (q *Queue) clear(ctx context.Context, segment uint64, segments int) (bool, error) {
	q.recording.Lock()
	defer q.recording.Unlock()
	q.mu.Lock()
	var stuck []*item
	for _, it := range q.waiting {
		if it.pos.Segment == segment {
			stuck = append(stuck, it)
		}
	}
	crowded := int64(segments-2)*segmentBytes > 2*q.bytes
	q.mu.Unlock()
	if len(stuck) > 0 && !crowded {
		return false, nil
	}
	for _, it := range stuck {
		if err := q.move(ctx, it); err != nil {
			return false, err
		}
	}
	if err := q.keepMarks(ctx, segment); err != nil {
		return false, err
	}
	if err := q.log.Remove(segment); err != nil {
		return false, fmt.Errorf("remove segment: %w", err)
	}
	return true, nil
}

// move writes a message that waits to the end of the log.
func (q *Queue) move(ctx context.Context, it *item) error {
	r, err := q.log.Read(it.pos)
	if err != nil {
		return nil // damage: the worker meets it, and says so
	}
	pos, err := q.log.Append(ctx, kindMessage, r.Payload)
	if err != nil {
		return fmt.Errorf("move message to learn: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	it.pos = pos
	return nil
}

// keepMarks writes anew what segment says of taught messages.
func (q *Queue) keepMarks(ctx context.Context, segment uint64) error {
	q.mu.Lock()
	var marks []mark
	for digest, k := range q.taught {
		if k.segment == segment {
			marks = append(marks, mark{Digest: digest, Class: k.class.String(), At: k.at})
		}
	}
	q.mu.Unlock()
	slices.SortFunc(marks, func(a, b mark) int { return cmp.Compare(a.At, b.At) })
	for chunk := range slices.Chunk(marks, markChunk) {
		data, err := json.Marshal(chunk)
		if err != nil {
			return fmt.Errorf("encode record: %w", err)
		}
		pos, err := q.log.Append(ctx, kindTaught, data)
		if err != nil {
			return fmt.Errorf("keep what was learned: %w", err)
		}
		q.mu.Lock()
		for _, m := range chunk {
			if k := q.taught[m.Digest]; k.segment == segment {
				k.segment = pos.Segment
				q.taught[m.Digest] = k
			}
		}
		q.mu.Unlock()
	}
	return nil
}

// forget keeps as many taught messages as configured, the newest; a tenth more is
// removed, so that it is not done for every one.
func (q *Queue) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.taught) <= q.cfg.Remember {
		return
	}
	type entry struct {
		digest string
		at     int64
	}
	all := make([]entry, 0, len(q.taught))
	for d, k := range q.taught {
		all = append(all, entry{d, k.at})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.digest, b.digest))
	})
	for _, e := range all[:len(all)-q.cfg.Remember+q.cfg.Remember/10] {
		delete(q.taught, e.digest)
	}
}
