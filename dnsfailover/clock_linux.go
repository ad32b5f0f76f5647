package dnsfailover

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootClock is CLOCK_BOOTTIME (clock_gettime(2)): Go's own monotonic clock does
// not count the time of a suspended machine, and a permit does.
type BootClock struct{}

// Now implements Clock.
func (BootClock) Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Instant(time.Since(time.Time{})) // no Linux without it since 2.6.39
	}
	return Instant(ts.Nano())
}
