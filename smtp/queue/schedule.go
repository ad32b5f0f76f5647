package queue

import "time"

// Schedule says how long a recipient waits after a failed attempt.
type Schedule struct {
	// First is the wait after the first failure; it doubles with every further one.
	First time.Duration
	// Max bounds the wait.
	Max time.Duration
}

// Wait returns the wait after attempt failures (1 is the first). Jitter, from 0
// to 1, shortens it by up to a quarter, so that what failed together does not
// come back together.
func (s Schedule) Wait(attempt int, jitter float64) time.Duration {
	wait := min(s.First, s.Max)
	for i := 1; i < attempt && wait < s.Max; i++ {
		// Compare before doubling: a long First must not overflow.
		if wait > s.Max/2 {
			wait = s.Max
			break
		}
		wait *= 2
	}
	jitter = min(max(jitter, 0), 1)
	return wait - time.Duration(float64(wait/4)*jitter)
}

// clock turns wall time into instants that a clock set back or forward does not
// move: nanoseconds of the monotonic clock since the spool was opened.
type clock struct{ base time.Time }

func newClock() clock { return clock{time.Now()} }

// now is the present instant; it is at least 1. Instant 0 is "long due".
func (c clock) now() int64 { return int64(time.Since(c.base)) + 1 }

// wall is the wall time of an instant, as the clock stands now.
func (c clock) wall(instant int64) time.Time {
	return time.Now().Add(time.Duration(instant - c.now())).Round(0)
}

// instant is the instant of a wall time from an earlier run, given in Unix
// nanoseconds; 0 is "long due". However the clock was set meanwhile, it is at
// most limit from now.
func (c clock) instant(wall int64, limit time.Duration) int64 {
	wait := time.Duration(wall - time.Now().UnixNano())
	if wall == 0 || wait <= 0 {
		return 0
	}
	return c.now() + int64(min(wait, limit))
}
