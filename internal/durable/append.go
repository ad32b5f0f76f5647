package durable

import (
	"context"
	"fmt"
	"hash/crc32"
	"sync"
	"time"
)

// request is a record (or a Seal) on its way through the writer. Its fields belong
// to the caller until submit, to Log.mu while it is queued, to the writer once
// taken, and to the caller again after done.
type request struct {
	kind    byte
	parts   [][]byte
	size    int64
	crc     uint32
	lazy    bool
	seal    bool
	taken   bool
	dropped bool // the caller has given up before it was taken
	pos     Pos
	done    chan error // capacity 1
}

// requests recycles them: appending allocates nothing of its own.
type requests struct{ pool sync.Pool }

func newRequest(kind byte, payload [][]byte) *request {
	r := &request{done: make(chan error, 1)}
	r.fill(kind, payload)
	return r
}

func (r *request) fill(kind byte, payload [][]byte) {
	r.kind = kind
	r.parts = append(r.parts[:0], payload...)
	r.size, r.crc = 0, 0
	for _, p := range payload {
		r.size += int64(len(p))
		r.crc = crc32.Update(r.crc, castagnoli(), p)
	}
}

func (q *requests) get(kind byte, payload [][]byte) *request {
	r, ok := q.pool.Get().(*request)
	if !ok {
		return newRequest(kind, payload)
	}
	r.fill(kind, payload)
	return r
}

func (q *requests) put(r *request) {
	clear(r.parts)
	*r = request{parts: r.parts[:0], done: r.done}
	q.pool.Put(r)
}

// Append writes one record, whose payload is the concatenation of payload; the
// slices are not kept, and must not change until it returns. Nil promises that the
// record is synced. Any error promises that it will not be replayed while the
// process lives; only a crash between the failure and its record on disk can bring
// it back, so an aborted message may be seen once more, never an accepted one lost.
//
// Errors: ErrNoSpace, ErrPoisoned, ErrClosed, ErrTooLarge, or ctx's error where the
// writer had not taken the record yet (once taken, Append waits for the outcome).
// Before Run it waits for Run.
func (l *Log) Append(ctx context.Context, kind byte, payload ...[]byte) (Pos, error) {
	r := l.w.requests.get(kind, payload)
	if r.size > l.cfg.MaxRecordBytes {
		return Pos{}, fmt.Errorf("append: %w: %d bytes, at most %d", ErrTooLarge, r.size, l.cfg.MaxRecordBytes)
	}
	return l.submit(ctx, r)
}

func (l *Log) submit(ctx context.Context, r *request) (Pos, error) {
	if err := ctx.Err(); err != nil {
		return Pos{}, err
	}
	l.mu.Lock()
	if l.state == stateStopped {
		l.mu.Unlock()
		return Pos{}, ErrClosed
	}
	l.pending = append(l.pending, r)
	l.mu.Unlock()
	l.signal()

	select {
	case err := <-r.done:
		return l.finish(r, err)
	case <-ctx.Done():
		if l.giveUp(r) {
			return Pos{}, ctx.Err()
		}
	case <-l.done:
		if l.giveUp(r) {
			return Pos{}, ErrClosed
		}
	}
	// The writer has it: what it answers is the truth, and it always answers.
	return l.finish(r, <-r.done)
}

func (l *Log) finish(r *request, err error) (Pos, error) {
	pos, verb := r.pos, "append"
	if r.seal {
		verb = "seal"
	}
	l.w.requests.put(r)
	if err != nil {
		return Pos{}, fmt.Errorf("%s: %w", verb, err)
	}
	return pos, nil
}

// giveUp withdraws a request that was not taken yet. Afterwards the payload is the
// caller's again; the empty request stays queued until the writer skips it.
func (l *Log) giveUp(r *request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.taken {
		return false
	}
	r.dropped = true
	r.parts = nil
	return true
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// AppendLazy appends without waiting: the record rides with the next batch, at
// most LazyDelay later. A crash may lose it. The payload is copied. When its batch
// fails it goes into the next segment; only when MaxLazyBytes are waiting, or Run
// has ended, is it dropped, counted and logged.
func (l *Log) AppendLazy(kind byte, payload ...[]byte) {
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	joined := make([]byte, 0, size)
	for _, p := range payload {
		joined = append(joined, p...)
	}
	r := newRequest(kind, [][]byte{joined})
	r.lazy = true

	l.mu.Lock()
	if l.state == stateStopped || l.lazy.bytes+r.size > l.cfg.MaxLazyBytes || r.size > l.cfg.MaxRecordBytes {
		first := !l.lazy.dropped
		l.lazy.dropped = true
		l.mu.Unlock()
		l.met.lazyDropped.Inc()
		if first {
			l.cfg.Logger.Error("lazy record dropped", "log", l.cfg.Name, "bytes", r.size)
		}
		return
	}
	first := len(l.lazy.records) == 0
	if first {
		l.lazy.due = time.Now().Add(l.cfg.LazyDelay << min(l.lazy.failures, maxLazyBackoff))
	}
	l.lazy.records = append(l.lazy.records, r)
	l.lazy.bytes += r.size
	l.mu.Unlock()
	if first {
		l.signal()
	}
}

// maxLazyBackoff bounds how far failures stretch LazyDelay: 64 times.
const maxLazyBackoff = 6
