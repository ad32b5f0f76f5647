package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
)

// Spool keeps accepted mail. Its methods may be called concurrently.
type Spool struct {
	cfg      Config
	schedule Schedule
	logger   *slog.Logger
	alarms   smtp.Alarms
	fs       durable.FS
	nextHop  func() string
	bouncer  Bouncer
	clock    clock
	idents   idents
	space    *space
	memory   budget
	buffers  *buffers
	scratch  scratch
	log      *durable.Log
	unlock   func()
	watchers watchers
	metrics  *metrics
	rules    atomic.Pointer[[]HoldRule]
	rulesMu  sync.Mutex // one change of the rules at a time
	closing  sync.Once
	running  atomic.Bool
	closed   atomic.Bool
	// dirty: the disk has refused records, so that the log may lack states the
	// index has. The next checkpoint cures that, and shows whether the disk can be
	// written again where nobody else does.
	dirty atomic.Bool

	// pending is held for reading while a message is on disk and not in the index
	// yet; see settled.
	pending sync.RWMutex

	mu       sync.Mutex
	messages map[ident]*message
	reserved map[ident]bool // ids of imports that are not stored yet
	routes   map[string]*route
	changed  chan struct{} // closed when the set of routes changes
	segments map[uint64]*segment
	doomed   []tomb
	totals   totals

	// These belong to the goroutine of Run, and to Open before it.
	checkpoint checkpointInfo
}

// segment is what the index knows of one segment file.
type segment struct {
	live      int   // messages
	liveBytes int64 // theirs
	// deadSince is when the first message in it left the queue, in Unix
	// nanoseconds; 0 while none has.
	deadSince int64
	// keep: it has bytes that could not be read and must not be removed.
	keep bool
}

// tomb is a spill file that can go once its message's tombstone is synced.
type tomb struct {
	id   ident
	gen  uint64
	name ident
}

// totals are kept so that nobody has to count a million messages.
type totals struct {
	messages [stateEnd]int
	bytes    [stateEnd]int64
	causes   [causeEnd]int
}

const stateEnd = 4

// stateIndex numbers the states in the order operators read them.
func stateIndex(s State) int {
	switch s {
	case Queued:
		return 0
	case Active:
		return 1
	case Held:
		return 2
	case Refused:
	}
	return 3
}

func allStates() [stateEnd]State { return [stateEnd]State{Queued, Active, Held, Refused} }

func (t *totals) add(m *message, sign int) {
	i := stateIndex(m.state())
	t.messages[i] += sign
	t.bytes[i] += int64(sign) * m.size
	t.causes[m.cause] += sign
}

// Open opens the spool in cfg.Dir: it takes the directory's lock and recovers
// what is there. Run must be called next, or Close.
func Open(cfg Config, deps Deps) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := newSpool(cfg, deps)
	if err := s.fs.MkdirAll(s.spillDir(), 0o700); err != nil {
		return nil, fmt.Errorf("create spool directory: %w", err)
	}
	s.space.measure()
	if deps.FS == nil {
		unlock, err := durable.Lock(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("lock spool: %w", err)
		}
		s.unlock = unlock
	}
	if err := s.open(deps); err != nil {
		s.unlock()
		return nil, err
	}
	return s, nil
}

