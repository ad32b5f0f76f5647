package engine

import (
	"sync"
	"time"
)

// breaker leaves an engine alone that has failed too often in a row. After a
// cool-down one call tries it; the others go on without.
type breaker struct {
	threshold int // 0 never opens
	coolDown  time.Duration

	mu       sync.Mutex
	failures int
	open     bool
	until    time.Time // when a call may try
	probing  bool
}

// allow says whether a call may be made now. Who is allowed calls end.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return true
	}
	if b.probing || now.Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

// outcome is how an allowed call ended.
type outcome uint8

const (
	succeeded outcome = iota
	failed
	withdrawn // it says nothing about the engine
)

// end takes the outcome of an allowed call and says whether the breaker is open.
func (b *breaker) end(now time.Time, o outcome) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch o {
	case succeeded:
		b.failures, b.open = 0, false
	case failed:
		b.failures++
		if b.threshold > 0 && b.failures >= b.threshold {
			b.open, b.until = true, now.Add(b.coolDown)
		}
	case withdrawn:
	}
	return b.open
}
