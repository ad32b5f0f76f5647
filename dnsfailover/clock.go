package dnsfailover

import "time"

// Instant is a moment on a clock that never steps and does not stop while the
// machine is suspended; only differences mean anything. 0 is no moment.
type Instant time.Duration

// Add is the moment d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is how much later i is than j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Clock tells the moment. Safe for concurrent use.
type Clock interface{ Now() Instant }
