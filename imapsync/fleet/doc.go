// Package fleet keeps many accounts synchronised: once, as cron does, or for as
// long as the daemon runs.
//
// At most Config.Workers passes run at the same time, in the order in which the
// accounts became due, so that one large account delays the others by no more
// than its share. An account that fails waits longer each time and never holds up
// another. In continuous mode some accounts keep their connections and are told
// of changes; how many is bounded, because a server has only so many processes,
// and the rest are looked at every Config.Interval.
//
//	f := fleet.New(cfg, deps)
//	summary := f.Once(ctx, list, imapsync.PassOptions{}, nil)
//	err := f.Run(ctx, func(ctx context.Context) ([]accounts.Account, error) { … })
package fleet
