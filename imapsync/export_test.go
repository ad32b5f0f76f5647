package imapsync

import "time"

// SetPower lets a test end the process before or after any commit of the base.
func (a *Account) SetPower(f func(after bool) error) { a.db.power = f }

// Hurry leaves the syncs out, for the tests end processes, not machines, and the
// wait for what a server may still have in its hands.
func (a *Account) Hurry() { a.db.bolt.NoSync, a.inFlight = true, 0 }

// WaitInFlight sets how long a pass waits for that.
func (a *Account) WaitInFlight(d time.Duration) { a.inFlight = d }
