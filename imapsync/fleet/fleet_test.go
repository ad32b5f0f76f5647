package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
)

// world is an Opener whose accounts do what a test says, and which writes down
// what happened.
type world struct {
	mu      sync.Mutex
	passes  map[string][]time.Duration // since the start
	start   time.Time
	running int
	most    int
	open    int
	// takes is how long a pass lasts, fails what it returns.
	takes  func(account string) time.Duration
	fails  func(account string) error
	report func(account string) imapsync.Report
	// pushes makes every store tell of changes when one is sent; nil: they cannot.
	pushes map[string]chan struct{}
}

func newWorld() *world {
	return &world{passes: map[string][]time.Duration{}, start: time.Now()}
}

type fakePasser struct {
	Account
	w    *world
	name string
}

func (w *world) Open(_ context.Context, a accounts.Account) (*Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	s := &Session{Account: &fakePasser{w: w, name: a.Name}, Close: func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open--
		return nil
	}}
	if c := w.pushes[a.Name]; c != nil {
		s.Sides = imapsync.Sides{A: &pushing{changes: c}, B: &pushing{}}
	}
	return s, nil
}

// pushing is a store that can only tell of changes.
type pushing struct {
	imapsync.Store
	changes chan struct{}
}

func (p *pushing) Watch(ctx context.Context, changed func(string)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.changes:
			changed("INBOX")
		}
	}
}

func (p *fakePasser) Pass(ctx context.Context, _ imapsync.Sides, opt imapsync.PassOptions) (imapsync.Report, error) {
	w := p.w
	w.mu.Lock()
	w.passes[p.name] = append(w.passes[p.name], time.Since(w.start))
	w.running++
	w.most = max(w.most, w.running)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running--
		w.mu.Unlock()
	}()
	if opt.Progress != nil {
		opt.Progress(imapsync.Progress{Phase: "list"})
	}
	if w.takes != nil && !sleep(ctx, w.takes(p.name)) {
		return imapsync.Report{}, ctx.Err()
	}
	report := imapsync.Report{Converged: true}
	if w.report != nil {
		report = w.report(p.name)
	}
	if w.fails != nil {
		return report, w.fails(p.name)
	}
	return report, nil
}

func (w *world) times(name string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.passes[name])
}

func config() Config {
	return Config{
		Workers: 4, Watch: 2, Interval: time.Minute, Debounce: 200 * time.Millisecond,
		Timeout: time.Hour, Backoff: 15 * time.Minute, Refresh: 10 * time.Minute, MaxAge: time.Hour,
	}
}

func people(n int) []accounts.Account {
	var list []accounts.Account
	for i := range n {
		list = append(list, accounts.Account{Name: fmt.Sprintf("u%02d@example.com", i)})
	}
	return list
}

func TestOnceCountsAndBoundsPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = func(string) time.Duration { return time.Second }
		w.fails = func(name string) error {
			switch name {
			case "u03@example.com":
				return errors.New("the server is away")
			case "u04@example.com":
				return imapsync.ErrBusy
			}
			return nil
		}
		w.report = func(name string) imapsync.Report {
			r := imapsync.Report{Converged: true}
			switch name {
			case "u05@example.com":
				r.Holds = []imapsync.Hold{{ID: "1"}}
			case "u06@example.com":
				r.Faults = []imapsync.Fault{{Kind: "over-quota"}}
			case "u07@example.com":
				r.Sides[1].Appended = 3
			}
			return r
		}
		var mu sync.Mutex
		var progress, done int
		f := New(config(), Deps{Opener: w, Metrics: NewMetrics(nil)})
		got := f.Once(t.Context(), people(12), imapsync.PassOptions{}, Watcher{
			Progress: func(string, imapsync.Progress) { mu.Lock(); progress++; mu.Unlock() },
			Done:     func(Result) { mu.Lock(); done++; mu.Unlock() },
		})
		want := Summary{Accounts: 12, Clean: 8, Changed: 1, Held: 1, Faulty: 2, Busy: 1, Failed: 1}
		if got != want {
			t.Errorf("summary %+v, want %+v", got, want)
		}
		if w.most != 4 {
			t.Errorf("%d passes at once, want 4", w.most)
		}
		if w.open != 0 {
			t.Errorf("%d accounts are still open", w.open)
		}
		if progress != 12 || done != 12 {
			t.Errorf("progress %d, done %d, want 12 of each", progress, done)
		}
		if d := time.Since(w.start); d != 3*time.Second {
			t.Errorf("12 passes of a second by 4 workers took %v", d)
		}
	})
}

func TestOneHangingAccountCostsItsTimeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = func(name string) time.Duration {
			if name == "u00@example.com" {
				return 100 * time.Hour
			}
			return time.Second
		}
		var bad error
		f := New(config(), Deps{Opener: w})
		got := f.Once(t.Context(), people(4), imapsync.PassOptions{}, Watcher{Done: func(r Result) {
			if r.Err != nil {
				bad = r.Err
			}
		}})
		if got.Clean != 3 || got.Failed != 1 || bad == nil || !strings.Contains(bad.Error(), "longer than 1h") {
			t.Errorf("%+v, error %v", got, bad)
		}
	})
}

