package merge

import (
	"errors"
	"fmt"

	"understudy/spamsync/replica/stream"
)

// Error implements error.
func (e *NotCoveredError) Error() string {
	return fmt.Sprintf("%v from %v: %v", stream.ErrNotCovered, e.From, errors.Join(e.Reasons...))
}

// Unwrap makes it a stream.ErrNotCovered.
func (e *NotCoveredError) Unwrap() error { return stream.ErrNotCovered }
