package dnsfailover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Peer is the link to the other site. internal/peer's Link implements it.
type Peer interface {
	// Call asks the other site; an error says nothing about what it did.
	Call(ctx context.Context, method string, in, out any) error
}

// Alarms tells people; smtp.Alarms has its contract.
type Alarms interface {
	Raise(key, text string)
	Clear(key string)
}

// Zone is one zone that is not the register's, and who changes it.
type Zone struct {
	// Name ends in a dot.
	Name      string
	Publisher Publisher
}

// Actor does what follows from a change of view.
type Actor struct {
	Name string
	// Limit bounds one call.
	Limit time.Duration
	// Do brings about what the view says. It is idempotent and is called again,
	// with the same view, until it returns nil.
	Do func(ctx context.Context, v View) error
}

// Deps are what a Controller needs from outside.
type Deps struct {
	// Site is this one; Sites both, in the configured order; Primary who is active
	// in mode observe without a register.
	Site    Site
	Sites   [2]Site
	Primary Site
	// Hash is the first 8 digits of the configuration's hash.
	Hash string
	// Dir is for the state and the history.
	Dir string
	// Arbiter holds the register. RegisterZone is its zone, whose records move with
	// it; "" where it has no records. Zones are the others.
	Arbiter      Arbiter
	RegisterZone string
	Zones        []Zone
	// Self probes this site's services, Public the other's; nil: nothing is probed.
	Self, Public Prober
	// Peer is the link; nil: there is none.
	Peer Peer
	// Actors are called in this order on a promotion, and in reverse else.
	Actors []Actor
	// Hook runs a hook with the environment given; nil where there are none.
	Hook func(ctx context.Context, name string, env map[string]string, limit time.Duration) error
	// Gates say what speaks against a switchover to the other site; each text names
	// a reason. nil: nothing.
	Gates func(ctx context.Context) []string
	// Clock is BootClock where nil.
	Clock Clock

	Logger     *slog.Logger
	Alarms     Alarms
	Registerer prometheus.Registerer
}

// Controller runs a Machine: it carries out what it wants, tells it what came of
// that, and publishes its view.
type Controller struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	clock   Clock
	peer    Site
	records []Managed
	feed    *Feed
	history *history
	metrics *metrics

	machine *Machine // of the loop
	events  chan told
	snap    atomic.Pointer[Snapshot]
	saysNow atomic.Pointer[PeerState]
	ended   chan struct{}
	work    sync.WaitGroup // goroutines of the loop's actions

	jobs *jobs

	mu      sync.Mutex
	saved   savedState
	steps   []Step // of the last look at the records
	planErr string
	planAt  time.Time
	doubted atomic.Bool // the last probe of this site's services has failed
	wake    chan struct{}
}

// told is an event on its way to the loop; actions, where somebody waits for
// them, gets what the machine wants.
type told struct {
	ev      Event
	actions chan<- []Action
}

// ErrEnded is what a Controller answers once it has stopped.
var ErrEnded = errors.New("failover has stopped")

// NewController reads the state of dir. It neither dials nor starts anything.
func NewController(cfg Config, deps Deps) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Clock == nil {
		deps.Clock = BootClock{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	records, err := NewRecords(cfg.Records)
	if err != nil {
		return nil, err
	}
	c := &Controller{
		cfg: cfg, deps: deps, log: deps.Logger, clock: deps.Clock, records: records,
		events: make(chan told), ended: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	c.peer = deps.Sites[0]
	if c.peer == deps.Site {
		c.peer = deps.Sites[1]
	}
	if err := c.checkZones(); err != nil {
		return nil, err
	}
	if c.saved, err = loadState(deps.Dir); err != nil {
		return nil, err
	}
	if c.history, err = openHistory(deps.Dir, deps.Site); err != nil {
		return nil, err
	}
	if c.metrics, err = newMetrics(deps.Registerer, c); err != nil {
		return nil, errors.Join(err, c.history.close())
	}
	c.machine = NewMachine(MachineConfig{
		Site: deps.Site, Peer: c.peer, Primary: deps.Primary, Mode: cfg.Mode, Timing: cfg.Timing, Hash: deps.Hash,
		Nonce: NewNonce, Wall: func() int64 { return time.Now().Unix() },
		Maintenance: c.saved.Maintenance, Forced: c.saved.Forced, QuietFor: c.saved.quietFor(time.Now(), cfg.Timing),
	}, c.clock.Now())
	v, until := c.machine.View()
	c.feed = NewFeed(v)
	c.feed.publish(v, until, c.clock)
	says := c.machine.Says()
	c.saysNow.Store(&says)
	snap := c.machine.Snapshot()
	c.snap.Store(&snap)
	c.jobs = newJobs(c, v)
	return c, nil
}

// Feed is where the view is read.
func (c *Controller) Feed() *Feed { return c.feed }

// Run decides and acts until ctx ends. Its end moves nothing: the role stays
// where it is until somebody claims it.
func (c *Controller) Run(ctx context.Context) error {
	defer close(c.ended)
	var parts sync.WaitGroup
	pctx, cancel := context.WithCancel(ctx)
	for _, part := range []func(context.Context){
		c.jobs.run, c.probeSelf, c.probePublic, c.talk, c.lookAtRecords,
	} {
		parts.Go(func() { part(pctx) })
	}
	c.history.add("started", fmt.Sprintf("mode %s", c.cfg.Mode))
	c.loop(ctx)
	cancel()
	parts.Wait()
	c.work.Wait()
	c.history.add("stopped", "")
	return c.history.close()
}

// loop is the machine's: nobody else touches it.
func (c *Controller) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var t told
		select {
		case <-ctx.Done():
			return
		case t = <-c.events:
		case <-timer.C:
			t = told{ev: Tick{}}
		}
		actions := c.machine.Step(c.clock.Now(), t.ev)
		c.publish()
		for _, a := range actions {
			c.do(ctx, a)
		}
		if t.actions != nil {
			t.actions <- actions
		}
		timer.Reset(max(time.Millisecond, c.machine.Next().Sub(c.clock.Now())))
	}
}

