package durable

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// writer is the state of the goroutine in Run. Only requests is shared.
type writer struct {
	requests requests

	cur   *segment
	prev  segmentEnd // end of the segment before cur, or of the newest one while cur is nil
	batch []*request
	buf   []byte
	spare spareMaker
	// failed: the last batch failed, so lazy records go alone: they are small, and
	// fit where a batch with messages does not.
	failed bool
}

// Run is the writer. It returns after ctx has ended, everything accepted before is
// written and its waiters are released; later appends get ErrClosed. Files stay
// open for Read until Close. A second Run is an error.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.state != stateOpened {
		l.mu.Unlock()
		return fmt.Errorf("run log %s: %w", l.cfg.Name, ErrClosed)
	}
	l.state = stateRunning
	replayed := l.replayed
	l.mu.Unlock()
	defer l.stop()
	if !replayed {
		// The end of the newest segment must be known before a later one says it.
		if _, err := l.Replay(l.lastStart(), nil); err != nil {
			return fmt.Errorf("run log %s: %w", l.cfg.Name, err)
		}
	}
	l.mu.Lock()
	if n := len(l.segments); n > 0 {
		l.w.prev = l.segments[n-1].segmentEnd()
	}
	l.mu.Unlock()
	l.w.spare.start(ctx, l.cfg)
	for l.wait(ctx) {
		l.step(false)
		// Let those who were just released come back before the next batch is cut:
		// at 10 and 50 writers this about doubles what one sync covers.
		runtime.Gosched()
	}
	l.w.spare.stop(l.cfg)
	// No append is accepted any more; write what was.
	for l.step(true) {
	}
	l.closing()
	return nil
}

// lastStart is the start of the newest segment.
func (l *Log) lastStart() Pos {
	p := l.End()
	p.Offset = 0
	return p
}

