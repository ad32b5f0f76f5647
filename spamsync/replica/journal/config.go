package journal

import (
	"errors"
	"fmt"
	"time"
)

// Config bounds a journal.
type Config struct {
	MaxBytes  int64         `key:"max_size" default:"512MiB" doc:"Room on disk for the journal of Redis's changes; the oldest go first. It must hold what a split may take."`
	MaxAge    time.Duration `key:"max_age" default:"168h" doc:"How long changes are kept in the journal."`
	SyncEvery time.Duration `key:"sync_every" default:"50ms" doc:"Longest time a change waits until the journal is synced to disk."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{MaxBytes: 512 << 20, MaxAge: 168 * time.Hour, SyncEvery: 50 * time.Millisecond}
}

// minBytes is the smallest journal: a few segments.
const minBytes = 4 << 20

// Validate reports all faults at once, each with its key.
func (c Config) Validate() error {
	var errs []error
	if c.MaxBytes < minBytes {
		errs = append(errs, fmt.Errorf("max_size: %d is below %d", c.MaxBytes, minBytes))
	}
	if c.MaxAge < time.Minute {
		errs = append(errs, errors.New("max_age: must be at least 1m"))
	}
	if c.SyncEvery < time.Millisecond || c.SyncEvery > 10*time.Second {
		errs = append(errs, errors.New("sync_every: must be from 1ms to 10s"))
	}
	return errors.Join(errs...)
}
