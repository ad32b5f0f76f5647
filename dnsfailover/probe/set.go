package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"understudy/dnsfailover"
)

// prober is one probe that can be tried.
type prober interface {
	try(ctx context.Context) error
}

// Result is how a probe went last.
type Result struct {
	// Name of the probe.
	Name string
	// At is when it ended; the zero time where it never did.
	At time.Time
	// Took is how long it took.
	Took time.Duration
	// Err is the reason of its failure; nil where the service works.
	Err error
}

// Set is several probes that all must succeed. It implements dnsfailover.Prober.
type Set struct {
	list []entry

	mu      sync.Mutex
	results []Result
}

type entry struct {
	Config
	prober
}

var _ dnsfailover.Prober = (*Set)(nil)

// New makes a set. No probe is tried yet; password files are read at every try.
func New(list []Config) (*Set, error) {
	s := &Set{results: make([]Result, len(list))}
	var errs []error
	for i, c := range list {
		if err := c.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%d: %w", i, err))
			continue
		}
		c = c.withDefaults()
		s.list = append(s.list, entry{Config: c, prober: proberOf(c)})
		s.results[i].Name = c.Name
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

func proberOf(c Config) prober {
	switch c.Kind {
	case Mail:
		return &mailProbe{c: c}
	case IMAP:
		return imapProbe{c: c}
	case HTTP:
		return httpProbe{c: c}
	case Redis:
		return redisProbe{c: c}
	case Disk:
		return &diskProbe{c: c}
	case Command:
		return commandProbe{c: c}
	}
	return smtpProbe{c: c}
}

// Probe implements dnsfailover.Prober: all probes at once, nil if all succeed.
func (s *Set) Probe(ctx context.Context) error {
	errs := make([]error, len(s.list))
	var wg sync.WaitGroup
	for i, e := range s.list {
		wg.Go(func() {
			begin := time.Now()
			err := e.once(ctx)
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", e.Name, err)
			}
			s.mu.Lock()
			s.results[i] = Result{Name: e.Name, At: time.Now(), Took: time.Since(begin), Err: err}
			s.mu.Unlock()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Results returns how each probe went last, in the order of the configuration.
func (s *Set) Results() []Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Result(nil), s.results...)
}

func (e entry) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, e.Timeout, fmt.Errorf("not done within %s", e.Timeout))
	defer cancel()
	err := e.try(ctx)
	if err != nil && ctx.Err() != nil {
		// What was being done says more than "i/o timeout".
		if at, ok := errors.AsType[*stepError](err); ok {
			return fmt.Errorf("%s: %w", at.step, context.Cause(ctx))
		}
		return context.Cause(ctx)
	}
	return err
}

// stepError says at which step of a dialogue something went wrong.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }

func (e *stepError) Unwrap() error { return e.err }

func at(step string, err error) error {
	if err == nil {
		return nil
	}
	return &stepError{step: step, err: err}
}
