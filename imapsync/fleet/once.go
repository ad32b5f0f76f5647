package fleet

import (
	"context"
	"errors"
	"sync"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
)

// Summary counts the results of one sweep.
type Summary struct {
	Accounts int `json:"accounts"`
	Clean    int `json:"clean"`
	Changed  int `json:"changed"` // accounts in which something changed
	Held     int `json:"held"`
	Faulty   int `json:"faulty"` // reached, but not equal
	Busy     int `json:"busy"`
	Failed   int `json:"failed"`
}

// add counts r.
func (s *Summary) add(r Result) {
	s.Accounts++
	switch {
	case errors.Is(r.Err, imapsync.ErrBusy):
		s.Busy++
	case r.Err != nil:
		s.Failed++
	case r.Clean():
		s.Clean++
	default:
		s.Faulty++
	}
	if len(r.Report.Holds) > 0 {
		s.Held++
	}
	if r.Report.Changes() > 0 {
		s.Changed++
	}
}

// Watcher follows a sweep; both functions may be nil, and both may be called from
// several goroutines at once.
type Watcher struct {
	// Progress is told how far the pass of an account is.
	Progress func(account string, p imapsync.Progress)
	// Done is told of every finished account.
	Done func(Result)
}

// Once runs one pass of every account of list and returns when all are done. A
// cancelled ctx ends it early; accounts that were not begun count as failed.
func (f *Fleet) Once(ctx context.Context, list []accounts.Account, opt imapsync.PassOptions, w Watcher) Summary {
	var (
		sum Summary
		mu  sync.Mutex
		wg  sync.WaitGroup
	)
	finish := func(r Result) {
		mu.Lock()
		sum.add(r)
		mu.Unlock()
		if w.Done != nil {
			w.Done(r)
		}
	}
	for _, a := range list {
		if err := f.workers.Acquire(ctx, 1); err != nil {
			finish(Result{Account: a.Name, Err: context.Cause(ctx)})
			continue
		}
		wg.Go(func() {
			defer f.workers.Release(1)
			finish(f.one(ctx, a, opt, w))
		})
	}
	wg.Wait()
	return sum
}

// one opens an account, runs one pass and closes it.
func (f *Fleet) one(ctx context.Context, a accounts.Account, opt imapsync.PassOptions, w Watcher) Result {
	s, err := f.deps.Opener.Open(ctx, a)
	if err != nil {
		r := Result{Account: a.Name, Err: err}
		f.note(r)
		return r
	}
	if w.Progress != nil {
		opt.Progress = func(p imapsync.Progress) { w.Progress(a.Name, p) }
	}
	r := f.pass(ctx, s, a.Name, opt)
	if err := s.Close(); err != nil && r.Err == nil {
		f.deps.Logger.Debug("session did not end well", "account", a.Name, "error", err)
	}
	return r
}