func newSpool(cfg Config, deps Deps) *Spool {
	s := &Spool{
		cfg: cfg, schedule: Schedule{cfg.RetryFirst, cfg.RetryMax},
		logger: deps.Logger, alarms: deps.Alarms, fs: deps.FS, nextHop: deps.NextHop, bouncer: deps.Bouncer,
		clock: newClock(), memory: budget{limit: cfg.MemoryBytes}, buffers: newBuffers(cfg.SpillBytes),
		unlock: func() {}, messages: make(map[ident]*message), reserved: make(map[ident]bool), routes: make(map[string]*route),
		changed: make(chan struct{}), segments: make(map[uint64]*segment),
	}
	s.cfg.DomainLifetimes = make(map[string]time.Duration, len(cfg.DomainLifetimes))
	for domain, d := range cfg.DomainLifetimes {
		s.cfg.DomainLifetimes[strings.ToLower(domain)] = d
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.alarms == nil {
		s.alarms = silent{}
	}
	if s.fs == nil {
		s.fs = durable.OS()
	}
	if s.nextHop == nil {
		s.nextHop = func() string { return "" }
	}
	s.space = newSpace(cfg, deps, s.clock)
	s.metrics = newMetrics(s, deps.Registerer)
	return s
}

// silent is what tells nobody.
type silent struct{}

func (silent) Raise(string, string) {}
func (silent) Clear(string)         {}

func (s *Spool) open(deps Deps) error {
	log, err := durable.OpenLog(durable.LogConfig{
		Dir: s.logDir(), FS: s.fs, Name: "spool", SegmentBytes: s.cfg.SegmentBytes,
		MaxRecordBytes: maxRecord(s.cfg), Logger: s.logger, Registerer: deps.Registerer, OnHealth: s.diskHealth,
		NoSpare: deps.noSpare,
	})
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	s.log = log
	if err := s.recover(); err != nil {
		return errors.Join(fmt.Errorf("recover spool: %w", err), log.Close())
	}
	s.raiseCounts()
	return nil
}

// maxRecord is the largest record: an inline body, a big envelope and a state.
func maxRecord(cfg Config) int64 { return min(cfg.SegmentBytes/4, 16<<20) }

// diskHealth is called by the log's writer.
func (s *Spool) diskHealth(err error) {
	s.dirty.Store(true)
	if err == nil {
		s.alarms.Clear("queue:disk")
		return
	}
	s.alarms.Raise("queue:disk", "the spool cannot be written: "+err.Error())
}

// Run writes the log and keeps the spool in order until ctx ends. While it does
// not run, Commit and Apply wait. When it returns the spool is closed.
func (s *Spool) Run(ctx context.Context) error {
	s.running.Store(true)
	logCtx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLog()
	ended := make(chan error, 1)
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	go func() {
		ended <- s.log.Run(logCtx)
		stopWork()
	}()
	s.maintain(work)
	if ctx.Err() != nil {
		// A checkpoint makes the next start fast. Without it nothing is lost.
		last, cancel := context.WithTimeout(logCtx, 30*time.Second)
		if err := s.writeCheckpoint(last); err != nil {
			s.logger.Warn("no checkpoint at the end", "err", err)
		}
		cancel()
	}
	stopLog()
	err := <-ended
	s.running.Store(false)
	return errors.Join(err, s.Close())
}

// settled returns when every message that was on disk at the call is in the index.
func (s *Spool) settled() {
	s.pending.Lock()
	defer s.pending.Unlock()
}

// Close closes a spool whose Run has returned or was never called. Run calls it.
func (s *Spool) Close() error {
	if s.running.Load() {
		return errors.New("close spool: it is running")
	}
	var err error
	s.closing.Do(func() {
		s.closed.Store(true)
		s.watchers.close()
		s.metrics.unregister()
		err = s.log.Close()
		s.unlock()
	})
	return err
}

// routeNamed returns the route, new where needed. Spool.mu is held.
func (s *Spool) routeNamed(name string) *route {
	r := s.routes[name]
	if r == nil {
		r = newRoute(name)
		s.routes[name] = r
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return r
}

// join puts m on a route. Spool.mu is held.
func (s *Spool) join(m *message, name string) {
	r := s.routeNamed(name)
	r.members++
	m.route = r
}

// leave takes m off its route. Spool.mu is held.
func (s *Spool) leave(m *message) {
	r := m.route
	r.drop(m)
	r.members--
	if r.members == 0 && r.name != "" {
		delete(s.routes, r.name)
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// arrange puts m into the heap of its route or takes it out, as its state wants.
// Spool.mu is held.
func (s *Spool) arrange(m *message) {
	if m.phase == phaseQueued && !m.loaned && !m.gone {
		m.route.push(m)
		return
	}
	m.route.drop(m)
}

// insert puts m into the index. Spool.mu is held.
func (s *Spool) insert(m *message, route string) {
	s.messages[m.id] = m
	s.totals.add(m, 1)
	s.join(m, route)
	s.occupy(m)
	s.arrange(m)
}

// remove takes m out of the index; its bytes are dead from now on. It returns the
// tombstone for the log. Spool.mu is held.
func (s *Spool) remove(m *message, now time.Time) []byte {
	delete(s.messages, m.id)
	s.totals.add(m, -1)
	m.gone = true
	s.leave(m)
	s.vacate(m.pos, m.disk, now.UnixNano())
	m.gen++
	s.bury(m, m.gen)
	return appendTombstone(nil, m.id, m.gen, now)
}

// bury notes the spill file of a removed message. Spool.mu is held.
func (s *Spool) bury(m *message, gen uint64) {
	if m.spill != nil {
		s.doomed = append(s.doomed, tomb{m.id, gen, m.spill.name})
	}
}

// occupy and vacate keep account of what is alive in the segments. Spool.mu is
// held.
func (s *Spool) occupy(m *message) {
	g := s.segment(m.pos.Segment)
	g.live++
	g.liveBytes += m.disk
}

func (s *Spool) vacate(pos durable.Pos, disk, at int64) {
	g := s.segment(pos.Segment)
	g.live--
	g.liveBytes -= disk
	if g.deadSince == 0 || at < g.deadSince {
		g.deadSince = at
	}
}

func (s *Spool) segment(id uint64) *segment {
	g := s.segments[id]
	if g == nil {
		g = &segment{}
		s.segments[id] = g
	}
	return g
}

// enter makes a message that is on disk known.
func (s *Spool) enter(m *message, route string) {
	s.mu.Lock()
	s.insert(m, route)
	phase, reason := m.phase, m.reason
	s.mu.Unlock()
	s.metrics.accepted(m.size)
	id := m.id.String()
	s.logger.Info("queued", "queue_id", id, "from", m.sender, "size", m.size, "nrcpt", len(m.rcpts))
	if s.watchers.any() {
		now := time.Now()
		s.watchers.send(Event{Time: now, Kind: EventQueued, ID: id, Sender: m.sender, SizeBytes: m.size})
		if phase == phaseHeld {
			s.watchers.send(Event{Time: now, Kind: EventHeld, ID: id, Sender: m.sender, Text: reason})
		}
	}
}

// Expedite makes everything waiting for route due now, oldest first: the hop is
// back.
func (s *Spool) Expedite(route string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.routes[route]; r != nil {
		r.expedite(s.clock.now())
	}
}

// Routes lists the routes that have mail; "" is always among them, first.
func (s *Spool) Routes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{""}
	for name := range s.routes {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// RoutesChanged returns a channel that is closed at the next change of Routes.
func (s *Spool) RoutesChanged() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// ignoreMissing drops "does not exist".
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
