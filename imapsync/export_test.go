package imapsync

// SetPower lets a test end the process before or after any commit of the base.
func (a *Account) SetPower(f func(after bool) error) { a.db.power = f }

// Hurry leaves the syncs out: the tests end processes, not machines.
func (a *Account) Hurry() { a.db.bolt.NoSync = true }
