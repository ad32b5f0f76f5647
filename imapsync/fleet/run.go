package fleet

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
)

const (
	// firstBackoff is the wait after the first failure of an account.
	firstBackoff = 5 * time.Second
	// ageCheck is how often the ages of accounts are looked at.
	ageCheck = time.Minute
	// watchedShare is how much rarer a watched account is looked at without cause.
	watchedShare = 10
)

// Run keeps the accounts that list returns synchronised until ctx ends, and
// returns nil then. list is asked again every Config.Refresh; an account that is
// no longer in it is left alone. When list fails, the accounts stay as they are.
func (f *Fleet) Run(ctx context.Context, list func(context.Context) ([]accounts.Account, error)) error {
	var wg sync.WaitGroup
	running := map[string]*runner{}
	defer wg.Wait()
	wg.Go(func() {
		for sleep(ctx, ageCheck) {
			f.checkAges(time.Now())
		}
	})
	for first := true; ; first = false {
		got, err := list(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			f.deps.Logger.Warn("list of accounts cannot be had", "error", err)
			f.raise("mailsync:accounts", "the list of accounts cannot be had: "+err.Error())
		default:
			f.clear("mailsync:accounts")
			f.adopt(ctx, &wg, running, got, first)
		}
		wait := f.cfg.Refresh
		if err != nil {
			wait = min(wait, time.Minute)
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// runner is one account of a running fleet.
type runner struct {
	account accounts.Account
	cancel  context.CancelFunc
}

// adopt starts the accounts that are new, and stops those that are gone or whose
// login changed.
func (f *Fleet) adopt(ctx context.Context, wg *sync.WaitGroup, running map[string]*runner, list []accounts.Account, first bool) {
	wanted := make(map[string]accounts.Account, len(list))
	for _, a := range list {
		wanted[a.Name] = a
	}
	for name, r := range running {
		if a, ok := wanted[name]; !ok || !a.Equal(r.account) {
			r.cancel()
			delete(running, name)
			if !ok {
				f.state.forget(name)
				f.deps.Metrics.forget(name)
			}
		}
	}
	now := time.Now()
	for _, a := range list {
		if running[a.Name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		running[a.Name] = &runner{account: a, cancel: cancel}
		f.state.expect(a.Name, now)
		// A restart must not log in everybody at once.
		var delay time.Duration
		if first && len(list) > f.cfg.Workers {
			delay = rand.N(f.cfg.Interval)
		}
		wg.Go(func() { f.keep(ctx, a, delay) })
	}
	f.deps.Metrics.accounts(len(list))
}

// keep runs passes of one account until ctx ends.
func (f *Fleet) keep(ctx context.Context, a accounts.Account, delay time.Duration) {
	k := &keeper{fleet: f, account: a, poke: make(chan struct{}, 1)}
	f.keepers.put(k)
	defer f.keepers.remove(k)
	defer k.close()
	failures := 0
	for k.sleep(ctx, delay) {
		if err := k.pass(ctx); err != nil {
			k.close()
			delay = f.backoff(failures)
			failures++
			continue
		}
		failures = 0
		delay = k.wait(ctx)
	}
}

// keeper is the connection of one account, while it has one.
type keeper struct {
	fleet   *Fleet
	account accounts.Account
	watched bool          // holds one of the places of Config.Watch
	poke    chan struct{} // makes the account due now

	mu      sync.Mutex // held while the base is used
	session *Session
}

// sleep is sleep, ended early by a poke.
func (k *keeper) sleep(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-k.poke:
		return true
	case <-ctx.Done():
		return errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
}

// pass waits for a worker's place and runs one pass.
func (k *keeper) pass(ctx context.Context) error {
	f := k.fleet
	if err := f.workers.Acquire(ctx, 1); err != nil {
		return err
	}
	defer f.workers.Release(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session == nil {
		s, err := f.deps.Opener.Open(ctx, k.account)
		if err != nil {
			f.note(Result{Account: k.account.Name, Err: err})
			return err
		}
		k.session = s
	}
	return f.pass(ctx, k.session, k.account.Name, imapsync.PassOptions{}).Err
}

// wait returns when the account is due again, with how long to gather changes
// before: at once when a server told of a change.
func (k *keeper) wait(ctx context.Context) time.Duration {
	f := k.fleet
	if !k.watched {
		k.watched = f.watch.TryAcquire(1)
	}
	if !k.watched {
		k.close()
		return jitter(f.cfg.Interval)
	}
	ctx, cancel := context.WithTimeout(ctx, watchedShare*jitter(f.cfg.Interval))
	defer cancel()
	go func() {
		select {
		case <-k.poke:
			cancel()
		case <-ctx.Done():
		}
	}()
	group, watch := errgroup.WithContext(ctx)
	watching := 0
	for _, store := range []imapsync.Store{k.session.Sides.A, k.session.Sides.B} {
		w, ok := store.(imapsync.Watcher)
		if !ok {
			continue
		}
		watching++
		group.Go(func() error {
			// The first change on either side ends the watch of both.
			err := w.Watch(watch, func(string) { cancel() })
			if err != nil && watch.Err() == nil {
				return err
			}
			return nil
		})
	}
	if watching < 2 {
		// A server that cannot tell: its side is looked at.
		group.Go(func() error { sleep(watch, jitter(f.cfg.Interval)); cancel(); return nil })
	}
	if err := group.Wait(); err != nil {
		f.deps.Logger.Debug("watch ended", "account", k.account.Name, "error", err)
		k.close()
		return jitter(firstBackoff)
	}
	return f.cfg.Debounce
}

// close ends the session, if there is one, and gives its place away.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session != nil {
		if err := k.session.Close(); err != nil && !errors.Is(err, context.Canceled) {
			k.fleet.deps.Logger.Debug("session did not end well", "account", k.account.Name, "error", err)
		}
		k.session = nil
	}
	if k.watched {
		k.fleet.watch.Release(1)
		k.watched = false
	}
}

// backoff is the wait after that many failures before.
func (f *Fleet) backoff(failures int) time.Duration {
	return jitter(min(f.cfg.Backoff, firstBackoff<<min(failures, 20)))
}

// jitter is d, give or take a fifth.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/5 + rand.N(2*d/5+1)
}

// sleep waits for d and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