// wait returns true when there may be something to write, and false, with the log
// closed to appends, when ctx has ended.
func (l *Log) wait(ctx context.Context) bool {
	for {
		l.mu.Lock()
		if ctx.Err() != nil {
			l.state = stateStopped
			l.mu.Unlock()
			return false
		}
		ready := len(l.pending) > 0
		lazyIn := time.Duration(-1)
		if len(l.lazy.records) > 0 {
			lazyIn = time.Until(l.lazy.due)
			ready = ready || lazyIn <= 0
		}
		l.mu.Unlock()
		if ready {
			return true
		}
		var timer <-chan time.Time
		if lazyIn > 0 {
			timer = time.After(lazyIn)
		}
		select {
		case <-l.wake:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// step writes one batch; false: there was none. flush takes lazy records that are
// not due, and gives up on those that fail.
func (l *Log) step(flush bool) bool {
	l.take(flush)
	if len(l.w.batch) == 0 {
		return false
	}
	err := l.commit()
	if err != nil {
		l.met.failed(err)
		if !l.w.failed { // the first of a row says it
			l.cfg.Logger.Error("log batch failed", "log", l.cfg.Name, "records", len(l.w.batch), "err", err)
		}
	}
	if l.cfg.OnHealth != nil && (err != nil || l.w.failed) {
		l.cfg.OnHealth(err)
	}
	l.w.failed = err != nil
	l.release(err, flush)
	return true
}

// take moves the next batch from the queues to l.w.batch.
func (l *Log) take(flush bool) {
	w := &l.w
	w.batch = w.batch[:0]
	limit := min(l.cfg.MaxBatchBytes, l.cfg.SegmentBytes-dataStart-batchSize(0))
	bytes := int64(0)
	fits := func(r *request) bool {
		n := DiskBytes(int(r.size))
		if len(w.batch) > 0 && (len(w.batch) >= l.cfg.MaxBatchRecords || bytes+n > limit) {
			return false
		}
		bytes += n
		w.batch = append(w.batch, r)
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lazyDue := flush || (len(l.lazy.records) > 0 && time.Until(l.lazy.due) <= 0)
	if lazyDue || !w.failed {
		n := 0
		for n < len(l.lazy.records) && fits(l.lazy.records[n]) {
			l.lazy.bytes -= l.lazy.records[n].size
			n++
		}
		l.lazy.records = shift(l.lazy.records, n)
		if n > 0 && w.failed {
			return
		}
	}
	n := 0
	for n < len(l.pending) {
		r := l.pending[n]
		if r.dropped {
			n++
			continue
		}
		if !fits(r) {
			break
		}
		r.taken = true
		n++
		if r.seal {
			break // what came after it belongs to the new segment
		}
	}
	l.pending = shift(l.pending, n)
}

// shift removes the first n and keeps the array.
func shift(q []*request, n int) []*request {
	if n == 0 {
		return q
	}
	rest := copy(q, q[n:])
	clear(q[rest:])
	return q[:rest]
}

// commit writes and syncs l.w.batch. On an error nothing of it counts.
func (l *Log) commit() error {
	w := &l.w
	sealAfter := false
	size := int64(0)
	records := w.batch
	if last := records[len(records)-1]; last.seal {
		sealAfter = true
		records = records[:len(records)-1]
	}
	for _, r := range records {
		size += DiskBytes(int(r.size))
	}
	if len(records) > 0 {
		if err := l.writeBatch(records, size, 0); err != nil {
			return err
		}
	}
	if !sealAfter || (w.cur != nil && w.cur.end == dataStart) || (w.cur == nil && w.prev.id == 0) {
		return nil
	}
	if err := l.roll(batchSize(0)); err != nil {
		// The records are safe in the old segment; only the Seal has failed.
		w.batch[len(w.batch)-1].done <- err
		w.batch = w.batch[:len(w.batch)-1]
	}
	return nil
}

func (l *Log) writeBatch(records []*request, recordBytes int64, flags uint32) error {
	w := &l.w
	need := batchSize(recordBytes)
	if w.cur == nil || w.cur.end+need > w.cur.header.sizeBytes {
		if err := l.roll(need); err != nil {
			return err
		}
	}
	s := w.cur
	w.encode(s, records, recordBytes, flags)
	began := time.Now()
	_, err := s.file.WriteAt(w.buf, s.end)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		l.poison(s)
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	l.met.syncSeconds.Observe(time.Since(began).Seconds())
	l.met.batches.Inc()
	l.met.records.Add(float64(len(records)))
	l.met.bytes.Add(float64(need))
	s.batches++
	l.mu.Lock()
	s.end += need
	s.clean = s.end
	l.mu.Unlock()
	if s.end > s.header.sizeBytes/4 {
		w.spare.want()
	}
	return nil
}

// encode builds the batch in w.buf, the only copy of the payloads that is made.
func (w *writer) encode(s *segment, records []*request, recordBytes int64, flags uint32) {
	const keepBytes = 16 << 20 // a rare huge record must not pin its buffer for ever
	if cap(w.buf) > keepBytes && recordBytes < keepBytes/2 {
		w.buf = nil
	}
	total := batchSize(recordBytes)
	if int64(cap(w.buf)) < total {
		w.buf = make([]byte, 0, max(total, min(2*int64(cap(w.buf)), keepBytes)))
	}
	h := batchHeader{seq: s.batches + 1, recordBytes: recordBytes, records: uint32(len(records)), flags: flags}
	b := w.buf[:batchHeaderBytes]
	s.seal.putBatch(b, s.end, h)
	for _, r := range records {
		at := len(b)
		r.pos = Pos{Segment: s.id, Offset: s.end + int64(at)}
		b = b[:at+recordHeaderBytes]
		s.seal.putRecord(b[at:], r.pos.Offset, recordHeader{length: uint32(r.size), payloadCRC: r.crc, kind: r.kind})
		for _, p := range r.parts {
			b = append(b, p...)
		}
	}
	padding := b[len(b):total]
	clear(padding)
	w.buf = b[:total]
}

// poison gives a segment up after a failed write or sync. Where the failed batch
// begins is put on disk, in the header of the next segment, before anybody is told
// that it failed: then not even recovery will find it, if the disk can still write.
func (l *Log) poison(s *segment) {
	l.mu.Lock()
	s.sealed, s.poisoned = true, true
	l.mu.Unlock()
	if err := l.roll(batchSize(0)); err != nil {
		l.cfg.Logger.Warn("no new segment after a failed batch", "log", l.cfg.Name, "err", err)
	}
}

// leave makes s the past: the next batch looks for a new segment.
func (l *Log) leave(s *segment) {
	l.w.cur = nil
	if s.end > dataStart || l.w.prev.id == 0 {
		l.w.prev = s.segmentEnd()
	}
}

// roll starts a new segment with room for at least one batch of need bytes.
func (l *Log) roll(need int64) error {
	w := &l.w
	old := w.cur
	if old != nil {
		l.leave(old)
	}
	l.mu.Lock()
	id := l.nextID
	l.nextID++
	l.mu.Unlock()
	s, err := l.newSegment(id, dataStart+need)
	if err != nil {
		if old != nil && !old.poisoned {
			w.cur = old // still good for smaller batches
		}
		return fmt.Errorf("new segment: %w", err)
	}
	l.mu.Lock()
	for _, before := range l.segments {
		before.sealed = true
	}
	newest := len(l.segments) - 1
	if newest >= 0 {
		old = l.segments[newest]
	}
	l.segments = append(l.segments, s)
	l.met.segments.Set(float64(len(l.segments)))
	l.mu.Unlock()
	w.cur = s
	if old != nil {
		l.trim(old)
	}
	return nil
}

// newSegment uses the spare, or tries smaller and smaller sizes.
func (l *Log) newSegment(id uint64, atLeast int64) (*segment, error) {
	size := l.cfg.SegmentBytes
	if f := l.w.spare.take(); f != nil {
		s, err := createSegment(l.cfg, id, size, l.w.prev, f)
		if err == nil || !errors.Is(err, ErrNoSpace) {
			return s, err
		}
	}
	for {
		s, err := createSegment(l.cfg, id, size, l.w.prev, nil)
		smaller := max(roundUp(size/8), roundUp(atLeast), minSegmentBytes)
		if err == nil || !errors.Is(err, ErrNoSpace) || smaller >= size {
			return s, err
		}
		size = smaller
	}
}

// trim gives back the room a sealed segment does not use. Its length then tells
// where it ends, even when the segment after it is gone. A segment that never took
// a batch before it was poisoned is removed: a sick disk must not fill with them.
func (l *Log) trim(s *segment) {
	if s.poisoned && s.end == dataStart {
		if err := l.Remove(s.id); err != nil {
			l.cfg.Logger.Warn("empty segment not removed", "log", l.cfg.Name, "segment", s.id, "err", err)
		}
		return
	}
	if size, err := s.file.Size(); err != nil || size <= s.end {
		return
	}
	err := s.file.Truncate(s.end)
	if err == nil && !s.poisoned {
		err = s.file.Sync()
	}
	if err != nil {
		l.cfg.Logger.Warn("sealed segment not trimmed", "log", l.cfg.Name, "segment", s.id, "err", err)
	}
}

// release answers the batch.
func (l *Log) release(err error, flush bool) {
	var again []*request
	for _, r := range l.w.batch {
		switch {
		case !r.lazy:
			r.done <- err
		case err != nil && !flush:
			again = append(again, r)
		case err != nil:
			l.met.lazyDropped.Inc()
		}
	}
	clear(l.w.batch)
	l.w.batch = l.w.batch[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.lazy.failures, l.lazy.dropped = 0, false
		return
	}
	l.lazy.failures++
	l.lazy.records = append(again, l.lazy.records...)
	for _, r := range again {
		l.lazy.bytes += r.size
	}
	l.lazy.due = time.Now().Add(l.cfg.LazyDelay << min(l.lazy.failures, maxLazyBackoff))
}

// closing ends the current segment with an empty batch. It promises nothing, so a
// failure is only logged.
func (l *Log) closing() {
	s := l.w.cur
	if s == nil || s.batches == 0 || s.end+batchSize(0) > s.header.sizeBytes {
		return
	}
	l.w.encode(s, nil, 0, batchClosing)
	_, err := s.file.WriteAt(l.w.buf, s.end)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		l.cfg.Logger.Warn("closing batch not written", "log", l.cfg.Name, "err", err)
	}
}

// stop releases everybody, however Run ends.
func (l *Log) stop() {
	l.mu.Lock()
	l.state = stateStopped
	left := append(l.w.batch, l.pending...)
	dropped := len(l.lazy.records)
	l.pending, l.lazy.records, l.lazy.bytes = nil, nil, 0
	for _, r := range left {
		r.taken = true
	}
	l.mu.Unlock()
	for _, r := range left {
		if r != nil && !r.dropped && !r.lazy {
			select {
			case r.done <- ErrClosed:
			default: // answered already
			}
		}
	}
	if dropped > 0 {
		l.met.lazyDropped.Add(float64(dropped))
		l.cfg.Logger.Error("lazy records dropped at stop", "log", l.cfg.Name, "records", dropped)
	}
	close(l.done)
}
