package imapsync

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Config is how accounts are synchronised. It is part of the section "mailsync".
type Config struct {
	// Guard holds large deletions.
	Guard GuardConfig `key:"guard"`
	// Prefer is the side that wins where both moved or renamed the same thing.
	// It is no key: the assembly takes the primary's side.
	Prefer string `key:"-"`
	// KeepFlags outlive a deletion on the other side.
	KeepFlags []string `key:"keep_flags" default:"\\Flagged" doc:"A message that gets one of these flags on one side while it is deleted on the other survives."`
	// Exclude are patterns of folders.
	Exclude []string `key:"exclude" doc:"Folders that are left out; * stands for anything within one level, ** for anything."`
	// Foreign takes shared folders in.
	Foreign bool `key:"foreign" default:"false" doc:"Also synchronises shared folders and those of other users."`
	// Quarantine keeps deleted messages.
	Quarantine time.Duration `key:"quarantine" default:"0s" doc:"Messages deleted on one side are kept for this time in a hidden folder of the other; 0s deletes them."`
	// Lease is how long another runner stays away after this one wrote.
	Lease time.Duration `key:"lease" default:"1m" doc:"A runner on another machine does not touch an account for this long after the last change by this one."`
	// Rounds bounds how often one pass looks again.
	Rounds int `key:"rounds" default:"4" doc:"A pass looks again until nothing is left to do, at most this often."`
	// SharedValidity lets folders through whose UIDVALIDITY is the same on both sides.
	SharedValidity bool `key:"allow_same_uidvalidity" default:"false" doc:"Synchronises folders that have the same UIDVALIDITY and different UIDs on both sides; mail programs then show wrong messages after a failover."`
	// RetryRefused is when a message that a server refused is offered again.
	RetryRefused time.Duration `key:"retry_refused" default:"24h" doc:"A message that was refused (too large, for example) is offered again after this time."`
}

// GuardConfig are the thresholds of the delete guard.
type GuardConfig struct {
	// Off lets everything through.
	Off bool `key:"off" default:"false" doc:"Lets deletions of any size through at once."`
	// Messages is the least number that is held.
	Messages int `key:"messages" default:"50" doc:"Fewer deletions than this in one folder, and in the account, are never held."`
	// BoxPercent of a folder.
	BoxPercent int `key:"box_percent" default:"10" doc:"Deletions in one folder are held above this share of its messages."`
	// AccountPercent of an account.
	AccountPercent int `key:"account_percent" default:"20" doc:"All deletions of an account are held above this share of its messages."`
	// Emptied is about folders that end up empty.
	Emptied int `key:"emptied" default:"10" doc:"The deletions are held where a folder that had at least this many messages is suddenly empty or gone; 0 does not look."`
	// Exempt are special uses.
	Exempt []string `key:"exempt" default:"\\Trash, \\Junk" doc:"Special uses of folders whose deletions are never held."`
	// Expire is how long a hold waits.
	Expire time.Duration `key:"expire" default:"336h" doc:"Held deletions that nobody approved for this long are rejected: the messages come back."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Guard: GuardConfig{
			Messages: 50, BoxPercent: 10, AccountPercent: 20, Emptied: 10,
			Exempt: []string{`\Trash`, `\Junk`}, Expire: 14 * 24 * time.Hour,
		},
		Prefer:       "a",
		KeepFlags:    []string{`\Flagged`},
		Lease:        time.Minute,
		Rounds:       4,
		RetryRefused: 24 * time.Hour,
	}
}

// Validate returns all faults, each with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	percent := func(key string, n int) {
		if n < 0 || n > 100 {
			fault(key, "%d is not between 0 and 100", n)
		}
	}
	percent("guard.box_percent", c.Guard.BoxPercent)
	percent("guard.account_percent", c.Guard.AccountPercent)
	if c.Guard.Messages < 0 {
		fault("guard.messages", "%d is negative", c.Guard.Messages)
	}
	if c.Guard.Emptied < 0 {
		fault("guard.emptied", "%d is negative", c.Guard.Emptied)
	}
	if c.Guard.Expire < time.Hour {
		fault("guard.expire", "%v is too short, at least 1h", c.Guard.Expire)
	}
	if _, err := ParseSide(cmp.Or(c.Prefer, "a")); err != nil {
		fault("prefer", "%q is neither a nor b", c.Prefer)
	}
	if c.Quarantine < 0 {
		fault("quarantine", "%v is negative", c.Quarantine)
	}
	if c.Lease < time.Second || c.Lease > time.Hour {
		fault("lease", "%v is not between 1s and 1h", c.Lease)
	}
	if c.Rounds < 1 || c.Rounds > 100 {
		fault("rounds", "%d is not between 1 and 100", c.Rounds)
	}
	if c.RetryRefused < 0 {
		fault("retry_refused", "%v is negative", c.RetryRefused)
	}
	for _, p := range c.Exclude {
		if _, err := compileGlob(p); err != nil {
			fault("exclude", "%q: %w", p, err)
		}
	}
	return errors.Join(errs...)
}
