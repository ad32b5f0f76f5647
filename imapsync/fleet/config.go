package fleet

import (
	"errors"
	"fmt"
	"time"
)

// Config is how many accounts are worked on, and how often. It is part of the
// section "mailsync".
type Config struct {
	Workers  int           `key:"workers" default:"8" doc:"Accounts that are synchronised at the same time, each with a connection or two to either server."`
	Watch    int           `key:"watch" default:"100" doc:"Accounts that keep their connections open to be told of changes at once (NOTIFY or IDLE); the rest are looked at every interval. Keep it below what both servers allow."`
	Interval time.Duration `key:"interval" default:"1m" doc:"How often an account is looked at that nobody watches; a watched one at a tenth of that rate."`
	Debounce time.Duration `key:"debounce" default:"200ms" doc:"How long changes are gathered before a pass begins."`
	Timeout  time.Duration `key:"timeout" default:"1h" doc:"Longest time one pass of an account may take; the next one goes on where it ended."`
	Backoff  time.Duration `key:"backoff" default:"15m" doc:"Longest wait before an account that failed is tried again."`
	Refresh  time.Duration `key:"refresh" default:"10m" doc:"How often the list of accounts is asked for."`
	MaxAge   time.Duration `key:"max_age" default:"1h" doc:"An account without a clean pass for this long raises an alarm."`
}

// Validate returns all faults at once, each prefixed with its key.
func (c Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %w", key, fmt.Errorf(format, args...)))
	}
	if c.Workers < 1 || c.Workers > 1000 {
		fault("workers", "%d is not between 1 and 1000", c.Workers)
	}
	if c.Watch < 0 {
		fault("watch", "%d is negative", c.Watch)
	}
	for _, d := range []struct {
		key   string
		value time.Duration
		least time.Duration
	}{
		{"interval", c.Interval, time.Second},
		{"debounce", c.Debounce, 0},
		{"timeout", c.Timeout, time.Second},
		{"backoff", c.Backoff, time.Second},
		{"refresh", c.Refresh, time.Second},
		{"max_age", c.MaxAge, time.Second},
	} {
		if d.value < d.least {
			fault(d.key, "%v is less than %v", d.value, d.least)
		}
	}
	return errors.Join(faults...)
}
