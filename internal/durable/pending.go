package durable

import (
	"context"
	"errors"
	"io"
)

var errPending = errors.New("this part of the log is not written yet")

// Log is a segment log.
type Log struct{}

// OpenLog opens the directory, creates it where missing, reads the segment
// headers and removes unfinished files. It starts no goroutine and appends nothing.
func OpenLog(cfg LogConfig) (*Log, error) { return nil, errPending }

// Replay calls fn for every intact record at or after from, in order. It is called
// before Run, at most once. Record.Payload is valid only during the call. An error
// of fn ends it.
func (l *Log) Replay(from Pos, fn func(Record) error) (Report, error) { return Report{}, errPending }

// Run is the writer. It returns after ctx has ended and everything accepted before
// is written and its waiters are released; later appends get ErrClosed. The files
// stay open for Read until Close.
func (l *Log) Run(ctx context.Context) error { return errPending }

// Append writes one record, whose payload is the concatenation of payload; the
// slices are not kept. Nil promises that it is synced. Errors (nothing of the
// record counts): ErrNoSpace, ErrPoisoned, ErrClosed, ErrTooLarge, or ctx's error
// where the writer had not taken the record yet. Before Run it waits for Run.
func (l *Log) Append(ctx context.Context, kind byte, payload ...[]byte) (Pos, error) {
	return Pos{}, errPending
}

// AppendLazy appends without waiting: the record rides with the next batch, at
// most LazyDelay later. A crash may lose it. The payload is copied.
func (l *Log) AppendLazy(kind byte, payload ...[]byte) {}

// Read returns the record at pos with a payload of its own, verified.
func (l *Log) Read(pos Pos) (Record, error) { return Record{}, errPending }

// Payload returns a reader over the payload at pos, after verifying it. It is
// valid until Remove of the segment or Close.
func (l *Log) Payload(pos Pos) (*io.SectionReader, error) { return nil, errPending }

// Segments lists the segments, oldest first.
func (l *Log) Segments() []SegmentStat { return nil }

// End is the position after the last synced record.
func (l *Log) End() Pos { return Pos{} }

// Remove deletes a sealed segment, durably. The newest segment is ErrActive.
func (l *Log) Remove(segment uint64) error { return errPending }

// Seal starts a new segment where the current one has records.
func (l *Log) Seal(ctx context.Context) error { return errPending }

// Close closes the files. It is called after Run has returned.
func (l *Log) Close() error { return nil }
