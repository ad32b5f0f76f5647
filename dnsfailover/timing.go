package dnsfailover

import (
	"errors"
	"fmt"
	"time"
)

// Timing is the section "failover.timing": how long what may take. The defaults
// move the role about 37 s after the active site died, and never while it lives.
type Timing struct {
	// Poll is the time between two reads of the register.
	Poll time.Duration `key:"poll" default:"5s" doc:"Time between two reads of the register."`
	// Permit is L: how long one read of the register allows the active site to
	// act, counted from its sending.
	Permit time.Duration `key:"permit" default:"20s" doc:"How long one read of the register allows the active site to act, counted from the moment it was sent."`
	// Wait is W: how long a claim stands before the role is taken.
	Wait time.Duration `key:"wait" default:"23s" doc:"How long a claim stands in the register before the role is taken; at least permit x (1 + drift) / (1 - drift) + stop_allowance."`
	// StopAllowance is how long stopping work may take: it begins so long before
	// the permit ends.
	StopAllowance time.Duration `key:"stop_allowance" default:"2s" doc:"How long stopping work may take; it begins so long before the permit ends, and a claim waits so much longer."`
	// DriftPercent bounds how wrong the rate of a machine's clock may be.
	DriftPercent float64 `key:"drift_percent" default:"2" doc:"How wrong the rate of a machine's clock may be, in percent."`
	// Request bounds one exchange with the register.
	Request time.Duration `key:"request" default:"3s" doc:"How long one exchange with the register may take."`
	// Probe is the time between two probes.
	Probe time.Duration `key:"probe" default:"5s" doc:"Time between two probes of the services of either site; each may take as long; after a failure a site probes itself every second, and the other site every three fifths of this."`
	// Bad and Good are the hysteresis of probes.
	Bad  int `key:"bad" default:"3" doc:"How many probes in a row must fail before a site counts as failed."`
	Good int `key:"good" default:"10" doc:"How many probes in a row must succeed before a failed site counts as well again."`
	// Backoff is how long a claimant rests after its first objection.
	Backoff time.Duration `key:"backoff" default:"30s" doc:"How long a site makes no claim after the active one has objected; n times that after the n-th objection, at most ten times."`
	// BetweenMoves is how long after an automatic move there is no other.
	BetweenMoves time.Duration `key:"between_moves" default:"1h" doc:"How long after an automatic move there is no other, unless an operator acknowledges it."`
}

// The shortest times that make sense: below them a busy machine looks dead.
const (
	leastPermit = time.Second
	leastPoll   = 50 * time.Millisecond
)

// DefaultTiming is the timing of an empty section.
func DefaultTiming() Timing {
	return Timing{
		Poll: 5 * time.Second, Permit: 20 * time.Second, Wait: 23 * time.Second, StopAllowance: 2 * time.Second,
		DriftPercent: 2, Request: 3 * time.Second, Probe: 5 * time.Second, Bad: 3, Good: 10,
		Backoff: 30 * time.Second, BetweenMoves: time.Hour,
	}
}

// stretched is d on the fastest clock while d passes on the slowest.
func (t Timing) stretched(d time.Duration) time.Duration {
	drift := t.DriftPercent / 100
	return time.Duration(float64(d) * (1 + drift) / (1 - drift))
}

// Again is the time to the next probe of one's own services after one has failed:
// whoever is sick should know it soon.
func (t Timing) Again() time.Duration { return min(t.Probe, max(time.Second, t.Probe/5)) }

// Repeat is the time to the next probe of the other site after one has failed, and
// how long that may take. A dead site answers nothing, so each probe of it lasts as
// long as it may; with the whole of Probe the third failure would come too late.
func (t Timing) Repeat() time.Duration { return t.Probe * 3 / 5 }

// LeastWait is the bound below Wait: whoever waits so long knows that a permit
// read before has ended, and the work done under it too.
func (t Timing) LeastWait() time.Duration { return t.stretched(t.Permit) + t.StopAllowance }

// FenceTime is how long all fence hooks together may run, on any clock: they begin
// StopAllowance before the permit ends, and must be over when a claim becomes a take.
func (t Timing) FenceTime() time.Duration {
	drift := t.DriftPercent / 100
	return time.Duration(float64(t.Wait)*(1-drift)/(1+drift)) - (t.Permit - t.StopAllowance)
}

// Validate says what would make the timing unsafe or useless.
func (t Timing) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("timing.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if t.Permit < leastPermit {
		bad("permit", "%s is shorter than %s", t.Permit, leastPermit)
	}
	if t.Poll < leastPoll {
		bad("poll", "%s is shorter than %s", t.Poll, leastPoll)
	}
	if t.DriftPercent < 0 || t.DriftPercent > 10 {
		bad("drift_percent", "%g is not between 0 and 10", t.DriftPercent)
	}
	if t.StopAllowance < 0 || t.StopAllowance >= t.Permit/2 {
		bad("stop_allowance", "%s is not below half of permit (%s)", t.StopAllowance, t.Permit)
	}
	if least := t.LeastWait(); t.Wait < least {
		bad("wait", "%s is too short: a permit of %s may still be in force; at least %s", t.Wait, t.Permit, least)
	}
	// Two reads may be lost before the permit runs out.
	if 2*t.Poll+t.Request > t.Permit-t.StopAllowance {
		bad("poll", "%s leaves no time for a second try before the permit ends: 2 x poll + request must be at most permit - stop_allowance (%s)", t.Poll, t.Permit-t.StopAllowance)
	}
	if t.Request <= 0 {
		bad("request", "%s is not a time", t.Request)
	}
	if t.Probe < leastPoll {
		bad("probe", "%s is shorter than %s", t.Probe, leastPoll)
	}
	if t.Bad < 1 || t.Bad > 100 {
		bad("bad", "%d is not between 1 and 100", t.Bad)
	}
	if t.Good < 1 || t.Good > 1000 {
		bad("good", "%d is not between 1 and 1000", t.Good)
	}
	if t.Backoff < 0 {
		bad("backoff", "%s is negative", t.Backoff)
	}
	if t.BetweenMoves < 0 {
		bad("between_moves", "%s is negative", t.BetweenMoves)
	}
	return errors.Join(errs...)
}
