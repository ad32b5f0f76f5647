package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"understudy/smtp"
)

// Message is what a queue has stored.
type Message struct {
	Envelope *smtp.Envelope
	// Body is the stored message, header of Commit included.
	Body []byte
}

// Queue is an smtp.Queue in memory. It keeps everything until the end of the
// test, and can be told to fail.
type Queue struct {
	mu       sync.Mutex
	next     int
	full     bool
	fail     error
	open     int
	messages []Message
}

var _ smtp.Queue = (*Queue)(nil)

// New returns an empty queue.
func New() *Queue { return &Queue{} }

// SetFull makes Room, Create, Write and Commit return ErrFull, or stops that.
func (q *Queue) SetFull(full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.full = full
}

// FailCommits makes every Commit return err; nil stops that.
func (q *Queue) FailCommits(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fail = err
}

// Messages returns what was committed, in order.
func (q *Queue) Messages() []Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]Message(nil), q.messages...)
}

// Stored returns the message committed under id.
func (q *Queue) Stored(id string) (Message, bool) {
	for _, m := range q.Messages() {
		if m.Envelope.ID == id {
			return m, true
		}
	}
	return Message{}, false
}

// OpenDrafts counts the drafts that were neither committed nor discarded: a
// session that leaves one leaks.
func (q *Queue) OpenDrafts() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open
}

// Room implements smtp.Queue.
func (q *Queue) Room(int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full {
		return smtp.ErrFull
	}
	return nil
}

// Create implements smtp.Queue.
func (q *Queue) Create(ctx context.Context, sizeHint int64) (smtp.Draft, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := q.Room(sizeHint); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next++
	q.open++
	return &draft{queue: q, id: fmt.Sprintf("FAKE%022d", q.next)}, nil
}

type draft struct {
	queue *Queue
	id    string
	body  bytes.Buffer
	ended bool
}

var errEnded = errors.New("draft has ended")

func (d *draft) ID() string { return d.id }

func (d *draft) Write(p []byte) (int, error) {
	if d.ended {
		return 0, errEnded
	}
	if err := d.queue.Room(0); err != nil {
		return 0, err
	}
	return d.body.Write(p)
}

func (d *draft) Open() (io.ReadSeeker, error) {
	if d.ended {
		return nil, errEnded
	}
	return bytes.NewReader(d.body.Bytes()), nil
}

func (d *draft) Commit(ctx context.Context, env *smtp.Envelope, header []byte) error {
	if d.ended {
		return errEnded
	}
	d.Discard()
	if err := ctx.Err(); err != nil {
		return err
	}
	q := d.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail != nil {
		return q.fail
	}
	if q.full {
		return smtp.ErrFull
	}
	body := append(append([]byte(nil), header...), d.body.Bytes()...)
	env.ID, env.SizeBytes = d.id, int64(len(body))
	stored := *env
	stored.Recipients = append([]smtp.Recipient(nil), env.Recipients...)
	q.messages = append(q.messages, Message{Envelope: &stored, Body: body})
	return nil
}

func (d *draft) Discard() {
	if d.ended {
		return
	}
	d.ended = true
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	d.queue.open--
}
