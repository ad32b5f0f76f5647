package recipients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"understudy/smtp"
)

// fetcher asks a source for all its addresses. It is called by one goroutine at
// a time.
type fetcher interface {
	// fetch adds all addresses to l and returns as of when they are; the zero time
	// where that is not known. errUnchanged says that nothing has changed since the
	// last successful call.
	fetch(ctx context.Context, l *listing) (asOf time.Time, err error)
}

// watcher is a fetcher that can tell when asking again is worth it.
type watcher interface {
	// watch calls notify after changes until ctx ends; it may return early.
	watch(ctx context.Context, notify func()) error
	// pollEvery is how often fetch is called at least; it is cheap.
	pollEvery() time.Duration
}

// errUnchanged is returned by fetch when there is nothing new.
var errUnchanged = errors.New("unchanged")

// state is what a source said at one moment. It is immutable.
type state struct {
	keys   *set
	tables []*table
	asOf   time.Time // zero where it is not known
	// whole is false where entries were malformed: what is missing may exist.
	whole bool
	// saved identifies the snapshot file that holds it; 0 is none.
	saved int64
}

// count returns the number of addresses and patterns.
func (s *state) count() int {
	if s == nil {
		return 0
	}
	n := s.keys.len()
	for _, t := range s.tables {
		n += len(t.rules)
	}
	return n
}

// find looks in the set, then in the tables, for which address is given as well.
// rule is the table's line, if it was one.
func (s *state) find(q query, address string) (m match, rule string, ok bool) {
	if s == nil {
		return matchNone, "", false
	}
	if m = q.find(s.keys); m != matchNone {
		return m, "", true
	}
	for _, t := range s.tables {
		if rule, ok = t.match(address); ok {
			return matchNone, rule, true
		}
	}
	return matchNone, "", false
}

func (s *state) same(t *state) bool {
	if s == nil || t == nil || len(s.tables) != len(t.tables) || s.whole != t.whole {
		return false
	}
	for i := range s.tables {
		if s.tables[i].source != t.tables[i].source || s.tables[i].format != t.tables[i].format {
			return false
		}
	}
	return s.keys.equal(t.keys)
}

// suspicious says why next must not replace old without approval; "" is fine.
func suspicious(old, next *state, sharePercent, count int) string {
	was, is := old.count(), next.count()
	lost := was - is
	switch {
	case is == 0 && old == nil:
		return "it has no addresses at all"
	case is == 0 && was > 0:
		return fmt.Sprintf("it lost all %d addresses", was)
	case lost >= count && lost*100 >= sharePercent*was:
		return fmt.Sprintf("it lost %d of %d addresses", lost, was)
	}
	return ""
}

// source is one source with what it last said.
type source struct {
	cfg     SourceConfig
	rules   rules
	ours    func(string) bool
	fetcher fetcher
	log     *slog.Logger
	alarms  smtp.Alarms
	metrics *metrics
	// keep stores a state for the next start; touch only its age.
	keep  func(*state) error
	touch func(*state) error

	mu      sync.RWMutex
	current *state // nil until something was believed
	pending *state // what is not believed yet
	why     string // why not
	err     error  // of the last fetch
	failed  int    // fetches in a row
	tried   time.Time
	stale   bool // the alarm was raised

	fetching sync.Mutex
	content  error // what was wrong with the list itself; held under fetching
}

// knowledge is a consistent view of a source for one look-up.
type knowledge struct {
	current, pending *state
	err              error
	why              string
}

func (s *source) knowledge() knowledge {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return knowledge{s.current, s.pending, s.err, s.why}
}

// find says whether the source has the address. What it says newly counts at
// once, even while its losses are not believed.
func (k knowledge) find(q query, address string) (m match, rule string, ok bool) {
	if m, rule, ok = k.current.find(q, address); ok {
		return m, rule, true
	}
	return k.pending.find(q, address)
}

// fresh says that the source's "no" can be relied on.
func (k knowledge) fresh(now time.Time, maxAge time.Duration) bool {
	return k.loaded() && (maxAge == 0 || !k.current.asOf.IsZero() && now.Sub(k.current.asOf) <= maxAge)
}

// age returns the age of what the source said, in seconds; -1 where that is not
// known.
func (k knowledge) age(now time.Time) float64 {
	if k.current == nil || k.current.asOf.IsZero() {
		return -1
	}
	return now.Sub(k.current.asOf).Seconds()
}

// loaded says that the source's "no" means something, old as it may be.
func (k knowledge) loaded() bool { return k.current != nil && k.current.whole }

// errUnknownAge: a replica that was started while its master was dead, for example.
var errUnknownAge = errors.New("the age of its list is not known")

