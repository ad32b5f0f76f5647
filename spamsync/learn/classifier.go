package learn

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"understudy/spamsync"
	"understudy/spamsync/message"
)

// ClassifierTeacher teaches the classifier of the builtin engine.
type ClassifierTeacher struct {
	Classifier *spamsync.Classifier
}

var _ Teacher = ClassifierTeacher{}

// Teach implements Teacher.
func (t ClassifierTeacher) Teach(ctx context.Context, class spamsync.Class, digest string, raw []byte) (Outcome, error) {
	m, err := message.Parse(bytes.NewReader(raw), message.Limits{})
	if err != nil {
		return 0, fmt.Errorf("parse message: %w", err)
	}
	fresh, err := t.Classifier.Learn(ctx, digest, class, spamsync.Tokenize(m))
	switch {
	case errors.Is(err, spamsync.ErrAway) || errors.Is(err, spamsync.ErrReadOnly):
		return 0, away(err)
	case err != nil:
		return 0, err
	case fresh:
		return Learned, nil
	}
	return Known, nil
}
