package learn

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
	"understudy/smtp"
	"understudy/spamsync"
	"understudy/spamsync/message"
)

// What Add refuses.
var (
	// ErrFull: as much as may wait already waits.
	ErrFull = errors.New("learn queue is full")
	// ErrTooLong: the message is longer than may be learned.
	ErrTooLong = errors.New("message is too long to be learned")
	// ErrEmpty: there is no message.
	ErrEmpty = errors.New("message is empty")
)

// Deps is what a Queue needs from others.
type Deps struct {
	// Dir is the queue's directory; no other process may have it.
	Dir string
	// FS is nil for the real file system.
	FS      durable.FS
	Teacher Teacher
	// Home says whether the Redis that the engine writes to takes writes; nil does
	// not ask.
	Home   func(ctx context.Context) error
	Alarms smtp.Alarms
	Logger *slog.Logger
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Added is what became of a message given to Add.
type Added string

// What can become of it.
const (
	// Queued: it will be learned.
	Queued Added = "queued"
	// Waits: it waited already, as the same class.
	Waits Added = "waits"
	// Taught: it was learned before, as the same class.
	Taught Added = "taught"
)

// item is a message that waits.
type item struct {
	head
	class    spamsync.Class
	pos      durable.Pos
	size     int64
	seq      uint64
	attempts int
	next     time.Time
	refused  time.Time // since when the engine refuses it; zero where it does not
	busy     bool
}

// known is a taught message.
type known struct {
	class   spamsync.Class
	at      int64 // Unix seconds
	segment uint64
}

// Queue is the learn queue. Its methods may be called concurrently.
type Queue struct {
	cfg     Config
	deps    Deps
	log     *durable.Log
	release func()
	metrics metrics
	wake    chan struct{}

	// adding makes two copies of one message that come together one.
	adding sync.Mutex
	// recording is held for reading while a record is written and noted, and for
	// writing while a segment is removed: what is noted is then all there is.
	recording sync.RWMutex

	mu      sync.Mutex
	waiting map[string]*item
	due     dueHeap
	bytes   int64
	seq     uint64
	taught  map[string]known
	// garbage says that the newest segment holds messages that are done, touched
	// when it last grew.
	garbage int64
	touched time.Time
	pause   pause
}

// pause is why nothing is taught now.
type pause struct {
	since, until time.Time
	reason       string
	failures     int
}

// Open takes the directory, and reads what waits and what was taught. It starts
// nothing. The caller ends it with Close.
func Open(cfg Config, deps Deps) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.FS == nil {
		deps.FS = durable.OS()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Teacher == nil || deps.Alarms == nil || deps.Logger == nil {
		return nil, errors.New("learning needs a teacher, alarms and a logger")
	}
	if err := deps.FS.MkdirAll(deps.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open learn queue: %w", err)
	}
	release, err := durable.Lock(deps.Dir)
	if err != nil {
		return nil, fmt.Errorf("open learn queue: %w", err)
	}
	q := &Queue{
		cfg: cfg, deps: deps, release: release, wake: make(chan struct{}, 1),
		waiting: make(map[string]*item), taught: make(map[string]known),
	}
	q.log, err = durable.OpenLog(durable.LogConfig{
		Dir: deps.Dir, FS: deps.FS, Name: "learn", SegmentBytes: segmentBytes, NoSpare: true,
		MaxRecordBytes: max(cfg.MaxMessageBytes+4<<10, markChunk*maxMarkBytes), Logger: deps.Logger, Registerer: deps.Registerer,
	})
	if err != nil {
		release()
		return nil, fmt.Errorf("open learn queue: %w", err)
	}
	if err = q.recover(); err == nil {
		err = q.register(deps.Registerer)
	}
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// Close closes the files. It is called after Run has returned, or instead of it.
func (q *Queue) Close() error {
	err := q.log.Close()
	q.release()
	return err
}

// recover reads the log.
func (q *Queue) recover() error {
	_, err := q.log.Replay(durable.Pos{}, func(r durable.Record) error {
		switch r.Kind {
		case kindMessage:
			h, body, err := splitMessage(r.Payload)
			if err != nil {
				q.deps.Logger.Warn("unreadable record in the learn queue", "err", err)
				return nil
			}
			q.put(h, r.Pos, int64(len(body)))
		case kindTaught, kindDropped:
			var marks []mark
			if err := json.Unmarshal(r.Payload, &marks); err != nil {
				q.deps.Logger.Warn("unreadable record in the learn queue", "err", err)
				return nil
			}
			for _, m := range marks {
				if class, ok := parseClass(m.Class); ok {
					q.settle(m, class, r.Kind == kindTaught, r.Pos.Segment)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read learn queue: %w", err)
	}
	return nil
}

// put notes a message that waits; an older one with its digest no longer counts.
func (q *Queue) put(h head, pos durable.Pos, size int64) {
	class, _ := parseClass(h.Class)
	q.remove(h.Digest)
	q.seq++
	it := &item{head: h, class: class, pos: pos, size: size, seq: q.seq}
	q.waiting[h.Digest] = it
	q.bytes += size
	heap.Push(&q.due, it)
}

// remove forgets a message that waits.
func (q *Queue) remove(digest string) {
	if old, ok := q.waiting[digest]; ok {
		delete(q.waiting, digest)
		q.bytes -= old.size
		q.garbage += old.size
	}
}

// settle applies a mark: the message is taught, or dropped. What waits as the
// other class came later and stays.
func (q *Queue) settle(m mark, class spamsync.Class, taught bool, segment uint64) {
	if it, ok := q.waiting[m.Digest]; ok && it.class == class {
		q.remove(m.Digest)
	}
	if taught {
		q.taught[m.Digest] = known{class: class, at: m.At, segment: segment}
	}
}

// Add takes a message to be learned as class, Ham or Spam. Nil promises that it is
// on disk, or that nothing is left to do for it. Errors: ErrFull, ErrTooLong,
// ErrEmpty, those of the reader and of the disk. Run must be running.
func (q *Queue) Add(ctx context.Context, class spamsync.Class, r io.Reader) (Added, error) {
	if class != spamsync.Ham && class != spamsync.Spam {
		return "", fmt.Errorf("class %s cannot be taught", class)
	}
	raw, err := io.ReadAll(io.LimitReader(r, q.cfg.MaxMessageBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read message: %w", err)
	case int64(len(raw)) > q.cfg.MaxMessageBytes:
		return "", fmt.Errorf("%w: over %d bytes", ErrTooLong, q.cfg.MaxMessageBytes)
	case len(bytes.TrimSpace(raw)) == 0:
		return "", ErrEmpty
	}
	m, err := message.Parse(bytes.NewReader(raw), message.Limits{})
	if err != nil {
		return "", fmt.Errorf("parse message: %w", err)
	}
	h := head{Digest: spamsync.Digest(m), Class: class.String(), Added: q.deps.Now().Unix()}
	q.adding.Lock()
	defer q.adding.Unlock()
	if state, revoke, err := q.state(h.Digest, class, int64(len(raw))); revoke {
		return Taught, q.revoke(ctx, h.Digest)
	} else if state != Queued || err != nil {
		return state, err
	}
	line, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode record: %w", err)
	}
	q.recording.RLock()
	defer q.recording.RUnlock()
	pos, err := q.log.Append(ctx, kindMessage, line, []byte("\n"), raw)
	if err != nil {
		return "", fmt.Errorf("keep message to learn: %w", err)
	}
	q.mu.Lock()
	q.put(h, pos, int64(len(raw)))
	q.touched = q.deps.Now()
	q.mu.Unlock()
	q.poke()
	return Queued, nil
}

// state says what to do with a message of class. revoke: it is taught as class
// and waits to be taught as the other, which it shall not be after all.
func (q *Queue) state(digest string, class spamsync.Class, size int64) (state Added, revoke bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it, waits := q.waiting[digest]
	k, taught := q.taught[digest]
	switch {
	case waits && it.class == class:
		return Waits, false, nil
	case waits && taught && k.class == class && !it.busy:
		return Taught, true, nil
	case !waits && taught && k.class == class:
		return Taught, false, nil
	case q.bytes+size > q.cfg.MaxQueueBytes:
		return "", false, fmt.Errorf("%w: %d messages wait", ErrFull, len(q.waiting))
	}
	return Queued, false, nil
}

// revoke drops what waits under digest.
func (q *Queue) revoke(ctx context.Context, digest string) error {
	q.mu.Lock()
	it, ok := q.waiting[digest]
	q.mu.Unlock()
	if !ok {
		return nil
	}
	return q.write(ctx, kindDropped, it)
}

// write records that it is taught, or dropped, and applies it.
func (q *Queue) write(ctx context.Context, kind byte, it *item) error {
	m := mark{Digest: it.Digest, Class: it.Class, At: q.deps.Now().Unix()}
	data, err := json.Marshal([]mark{m})
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	q.recording.RLock()
	defer q.recording.RUnlock()
	pos, err := q.log.Append(ctx, kind, data)
	if err != nil {
		return fmt.Errorf("record what was learned: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settle(m, it.class, kind == kindTaught, pos.Segment)
	q.touched = q.deps.Now()
	return nil
}

func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Status is the queue at a glance.
type Status struct {
	// Waiting messages take Bytes; the oldest came at Oldest.
	Waiting int       `json:"waiting"`
	Bytes   int64     `json:"bytes"`
	Oldest  time.Time `json:"oldest,omitzero"`
	// Remembered is how many learned messages are known.
	Remembered int `json:"remembered"`
	// Paused says since when and why nothing is learned.
	Paused time.Time `json:"paused,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// Status returns the state of this moment.
func (q *Queue) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Status{
		Waiting: len(q.waiting), Bytes: q.bytes, Remembered: len(q.taught),
		Paused: q.pause.since, Reason: q.pause.reason,
	}
	for _, it := range q.waiting {
		if s.Oldest.IsZero() || it.added().Before(s.Oldest) {
			s.Oldest = it.added()
		}
	}
	return s
}

// dueHeap orders items by when they are due, then by when they came.
type dueHeap []*item //nolint:recvcheck // heap.Interface wants it so

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].next.Equal(h[j].next) {
		return h[i].next.Before(h[j].next)
	}
	return h[i].seq < h[j].seq
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	if it, ok := x.(*item); ok {
		*h = append(*h, it)
	}
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}
