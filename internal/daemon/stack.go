package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// stack holds the steps that undo a start, to be run last first.
type stack struct {
	log   *slog.Logger
	steps []step
}

// step undoes one part of the start. limit bounds it: a part that hangs must not
// keep the others from stopping.
type step struct {
	name  string
	limit time.Duration
	stop  func(context.Context) error
}

// push adds the step that undoes what was just started.
func (s *stack) push(name string, limit time.Duration, stop func(context.Context) error) {
	s.steps = append(s.steps, step{name: name, limit: limit, stop: stop})
}

// unwind runs the steps, last first, all of them whatever each returns, and
// joins their errors. A second call does nothing.
func (s *stack) unwind(ctx context.Context) error {
	var errs []error
	for _, st := range slices.Backward(s.steps) {
		began := time.Now()
		sctx, cancel := context.WithTimeout(ctx, st.limit)
		err := st.stop(sctx)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", st.name, err))
		}
		s.log.Debug("stopped", "part", st.name, "took", time.Since(began))
	}
	s.steps = nil
	return errors.Join(errs...)
}