// publish makes the machine's view everybody's.
func (c *Controller) publish() {
	v, until := c.machine.View()
	if until != 0 {
		v.Until = time.Now().Add(until.Sub(c.clock.Now()))
	}
	c.feed.publish(v, until, c.clock)
	c.jobs.changed(v)
	says := c.machine.Says()
	c.saysNow.Store(&says)
	snap := c.machine.Snapshot()
	c.snap.Store(&snap)
	c.remember(snap)
}

// tell gives the loop an event and does not wait for what comes of it.
func (c *Controller) tell(ctx context.Context, ev Event) {
	select {
	case c.events <- told{ev: ev}:
	case <-ctx.Done():
	case <-c.ended:
	}
}

// ask gives the loop an event and returns what the machine wanted.
func (c *Controller) ask(ctx context.Context, ev Event) ([]Action, error) {
	actions := make(chan []Action, 1)
	select {
	case c.events <- told{ev: ev, actions: actions}:
	case <-ctx.Done():
		return nil, fmt.Errorf("ask failover: %w", ctx.Err())
	case <-c.ended:
		return nil, ErrEnded
	}
	select {
	case a := <-actions:
		return a, nil
	case <-c.ended:
		return nil, ErrEnded
	}
}

// do carries out one action; what takes time is done in a goroutine of its own
// that tells the loop.
func (c *Controller) do(ctx context.Context, a Action) {
	switch a := a.(type) {
	case Read:
		c.goDo(func() { c.tell(ctx, c.read(ctx)) })
	case Swap:
		c.goDo(func() { c.tell(ctx, c.swapRegister(ctx, a)) })
	case AskPromise:
		c.goDo(func() { c.tell(ctx, c.askPromise(ctx, a)) })
	case StopWork:
		c.jobs.barrier(func(ctx context.Context) { c.tell(ctx, Stopped(a)) })
	case NudgePeer:
		c.goDo(func() { c.nudge(ctx) })
	case SaveForced:
		c.goDo(func() { c.saveForced(ctx, a.Epoch) })
	case Note:
		c.log.Info("failover", "what", a.Kind, "text", a.Text, "epoch", c.machine.reg.Epoch)
		c.history.add(a.Kind, a.Text)
		c.metrics.note(a.Kind)
	case Alarm:
		if c.deps.Alarms == nil {
			return
		}
		if a.Text == "" {
			c.deps.Alarms.Clear(a.Key)
		} else {
			c.deps.Alarms.Raise(a.Key, a.Text)
		}
	}
}

func (c *Controller) goDo(f func()) { c.work.Go(f) }

// Snapshot is what the machine knew after its last event.
func (c *Controller) Snapshot() Snapshot { return *c.snap.Load() }

// LinkChanged tells that the link to the peer came up or went down. It does not
// block for long: the loop does no I/O.
func (c *Controller) LinkChanged(ctx context.Context, up bool) { c.tell(ctx, Link{Up: up}) }

// Configure changes the mode and the configuration hash while running.
func (c *Controller) Configure(ctx context.Context, mode Mode, hash string) {
	c.tell(ctx, Configured{Mode: mode, Hash: hash})
}
