package imapsync

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
)

// What Pass and Open return besides errors of the stores.
var (
	// ErrBusy: another runner works on this account (lock file, or a lease on the servers).
	ErrBusy = errors.New("another runner is at work on this account")
	// ErrNoHold: there is no hold with this id.
	ErrNoHold = errors.New("no such hold")
	// ErrState: the file of the base cannot be read; move it away to pair again by content.
	ErrState = errors.New("base is damaged")
)

// Sides are the two stores of an account.
type Sides struct{ A, B Store }

// Deps is what an Account needs besides its configuration. Every field may be zero.
type Deps struct {
	Logger *slog.Logger
	// Now is the wall clock; time.Now by default.
	Now func() time.Time
}

// Status is what the base knows without asking any server.
type Status struct {
	LastPass   time.Time `json:"last_pass"`  // end of the last pass that reached both sides
	LastClean  time.Time `json:"last_clean"` // end of the last pass that left both sides equal
	LastError  string    `json:"last_error,omitempty"`
	Messages   int       `json:"messages"` // pairs
	Folders    int       `json:"folders"`
	Generation uint64    `json:"generation"`
	Pending    int       `json:"pending"`   // intents without a confirmation
	Conflicts  uint64    `json:"conflicts"` // decided so far
	Holds      []Hold    `json:"holds,omitempty"`
}

// Passer runs an account; *Account implements it.
type Passer interface {
	Pass(ctx context.Context, sides Sides, opt PassOptions) (Report, error)
	Status() (Status, error)
	Holds() ([]Hold, error)
	Approve(id string) error
	Reject(id string) error
}

var _ Passer = (*Account)(nil)

// Account is the base of one account, and what runs passes over it. The file is
// locked while it is open. Methods may be called by one goroutine at a time.
type Account struct {
	db   *db
	cfg  Config
	deps Deps
	plan planConfig
	excl []glob
	// inFlight is the constant; tests play servers that are at once.
	inFlight time.Duration
}

// Open opens the base in the file path, or begins one. ErrBusy: another process has
// it open.
func Open(path string, cfg Config, deps Deps) (*Account, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	prefer, err := ParseSide(cmp.Or(cfg.Prefer, "a"))
	if err != nil {
		return nil, err
	}
	excl, err := compileGlobs(cfg.Exclude)
	if err != nil {
		return nil, err
	}
	var keep Flags
	for _, f := range cfg.KeepFlags {
		keep = keep.Union(NewFlags(imap.Flag(f)))
	}
	d, err := openDB(path, false)
	if err != nil {
		return nil, err
	}
	return &Account{db: d, cfg: cfg, deps: deps, excl: excl, inFlight: inFlight, plan: planConfig{
		guard: cfg.Guard, prefer: prefer, keep: keep, retry: cfg.RetryRefused, sharedValidity: cfg.SharedValidity,
	}}, nil
}

// Close lets the file go.
func (a *Account) Close() error { return a.db.close() }

// Pass makes both sides converge once. The error is nil when both sides were
// reached and the base was saved: Report.Clean says whether they are equal.
// ErrBusy: another runner is at work, nothing was done. Anything else: a store
// failed; what was confirmed is saved, and the next pass goes on from there.
func (a *Account) Pass(ctx context.Context, sides Sides, opt PassOptions) (Report, error) {
	include, err := compileGlobs(opt.Folders)
	if err != nil {
		return Report{}, fmt.Errorf("folder pattern: %w", err)
	}
	r := &runner{
		a: a, stores: [2]Store{sides.A, sides.B}, opt: opt,
		filter:   filter{exclude: a.excl, include: include, foreign: a.cfg.Foreign},
		noRename: make(map[string]bool), id: rand.Text(),
		report: &Report{Started: a.deps.Now(), DryRun: opt.DryRun},
	}
	err = r.run(ctx)
	r.report.Duration = a.deps.Now().Sub(r.report.Started)
	if !opt.DryRun && !errors.Is(err, ErrBusy) {
		if saveErr := r.remember(err); saveErr != nil {
			err = errors.Join(err, saveErr)
		}
	}
	return *r.report, err
}

// Status reads the base.
func (a *Account) Status() (Status, error) {
	img, err := a.db.load()
	if err != nil {
		return Status{}, err
	}
	m := img.meta
	return Status{
		LastPass: m.LastPass, LastClean: m.LastClean, LastError: m.LastError, Messages: img.total(), Folders: len(img.boxes),
		Generation: m.Generation, Pending: len(img.intents), Conflicts: m.Conflicts, Holds: img.holds,
	}, nil
}

// Holds lists the deletions that wait.
func (a *Account) Holds() ([]Hold, error) {
	img, err := a.db.load()
	if err != nil {
		return nil, err
	}
	return img.holds, nil
}

// Approve lets the next pass carry a held deletion out; an empty id means all that wait.
func (a *Account) Approve(id string) error { return a.settle(id, holdApproved) }

// Reject lets the next pass put the messages back where they were deleted; an
// empty id means all.
func (a *Account) Reject(id string) error { return a.settle(id, holdRejected) }

func (a *Account) settle(id, state string) error {
	holds, err := a.Holds()
	if err != nil {
		return err
	}
	var c change
	for _, h := range holds {
		if h.ID == id || id == "" && h.State == holdWaiting {
			h.State = state
			c.putHolds = append(c.putHolds, h)
		}
	}
	if len(c.putHolds) == 0 && id != "" {
		return fmt.Errorf("%s: %w", id, ErrNoHold)
	}
	return a.db.apply(c)
}

// runner is one pass.
type runner struct {
	id       string // of this pass, in its markers
	a        *Account
	stores   [2]Store
	opt      PassOptions
	filter   filter
	report   *Report
	img      *image
	list     [2]Listing
	claimed  time.Time       // when the lease began; zero: not yet
	again    bool            // something was not settled: look once more
	noRename map[string]bool // folders of the base whose renaming was refused in this pass
	mu       sync.Mutex
	progress Progress
}

// run goes round until there is nothing left to do.
func (r *runner) run(ctx context.Context) error {
	for r.report.Rounds < r.a.cfg.Rounds {
		r.report.Rounds++
		r.report.Faults, r.again = nil, false
		steps, err := r.round(ctx)
		if err != nil {
			return err
		}
		if r.opt.DryRun {
			return nil
		}
		if steps == 0 && !r.again {
			r.report.Converged = true
			return nil
		}
	}
	return nil
}

// remember writes how the pass ended.
func (r *runner) remember(passErr error) error {
	img, err := r.a.db.load()
	if err != nil {
		return err
	}
	m := &img.meta
	now := r.a.deps.Now()
	m.Conflicts += uint64(len(r.report.Conflicts))
	r.report.Holds = img.holds
	if passErr != nil {
		m.LastError = passErr.Error()
	} else {
		m.LastError, m.LastPass = "", now
		if r.report.Clean() {
			m.LastClean = now
		}
	}
	return r.a.db.apply(change{meta: m})
}

// tell reports progress.
func (r *runner) tell(change func(p *Progress)) {
	if r.opt.Progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.progress)
	r.opt.Progress(r.progress)
}
