package journal

import (
	"errors"
	"fmt"
	"time"

	"understudy/spamsync/replica/stream"
)

// ErrBehind says that the journal has not reached the wanted end yet. It may get there.
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
