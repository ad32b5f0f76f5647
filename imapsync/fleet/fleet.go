package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
)

// ErrUnknown says that this fleet does not keep the account.
var ErrUnknown = errors.New("no such account here")

// Account is the base of one account, opened; *imapsync.Account is one. It is used
// by one goroutine at a time.
type Account interface {
	// Pass makes both sides converge once; see imapsync.Account.Pass for the errors.
	Pass(ctx context.Context, sides imapsync.Sides, opt imapsync.PassOptions) (imapsync.Report, error)
	// Status reads the base.
	Status() (imapsync.Status, error)
	// Approve lets the next pass carry a held deletion out, Reject lets it put the
	// messages back; an empty id means all. imapsync.ErrNoHold: there is none with
	// this id.
	Approve(id string) error
	Reject(id string) error
}

// Session is one account, opened: its base, and a connection to either site.
type Session struct {
	Account
	Sides imapsync.Sides
	// Close ends the connections and lets go of the base.
	Close func() error
}

// Opener opens accounts.
type Opener interface {
	// Open locks the account's base and makes stores, which connect when they are
	// first used. imapsync.ErrBusy: another process has it. It may be called for
	// several accounts at once.
	Open(ctx context.Context, a accounts.Account) (*Session, error)
}

// Alarms is told of accounts that are behind.
type Alarms interface {
	Raise(key, text string)
	Clear(key string)
}

// Deps is what a Fleet needs besides its configuration. Only Opener must be there.
type Deps struct {
	Opener Opener
	Logger *slog.Logger
	Alarms Alarms
	// Metrics may be nil.
	Metrics *Metrics
}

// Fleet runs passes of accounts.
type Fleet struct {
	cfg     Config
	deps    Deps
	workers *semaphore.Weighted
	watch   *semaphore.Weighted
	state   *ages
	keepers keepers
}

// New returns a Fleet.
func New(cfg Config, deps Deps) *Fleet {
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	return &Fleet{
		cfg: cfg, deps: deps,
		workers: semaphore.NewWeighted(int64(cfg.Workers)),
		watch:   semaphore.NewWeighted(int64(cfg.Watch)),
		state:   newAges(),
		keepers: keepers{byName: map[string]*keeper{}},
	}
}

// Result is what one pass of an account came to.
type Result struct {
	Account string
	Report  imapsync.Report
	// Err nil: both sides were reached and the base is saved. imapsync.ErrBusy:
	// another runner has the account.
	Err error
}

// Clean says that both sides are equal, as far as this pass knows.
func (r Result) Clean() bool { return r.Err == nil && r.Report.Clean() }

// pass runs one pass in a worker's place, within its time.
func (f *Fleet) pass(ctx context.Context, s *Session, name string, opt imapsync.PassOptions) Result {
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.Timeout, fmt.Errorf("the pass took longer than %v", f.cfg.Timeout))
	defer cancel()
	report, err := s.Pass(ctx, s.Sides, opt)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	r := Result{Account: name, Report: report, Err: err}
	f.note(r)
	return r
}

// note tells log, metrics and alarms of a result.
func (f *Fleet) note(r Result) {
	f.deps.Metrics.note(r)
	if !r.Report.DryRun {
		f.state.note(r, time.Now())
	}
	attrs := []any{"account", r.Account, "changes", r.Report.Changes(), "conflicts", len(r.Report.Conflicts), "duration", r.Report.Duration.Round(time.Millisecond)}
	switch {
	case errors.Is(r.Err, imapsync.ErrBusy):
		f.deps.Logger.Debug("account is busy", "account", r.Account)
	case errors.Is(r.Err, context.Canceled):
	case r.Err != nil:
		f.deps.Logger.Warn("account was not synchronised", append(attrs, "error", r.Err)...)
	case len(r.Report.Faults) > 0:
		f.deps.Logger.Warn("account is not equal", append(attrs, "faults", len(r.Report.Faults), "first", r.Report.Faults[0].String())...)
	case len(r.Report.Holds) > 0:
		f.deps.Logger.Warn("account has held deletions", append(attrs, "holds", len(r.Report.Holds))...)
	case r.Report.Changes() > 0:
		f.deps.Logger.Info("account synchronised", attrs...)
	}
}
