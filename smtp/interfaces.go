package smtp

import (
	"context"
	"errors"
	"io"
)

// ErrFull is what Queue.Room and Draft.Commit return when the disk, or the
// reserve kept on it, has no room for the message. The session answers
// 452 4.3.1 (RFC 5321, section 4.2.3).
var ErrFull = errors.New("insufficient system storage")

// Queue keeps accepted messages. All methods may be called concurrently.
type Queue interface {
	// Room says whether a message of sizeBytes (0 where unknown) can be taken
	// now: nil, or ErrFull. It is asked at MAIL, and promises nothing.
	Room(sizeBytes int64) error
	// Create starts a draft with a fresh queue id. The caller ends it with
	// Commit or Discard. It returns ErrFull as Room does.
	Create(ctx context.Context, sizeHint int64) (Draft, error)
}

// Draft is a message that is being received. It belongs to one goroutine.
type Draft interface {
	// Write appends bytes of the message exactly as received.
	io.Writer
	// ID is the queue id the message will have.
	ID() string
	// Open returns a reader over the bytes written so far, for a filter. The
	// reader is valid until Commit or Discard.
	Open() (io.ReadSeeker, error)
	// Commit stores header followed by the written bytes under env. Nil promises
	// that message and envelope are on disk and synced; any error promises that
	// the message will never be delivered. ErrFull where space ran out. It sets
	// env.ID and env.SizeBytes. It is called once.
	Commit(ctx context.Context, env *Envelope, header []byte) error
	// Discard drops the draft and frees what it held. After Commit it does nothing.
	Discard()
}

// Disposition is what is known about an address.
type Disposition uint8

// The dispositions. The zero value is Unsure, so that a forgotten answer is
// never "does not exist".
const (
	// Unsure: the sources are missing or stale: 450, the sender tries again.
	Unsure Disposition = iota
	// Exists: accept.
	Exists
	// Unknown: no such mailbox, and the sources are fresh enough to say so: 550.
	Unknown
)

// Recipients knows who exists here, also while the primary is dead.
type Recipients interface {
	// Lookup answers for one address with its domain in it. An error is answered
	// 451; it never means "unknown". It may be called concurrently and retried.
	Lookup(ctx context.Context, address string) (Disposition, error)
}

// Filter judges a message before 250. It may be called concurrently.
type Filter interface {
	// Check reads the message and returns a verdict. It must not keep env or body
	// after returning. An error means "no verdict": the session answers 451.
	Check(ctx context.Context, env *Envelope, body io.ReadSeeker) (Verdict, error)
}

// Alarms tells people. An alarm is a condition, not an event: raising it again
// under the same key only changes its text. Methods may be called concurrently.
type Alarms interface {
	// Raise says that someone must look; key is stable ("hop:mx1.example.net").
	Raise(key, text string)
	// Clear says that the condition has ended; clearing what was not raised is fine.
	Clear(key string)
}
