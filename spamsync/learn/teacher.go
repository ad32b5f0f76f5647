package learn

import (
	"context"
	"errors"
	"fmt"

	"understudy/spamsync"
)

// ErrAway says that the engine cannot learn anything now; the message is not to blame.
var ErrAway = errors.New("engine does not learn now")

// Outcome is what an engine did with a message.
type Outcome uint8

// The outcomes.
const (
	// Learned: it changed what the engine knows.
	Learned Outcome = iota
	// Known: the engine had learned it before, or was sure of it without.
	Known
)

// Teacher is an engine that learns. Methods may be called concurrently.
type Teacher interface {
	// Teach makes the message with that digest one of class: Ham or Spam, also
	// where it was learned as the other. An error wraps ErrAway where nothing could
	// be taught now; any other is about this message. It may be repeated.
	Teach(ctx context.Context, class spamsync.Class, digest string, message []byte) (Outcome, error)
}

// All teaches several engines, in order. An engine that fails leaves the rest for
// the next attempt: those that learned the message know it then.
type All []Teacher

var _ Teacher = All(nil)

// Teach implements Teacher.
func (a All) Teach(ctx context.Context, class spamsync.Class, digest string, message []byte) (Outcome, error) {
	out := Known
	for _, t := range a {
		o, err := t.Teach(ctx, class, digest, message)
		if err != nil {
			return out, err
		}
		if o == Learned {
			out = Learned
		}
	}
	return out, nil
}

// away marks err as no fault of the message.
func away(err error) error { return fmt.Errorf("%w: %w", ErrAway, err) }
