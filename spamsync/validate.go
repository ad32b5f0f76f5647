package spamsync

import (
	"errors"
	"fmt"
)

// Validate reports all faults at once.
func (c BayesConfig) Validate() error {
	if c.MinLearns < 1 {
		return errors.New("min_learns: must be at least 1")
	}
	return nil
}

// Validate reports all faults at once.
func (c ReputationConfig) Validate() error {
	var errs []error
	if c.HalfLife < day {
		errs = append(errs, errors.New("half_life: must be at least 24h"))
	}
	if c.Keep < c.HalfLife {
		errs = append(errs, errors.New("keep: must be at least half_life"))
	}
	return errors.Join(errs...)
}

// Validate reports all faults at once.
func (c RatelimitConfig) Validate() error {
	var errs []error
	if c.Messages < 0 {
		errs = append(errs, errors.New("messages: must not be negative"))
	}
	if c.Window <= 0 {
		errs = append(errs, errors.New("window: must be positive"))
	}
	return errors.Join(errs...)
}

// Validate reports all faults at once.
func (c GreylistConfig) Validate() error {
	var errs []error
	if c.Delay < 0 {
		errs = append(errs, errors.New("delay: must not be negative"))
	}
	if c.Window <= c.Delay {
		errs = append(errs, fmt.Errorf("window: must be longer than delay, %v", c.Delay))
	}
	if c.Remember <= 0 {
		errs = append(errs, errors.New("remember: must be positive"))
	}
	if c.MaxLocal < 1 {
		errs = append(errs, errors.New("max_local: must be at least 1"))
	}
	return errors.Join(errs...)
}
