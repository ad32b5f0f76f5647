package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// ages remembers when each account was last clean.
type ages struct {
	mu    sync.Mutex
	clean map[string]time.Time // since the start of this process, where it never was
	last  map[string]Result
}

func newAges() *ages {
	return &ages{clean: map[string]time.Time{}, last: map[string]Result{}}
}

// expect begins to count for an account.
func (a *ages) expect(name string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.clean[name]; !ok {
		a.clean[name] = now
	}
}

func (a *ages) note(r Result, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, kept := a.clean[r.Account]; !kept {
		return // the last pass of an account that has left the list
	}
	if r.Clean() {
		a.clean[r.Account] = now
	}
	a.last[r.Account] = r
}

func (a *ages) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.clean, name)
	delete(a.last, name)
}

// Stale is an account that has not been clean for a while.
type Stale struct {
	Account string        `json:"account"`
	Age     time.Duration `json:"age_ns"` // since the last clean pass, or since the start
	Reason  string        `json:"reason"`
}

// Stale lists the accounts without a clean pass for longer than age, the oldest first.
func (f *Fleet) Stale(age time.Duration) []Stale {
	return f.state.stale(age, time.Now())
}

func (a *ages) stale(age time.Duration, now time.Time) []Stale {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Stale
	for name, at := range a.clean {
		if d := now.Sub(at); d > age {
			out = append(out, Stale{Account: name, Age: d, Reason: reason(a.last[name])})
		}
	}
	slices.SortFunc(out, func(x, y Stale) int { return cmp.Or(-cmp.Compare(x.Age, y.Age), strings.Compare(x.Account, y.Account)) })
	return out
}

// reason says in one line why a pass was not clean.
func reason(r Result) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case len(r.Report.Faults) > 0:
		return r.Report.Faults[0].String()
	case len(r.Report.Holds) > 0:
		h := r.Report.Holds[0]
		return fmt.Sprintf("%d deletions in %s are held: %s", h.Messages, h.Folder, h.Reason)
	case r.Account == "":
		return "has not been looked at yet"
	default:
		return "the mailboxes change faster than they are synchronised"
	}
}

// Status is the fleet in a few numbers.
type Status struct {
	Accounts int           `json:"accounts"`
	Clean    int           `json:"clean"` // their last pass left both sides equal
	Holds    int           `json:"holds"`
	Oldest   time.Duration `json:"oldest_ns"` // longest time without a clean pass
	Stale    []Stale       `json:"stale,omitempty"`
}

// Status says how the accounts are; Stale are those beyond Config.MaxAge.
func (f *Fleet) Status() Status {
	now := time.Now()
	s := Status{Stale: f.state.stale(f.cfg.MaxAge, now)}
	f.state.mu.Lock()
	defer f.state.mu.Unlock()
	s.Accounts = len(f.state.clean)
	for name, at := range f.state.clean {
		s.Oldest = max(s.Oldest, now.Sub(at))
		last, ok := f.state.last[name]
		if ok && last.Clean() {
			s.Clean++
		}
		s.Holds += len(last.Report.Holds)
	}
	return s
}

// checkAges raises or clears the alarm about accounts that are behind.
func (f *Fleet) checkAges(now time.Time) {
	stale := f.state.stale(f.cfg.MaxAge, now)
	f.deps.Metrics.stale(len(stale))
	if len(stale) == 0 {
		f.clear("mailsync:stale")
		return
	}
	f.raise("mailsync:stale", fmt.Sprintf("%d accounts have not been equal for more than %v, %s for %v: %s",
		len(stale), f.cfg.MaxAge, stale[0].Account, stale[0].Age.Round(time.Minute), stale[0].Reason))
}

func (f *Fleet) raise(key, text string) {
	if f.deps.Alarms != nil {
		f.deps.Alarms.Raise(key, text)
	}
}

func (f *Fleet) clear(key string) {
	if f.deps.Alarms != nil {
		f.deps.Alarms.Clear(key)
	}
}
