package merge

import (
	"context"
	"errors"
	"fmt"

	"understudy/spamsync/replica/stream"
)

// NotCoveredError says that no source has the commands after a place any more. It
// is a stream.ErrNotCovered.
type NotCoveredError struct {
	// From is the wanted place.
	From stream.Point
	// Reasons are the sources' answers.
	Reasons []error
}

// Error implements error.
func (e *NotCoveredError) Error() string {
	return fmt.Sprintf("%v from %v: %v", stream.ErrNotCovered, e.From, errors.Join(e.Reasons...))
}

// Unwrap makes it a stream.ErrNotCovered.
func (e *NotCoveredError) Unwrap() error { return stream.ErrNotCovered }

// FirstOf asks each source in turn. It is a NotCoveredError only when all of them
// say so; any other failure is returned when no source has the commands, because
// then nothing is known.
func FirstOf(sources ...stream.Source) stream.Source { return firstOf(sources) }

type firstOf []stream.Source

// Open implements stream.Source.
func (f firstOf) Open(ctx context.Context, from, to stream.Point) (stream.Iterator, error) {
	gone := &NotCoveredError{From: from}
	var unknown []error
	for _, s := range f {
		it, err := s.Open(ctx, from, to)
		switch {
		case err == nil:
			return it, nil
		case errors.Is(err, stream.ErrNotCovered):
			gone.Reasons = append(gone.Reasons, err)
		default:
			unknown = append(unknown, err)
		}
	}
	if len(unknown) > 0 {
		return nil, errors.Join(append(unknown, gone.Reasons...)...)
	}
	return nil, gone
}
