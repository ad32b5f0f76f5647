package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
	"understudy/spamsync/replica/stream"
)

// ErrBehind: the journal has not reached the wanted end yet. It may get there.
var ErrBehind = errors.New("the journal is behind")

// Gap is a place where bytes are missing.
type Gap struct {
	// After is the last place before it, Resumed the first after it.
	After, Resumed stream.Point
	// At is when it was noticed.
	At time.Time
	// Reason says why, for operators.
	Reason string
}

// GapError says that the journal does not have what was asked for. It is a
// stream.ErrNotCovered.
type GapError struct {
	// From is the place that was asked for.
	From stream.Point
	// First is the oldest place the journal can be read from without a break; zero
	// where there is none.
	First stream.Point
	// Gaps are the breaks after From, if the journal reaches back to it.
	Gaps []Gap
}

// Error implements error.
func (e *GapError) Error() string {
	if len(e.Gaps) > 0 {
		g := e.Gaps[0]
		return fmt.Sprintf("journal from %v: %v: nothing between %v and %v (%s)", e.From, stream.ErrNotCovered, g.After, g.Resumed, g.Reason)
	}
	return fmt.Sprintf("journal from %v: %v: it starts at %v", e.From, stream.ErrNotCovered, e.First)
}

// Unwrap makes it a stream.ErrNotCovered.
func (e *GapError) Unwrap() error { return stream.ErrNotCovered }

// Status is what a journal holds.
type Status struct {
	// Following says whether it is connected to its server now; Err why not.
	Following bool   `json:"following"`
	Err       string `json:"error,omitempty"`
	// First and End are the oldest place that can be read without a break up to the
	// end, and the end.
	First stream.Point `json:"first"`
	End   stream.Point `json:"end"`
	// Oldest is when First was written.
	Oldest time.Time `json:"oldest"`
	// Bytes on disk.
	Bytes int64 `json:"bytes"`
	// Gaps are the breaks it knows of, oldest first.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Options are what a journal works with.
type Options struct {
	// Dir is its directory, for this process alone.
	Dir string
	// FS is the file system; nil is the real one.
	FS durable.FS
	// Config bounds it.
	Config Config
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Journal is the history of one Redis server on disk.
type Journal struct{}

var _ stream.Source = (*Journal)(nil)

var errNotYet = errors.New("not yet")

// Open opens the journal in a directory and reads what it holds. It does not dial.
func Open(o Options) (*Journal, error) { return nil, errNotYet }

// Run follows the server until ctx ends, and connects again where it must. It is
// called once.
func (j *Journal) Run(ctx context.Context, server stream.Options) error { return errNotYet }

// Close closes the files after Run has returned, or instead of it.
func (j *Journal) Close() error { return errNotYet }

// Status tells what it holds.
func (j *Journal) Status() Status { return Status{} }

// Open implements stream.Source: everything that happened to the server after from.
// A *GapError where bytes are missing, ErrBehind where to is not reached within 5 s.
func (j *Journal) Open(ctx context.Context, from, to stream.Point) (stream.Iterator, error) {
	return nil, errNotYet
}
