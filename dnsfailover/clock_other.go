//go:build !linux

package dnsfailover

import "time"

// BootClock is the monotonic clock where there is no CLOCK_BOOTTIME.
type BootClock struct{ start time.Time }

// Now implements Clock.
func (c BootClock) Now() Instant { return Instant(time.Since(c.start)) }