// run starts a fleet and returns a function that ends it.
func run(t *testing.T, f *Fleet, list func(context.Context) ([]accounts.Account, error)) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, list) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestEveryAccountHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = func(name string) time.Duration {
			if name == "u00@example.com" {
				return 30 * time.Minute // a first copy
			}
			return 100 * time.Millisecond
		}
		f := New(config(), Deps{Opener: w})
		stop := run(t, f, func(context.Context) ([]accounts.Account, error) { return people(200), nil })
		time.Sleep(10 * time.Minute) //nolint:forbidigo // a bubble's clock
		stop()
		if w.most > 4 {
			t.Errorf("%d passes at once", w.most)
		}
		if w.open != 0 {
			t.Errorf("%d accounts are still open", w.open)
		}
		for i := 1; i < 200; i++ {
			// One a minute; three workers have 20 s of work a minute beside the large one.
			if n := len(w.times(fmt.Sprintf("u%02d@example.com", i))); n < 7 || n > 13 {
				t.Errorf("account %d had %d passes in 10 minutes", i, n)
			}
		}
	})
}

func TestWatchedAccountIsDoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		push := make(chan struct{})
		w.pushes = map[string]chan struct{}{"u00@example.com": push}
		f := New(config(), Deps{Opener: w})
		stop := run(t, f, func(context.Context) ([]accounts.Account, error) { return people(1), nil })
		time.Sleep(30 * time.Second) //nolint:forbidigo // a bubble's clock
		push <- struct{}{}
		time.Sleep(time.Second) //nolint:forbidigo // a bubble's clock
		stop()
		got := w.times("u00@example.com")
		want := []time.Duration{0, 30*time.Second + 200*time.Millisecond}
		if !slices.Equal(got, want) {
			t.Errorf("passes at %v, want %v", got, want)
		}
		if w.open != 0 {
			t.Errorf("%d accounts are still open", w.open)
		}
	})
}

func TestFailuresWaitLongerAndAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fails = func(name string) error {
			if name == "u00@example.com" {
				return errors.New("login refused")
			}
			return nil
		}
		alarms := &alarmBook{}
		f := New(config(), Deps{Opener: w, Alarms: alarms})
		stop := run(t, f, func(context.Context) ([]accounts.Account, error) { return people(3), nil })
		time.Sleep(2 * time.Hour) //nolint:forbidigo // a bubble's clock
		status := f.Status()
		stop()
		if n := len(w.times("u00@example.com")); n < 10 || n > 25 {
			t.Errorf("%d tries in two hours", n)
		}
		if n := len(w.times("u01@example.com")); n < 100 {
			t.Errorf("the failing account held up another: %d passes", n)
		}
		if text := alarms.text("mailsync:stale"); !strings.Contains(text, "u00@example.com") || !strings.Contains(text, "login refused") {
			t.Errorf("alarm %q", text)
		}
		if status.Accounts != 3 || status.Clean != 2 || len(status.Stale) != 1 || status.Stale[0].Reason != "login refused" {
			t.Errorf("status %+v", status)
		}
	})
}

func TestListThatFailsStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		alarms := &alarmBook{}
		var asked int
		f := New(config(), Deps{Opener: w, Alarms: alarms})
		stop := run(t, f, func(context.Context) ([]accounts.Account, error) {
			asked++
			switch {
			case asked == 1:
				return people(3), nil
			case asked < 30:
				return nil, errors.New("the database is away")
			default:
				return people(2), nil // one left
			}
		})
		time.Sleep(30 * time.Minute) //nolint:forbidigo // a bubble's clock
		before := len(w.times("u02@example.com"))
		told := alarms.text("mailsync:accounts")
		time.Sleep(30 * time.Minute) //nolint:forbidigo // a bubble's clock
		after := len(w.times("u02@example.com"))
		cleared := alarms.text("mailsync:accounts")
		time.Sleep(30 * time.Minute) //nolint:forbidigo // a bubble's clock
		end := len(w.times("u02@example.com"))
		stop()
		if before < 20 || !strings.Contains(told, "the database is away") || cleared != "" {
			t.Errorf("%d passes, alarm %q, later %q", before, told, cleared)
		}
		if stale := f.Stale(0); len(stale) > 0 && slices.ContainsFunc(stale, func(s Stale) bool { return s.Account == "u02@example.com" }) {
			t.Error("an account that left the list is still waited for")
		}
		if end != after {
			t.Errorf("an account that left the list had %d more passes", end-after)
		}
	})
}

type alarmBook struct {
	mu    sync.Mutex
	texts map[string]string
}

func (a *alarmBook) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.texts == nil {
		a.texts = map[string]string{}
	}
	a.texts[key] = text
}

func (a *alarmBook) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.texts, key)
}

func (a *alarmBook) text(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.texts[key]
}

// What an operator does to an account waits for its pass, and the account is due
// at once.
func TestOperatorsComeBetweenPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = func(string) time.Duration { return 10 * time.Second }
		f := New(config(), Deps{Opener: w})
		stop := run(t, f, func(context.Context) ([]accounts.Account, error) { return people(1), nil })
		defer stop()
		time.Sleep(time.Second) //nolint:forbidigo // a bubble's clock
		var at time.Duration
		if err := f.With(t.Context(), "u00@example.com", func(Account) (bool, error) {
			at = time.Since(w.start)
			return true, nil
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // a bubble's clock
		if at < 10*time.Second || at > 11*time.Second {
			t.Errorf("the base was used at %v, during the pass", at)
		}
		if got := w.times("u00@example.com"); len(got) != 2 || got[1] > 11*time.Second {
			t.Errorf("passes at %v, want the second at once", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.With(ctx, "u00@example.com", nil); !errors.Is(err, imapsync.ErrBusy) {
			t.Errorf("during a pass: %v", err)
		}
		if err := f.With(t.Context(), "nobody", nil); !errors.Is(err, ErrUnknown) {
			t.Errorf("unknown account: %v", err)
		}
	})
}