// refresh asks the source once and decides what to believe.
func (s *source) refresh(ctx context.Context) error {
	s.fetching.Lock()
	defer s.fetching.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	began := time.Now()
	l := newListing(s.rules, s.cfg.BareDomains, s.ours)
	asOf, err := s.fetcher.fetch(ctx, l)
	if errors.Is(err, errUnchanged) {
		// Unchanged faults are still faults.
		s.settle(s.content, began)
		return s.content
	}
	s.metrics.fetch.WithLabelValues(s.cfg.Name).Observe(time.Since(began).Seconds())
	if err != nil {
		s.settle(err, began)
		return fmt.Errorf("source %s: %w", s.cfg.Name, err)
	}
	faulty := l.faulty()
	old := s.knowledge().current
	if asOf.IsZero() {
		if old != nil && !old.asOf.IsZero() {
			// It may be older than what is known.
			s.settle(errUnknownAge, began)
			return fmt.Errorf("source %s: %w", s.cfg.Name, errUnknownAge)
		}
		faulty = errors.Join(faulty, errUnknownAge)
	}
	s.content = faulty
	next := &state{keys: l.keys.done(), tables: l.tables, asOf: asOf, whole: l.faulty() == nil}
	if !next.whole && old != nil && old.whole {
		// A whole old list is better than a new one with holes.
		s.settle(faulty, began)
		return fmt.Errorf("source %s: %w", s.cfg.Name, faulty)
	}
	s.consider(next, false)
	s.settle(faulty, began)
	return nil
}

// consider makes next the current state, or keeps it pending.
func (s *source) consider(next *state, approved bool) {
	old := s.knowledge().current
	why := ""
	if !approved {
		why = suspicious(old, next, s.cfg.ShrinkShare, s.cfg.ShrinkCount)
	}
	if why != "" {
		s.mu.Lock()
		first := s.pending == nil
		s.pending, s.why = next, why
		s.mu.Unlock()
		s.alarms.Raise("recipients:"+s.cfg.Name+":shrunk", fmt.Sprintf("recipient source %s is not believed: %s; approve it if that is right", s.cfg.Name, why))
		if first {
			s.log.Warn("recipient source not believed", "source", s.cfg.Name, "reason", why, "entries", next.count())
		}
		return
	}
	save := s.keep
	if old.same(next) && old.saved != 0 {
		next = &state{keys: old.keys, tables: old.tables, asOf: next.asOf, whole: next.whole, saved: old.saved}
		save = s.touch
	}
	if err := save(next); err != nil {
		s.log.Warn("recipient snapshot not written", "source", s.cfg.Name, "err", err)
		s.alarms.Raise("recipients:"+s.cfg.Name+":snapshot", fmt.Sprintf("the recipients of source %s are not kept on disk: %v", s.cfg.Name, err))
	} else {
		s.alarms.Clear("recipients:" + s.cfg.Name + ":snapshot")
	}
	s.mu.Lock()
	s.current, s.pending, s.why = next, nil, ""
	s.mu.Unlock()
	s.alarms.Clear("recipients:" + s.cfg.Name + ":shrunk")
	s.metrics.entries.WithLabelValues(s.cfg.Name).Set(float64(next.count()))
	if !old.same(next) {
		s.log.Info("recipients read", "source", s.cfg.Name, "entries", next.count(), "before", old.count())
	}
}

// errNothingPending is returned by approve where there is nothing to approve.
var errNothingPending = errors.New("nothing waits for approval")

// approve believes the pending state.
func (s *source) approve() error {
	s.fetching.Lock()
	defer s.fetching.Unlock()
	next := s.knowledge().pending
	if next == nil {
		return errNothingPending
	}
	s.consider(next, true)
	return nil
}

// settle notes how a fetch ended and keeps the alarms in step.
func (s *source) settle(err error, now time.Time) {
	s.mu.Lock()
	was := s.err
	s.err, s.tried = err, now
	if err == nil {
		s.failed = 0
	} else {
		s.failed++
	}
	failed := s.failed
	s.mu.Unlock()
	key := "recipients:" + s.cfg.Name
	switch {
	case err == nil:
		s.alarms.Clear(key)
		return
	case s.cfg.Kind == KindFile, failed >= 3:
		// One missed answer of a remote source is no news: its age tells.
		s.alarms.Raise(key, fmt.Sprintf("recipient source %s: %v; the last good list stays in force", s.cfg.Name, err))
	}
	s.metrics.errors.WithLabelValues(s.cfg.Name).Inc()
	if was == nil || was.Error() != err.Error() {
		s.log.Warn("recipient source failed", "source", s.cfg.Name, "err", err)
	}
}

// checkAge keeps the alarm about a stale source in step.
func (s *source) checkAge(now time.Time) {
	k := s.knowledge()
	stale := k.current != nil && !k.fresh(now, s.cfg.MaxAge)
	key := "recipients:" + s.cfg.Name + ":stale"
	if stale {
		of := "unknown age"
		if !k.current.asOf.IsZero() {
			of = k.current.asOf.UTC().Format(time.RFC3339)
		}
		s.alarms.Raise(key, fmt.Sprintf("recipient source %s is stale: its list is of %s", s.cfg.Name, of))
	} else if s.stale {
		s.alarms.Clear(key)
	}
	s.stale = stale
}

// run refreshes the source until ctx ends. skipFirst says that it was just read.
func (s *source) run(ctx context.Context, skipFirst bool) {
	every := s.cfg.Interval
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	if w, ok := s.fetcher.(watcher); ok {
		every = min(every, w.pollEvery())
		watching.Go(func() {
			err := w.watch(ctx, func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
			if err != nil && ctx.Err() == nil {
				s.log.Warn("recipient file is not watched, only polled", "source", s.cfg.Name, "err", err)
			}
		})
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if !skipFirst {
			// The error is in the status, the log and the alarm.
			_ = s.refresh(ctx)
		}
		skipFirst = false
		s.checkAge(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
		}
	}
}
