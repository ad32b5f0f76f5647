package wire

import "time"

// pace decides how long a sender may be silent inside a message. It has a credit
// of time: waiting spends it, every byte earns 1/rate seconds of it, up to full. So
// a sender may pause for as long as full, but one that is slower than rate on the
// whole runs out.
type pace struct {
	full, credit time.Duration
	rate         int64 // bytes a second; 0: any progress restores the credit
	end          time.Time
}

func newPace(now time.Time, full, total time.Duration, rate int64) pace {
	return pace{full: full, credit: full, rate: rate, end: now.Add(total)}
}

// deadline is when the next read must have brought something.
func (p *pace) deadline(now time.Time) time.Time {
	d := now.Add(p.credit)
	if d.After(p.end) {
		return p.end
	}
	return d
}

// progress accounts for a read of n bytes that took waited.
func (p *pace) progress(waited time.Duration, n int) {
	if p.rate <= 0 {
		p.credit = p.full
		return
	}
	// n is at most a buffer's length, so this cannot overflow.
	earned := time.Duration(int64(n) * int64(time.Second) / p.rate)
	p.credit = min(p.full, max(0, p.credit-waited)+earned)
}

// cap brings the end forward to at most d from now.
func (p *pace) cap(now time.Time, d time.Duration) {
	if t := now.Add(d); t.Before(p.end) {
		p.end = t
	}
}
