package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"understudy/smtp"
	"understudy/spamsync"
	"understudy/spamsync/replica/journal"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// alarmPrefix starts the key of every alarm of this package.
const alarmPrefix = "spam:replica:"

// Deps are what a Keeper works with.
type Deps struct {
	// Site is this site, Peer the other.
	Site, Peer string
	// HomeHere says whether this site's Redis takes the writes, until SetHome says
	// otherwise.
	HomeHere bool
	// Redis has the addresses: Address, Peer and WriteListen must be set.
	Redis spamsync.RedisConfig
	// Dir is a directory for this package alone.
	Dir string
	// Alarms, Logger and Registerer; the last may be nil.
	Alarms     smtp.Alarms
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Keeper watches both Redis, asks Machine, and does what it says.
type Keeper struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	password string
	username string
	peerAt   Address

	local, peer *redis.Client
	endpoint    *Endpoint
	gate        *Gate
	journal     *journal.Journal
	machine     *Machine
	metrics     *metrics
	localPort   int

	events chan event
	// unrecorded: this site detaches, and where is not recorded yet.
	unrecorded atomic.Bool
	hurried    atomic.Int64 // until when both are looked at more often, Unix nanoseconds

	merging sync.Mutex // held by whoever merges, or previews

	mu       sync.Mutex
	homeHere bool
	approved bool
	waiting  []chan error // of operators who approved
	rec      record
	seen     [2]Seen // local, peer
	out      Output
	since    time.Time // of out.State
	busy     Action
	did      Action    // the last one that ended
	acted    time.Time // when the last action ended: older looks do not count
	cutOver  bool
	failed   mergeFailure
	failedAt time.Time
	failure  string
	report   *merge.Report
	lag      lag
	raised   map[string]bool
}

// actAgain is how long an action that failed is not repeated.
const actAgain = 500 * time.Millisecond

// event is what wakes the loop.
type event struct {
	done bool // an action has ended
	err  error
}

// New makes a keeper. It reads files, and neither dials nor listens.
func New(cfg Config, d Deps) (*Keeper, error) {
	if d.Redis.Address == "" || d.Redis.Peer == "" || d.Redis.WriteListen == "" {
		return nil, errors.New("address, peer and write_listen: all three are needed")
	}
	if err := errors.Join(cfg.Validate(), Loopback(d.Redis.WriteListen)); err != nil {
		return nil, err
	}
	k := &Keeper{
		cfg: cfg, deps: d, log: d.Logger.With("part", "replica"), username: cfg.AdminUsername, homeHere: d.HomeHere,
		events: make(chan event, 16), since: time.Now(), out: Output{State: Starting}, raised: map[string]bool{},
	}
	var err error
	if k.password, err = cfg.password(); err != nil {
		return nil, err
	}
	if cfg.AdminPasswordFile == "" && d.Redis.PasswordFile != "" {
		c := Config{AdminPasswordFile: d.Redis.PasswordFile}
		if k.password, err = c.password(); err != nil {
			return nil, err
		}
		if k.username == "" {
			k.username = d.Redis.Username
		}
	}
	if k.peerAt, err = cfg.peer(d.Redis.Peer); err != nil {
		return nil, err
	}
	if k.localPort, err = portOf(d.Redis.Address); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of replication: %w", err)
	}
	if k.rec, err = readRecord(d.Dir); err != nil {
		return nil, err
	}
	if k.journal, err = journal.Open(journal.Options{
		Dir: d.Dir + "/journal", Config: cfg.Journal, Logger: k.log, Registerer: d.Registerer,
	}); err != nil {
		// Replication without a journal is better than none: the backlog remains.
		k.journal = nil
		d.Alarms.Raise(alarmPrefix+"journal", "the journal of the spam state cannot be opened: "+err.Error())
	}
	k.local = k.client(Address{Addr: d.Redis.Address})
	k.peer = k.client(k.peerAt)
	k.endpoint = NewEndpoint(d.Redis.WriteListen, k.log)
	k.gate = NewGate(cfg.GateListen, k.peerAt, k.log)
	k.machine = &Machine{DetachAfter: cfg.DetachAfter, Gate: cfg.GateListen, Peer: d.Redis.Peer}
	k.metrics = newMetrics(k, d.Registerer)
	return k, nil
}

func portOf(addr string) (int, error) {
	_, text, ok := cutLast(addr, ':')
	var port int
	if _, err := fmt.Sscanf(text, "%d", &port); err != nil || !ok {
		return 0, fmt.Errorf("%q is not host:port", addr)
	}
	return port, nil
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// client makes an administrator's client.
func (k *Keeper) client(a Address) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: a.Addr, TLSConfig: a.TLS, Username: k.username, Password: k.password, DB: k.deps.Redis.DB, Protocol: 2,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		DialTimeout: lookWait, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, PoolSize: 4,
	})
}

// stream says how the replication stream of the local Redis is read.
func (k *Keeper) stream() stream.Options {
	return stream.Options{Addr: k.deps.Redis.Address, User: k.username, Password: k.password}
}

// Listen opens the endpoint and the gate.
func (k *Keeper) Listen(ctx context.Context) error {
	if err := k.endpoint.Listen(ctx); err != nil {
		return err
	}
	if err := k.gate.Listen(ctx); err != nil {
		return errors.Join(err, k.endpoint.l.Close())
	}
	k.machine.Gate = k.gate.Addr()
	return nil
}

// Endpoint is where filters write, after Listen.
func (k *Keeper) Endpoint() string { return k.endpoint.Addr() }

// Close frees what Run has not, after it has returned or instead of it.
func (k *Keeper) Close() error {
	err := errors.Join(k.local.Close(), k.peer.Close())
	if k.journal != nil {
		err = errors.Join(err, k.journal.Close())
	}
	return err
}

// SetHome says which site's Redis takes the writes. It may be called at any time.
func (k *Keeper) SetHome(here bool) {
	k.mu.Lock()
	changed := k.homeHere != here
	k.homeHere = here
	k.mu.Unlock()
	if changed {
		k.log.Info("home of the spam state moves", "here", here)
		k.hurry()
		k.wake(event{})
	}
}

// hurry has both looked at more often for a while.
func (k *Keeper) hurry() { k.hurried.Store(time.Now().Add(5 * time.Second).UnixNano()) }

// wake lets the loop look at everything again. An event that reports an end is
// never dropped.
func (k *Keeper) wake(e event) {
	if e.done {
		k.events <- e
		return
	}
	select {
	case k.events <- e:
	default:
	}
}

// Run works until ctx ends, and returns when everything has ended.
func (k *Keeper) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.endpoint.Run(ctx) })
	group.Go(func() error { return k.gate.Run(ctx) })
	if k.journal != nil {
		group.Go(func() error { return k.journal.Run(ctx, k.stream()) })
	}
	for i, c := range []*redis.Client{k.local, k.peer} {
		group.Go(func() error {
			k.watch(ctx, c, func(s Seen) { k.saw(i, s) })
			return nil
		})
	}
	group.Go(func() error { return k.loop(ctx) })
	err := group.Wait()
	k.mu.Lock()
	waiting := k.waiting
	k.waiting = nil
	k.mu.Unlock()
	for _, w := range waiting {
		w <- errors.New("the daemon is stopping")
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// saw takes a look at one of the two.
func (k *Keeper) saw(which int, s Seen) {
	k.mu.Lock()
	if s.Asked.Before(k.acted) {
		k.mu.Unlock()
		return // what was true before the last action
	}
	old := k.seen[which]
	k.seen[which] = s
	if which == 0 {
		k.lag.local(s, k.seen[1])
	} else {
		k.lag.peer(s)
	}
	k.mu.Unlock()
	if old.Trouble != s.Trouble || old.Role != s.Role {
		k.log.Info("redis changed", "which", [2]string{"local", "peer"}[which], "role", s.Role, "trouble", string(s.Trouble), "why", s.Why)
	}
	k.wake(event{})
}

// loop steps the machine at every event, and starts what it says. The endpoint is
// led from here alone.
func (k *Keeper) loop(ctx context.Context) error {
	var (
		working sync.WaitGroup
		stop    context.CancelFunc = func() {}
	)
	defer func() {
		stop()
		working.Wait()
	}()
	for {
		var e event
		select {
		case <-ctx.Done():
			return nil
		case e = <-k.events:
		}
		if e.done {
			stop()
			working.Wait()
			k.ended(e.err)
			k.saw(0, look(ctx, k.local))
			k.saw(1, look(ctx, k.peer))
		}
		k.adopt()
		out, fork := k.step()
		if out.Abort {
			stop()
		}
		if out.Do == NoAction {
			continue
		}
		actx, cancel := context.WithCancel(ctx)
		stop = cancel
		working.Go(func() {
			err := k.act(actx, out, fork)
			select {
			case k.events <- event{done: true, err: err}:
			case <-ctx.Done():
			}
		})
	}
}

// adopt notes the mark of the data that this site's Redis holds as home, and the
// fork where detach could not.
func (k *Keeper) adopt() {
	k.mu.Lock()
	fork := k.seen[0].Before
	late := k.unrecorded.Load() && k.busy == NoAction && !k.homeHere && k.seen[0].Master() && !fork.IsZero()
	k.mu.Unlock()
	if late {
		if err := k.noteFork(fork); err != nil {
			k.log.Warn("cannot note where this site detached", "err", err)
		}
	}
	k.mu.Lock()
	mark := k.seen[0].Dataset
	unknown := k.homeHere && k.rec.Mark == "" && mark != "" && k.seen[0].Master()
	k.mu.Unlock()
	if !unknown {
		return
	}
	if err := k.note(func(r *record) { r.Mark = mark }); err != nil {
		k.log.Warn("cannot note the mark of the spam state", "err", err)
	}
}

// step asks the machine and puts its answer in force.
func (k *Keeper) step() (Output, stream.Point) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.machine.Step(Input{
		Now: time.Now(), HomeHere: k.homeHere, Local: k.seen[0], Peer: k.seen[1], Mark: k.rec.Mark, Fork: k.rec.Fork,
		Busy: k.busy, CutOver: k.cutOver, Failed: k.failed, FailedAt: k.failedAt, Refused: k.gate.Refused(), Approved: k.approved,
	})
	if out.State != k.out.State {
		k.log.Info("spam state replication", "state", string(out.State), "before", string(k.out.State), "relation", out.Relation.String())
		k.since = time.Now()
	}
	if out.Do != NoAction && out.Do == k.did && k.failure != "" && time.Since(k.acted) < actAgain {
		out.Do = NoAction
	}
	k.lead(out.Lead)
	if k.busy == NoAction && out.Do == NoAction {
		k.gate.Permit(out.Permit)
		if out.Gate {
			k.gate.Open()
		} else {
			k.gate.Close()
		}
	}
	k.alarm(&out)
	k.out = out
	if out.Do != NoAction {
		k.busy, k.cutOver = out.Do, false
		if out.Do == Carry || out.Do == FollowAnyway {
			k.approved = false
		}
	}
	return out, out.Fork
}

// lead points the endpoint. k.mu is held.
func (k *Keeper) lead(to Where) {
	switch to {
	case Here:
		k.endpoint.Lead(Address{Addr: k.deps.Redis.Address})
	case There:
		k.endpoint.Lead(k.peerAt)
	case Nowhere:
		k.endpoint.Lead(Address{})
	}
}

// alarm raises what is new and clears what has ended. k.mu is held.
func (k *Keeper) alarm(out *Output) {
	now := map[string]bool{}
	if out.State == Detached {
		now["detached"] = true
		k.deps.Alarms.Raise(alarmPrefix+"detached", "this site's spam state stands alone since "+k.since.Format(time.DateTime)+": home cannot be used; it is merged when home is back")
	}
	if k.failed == mergeAgain && k.failure != "" && out.State == Detached {
		now["merge"] = true
		k.deps.Alarms.Raise(alarmPrefix+"merge", "merging the spam state: "+k.failure)
	}
	for _, c := range out.Conditions {
		now[c.Key] = true
		k.deps.Alarms.Raise(alarmPrefix+c.Key, c.Text)
	}
	for key := range k.raised {
		if !now[key] {
			k.deps.Alarms.Clear(alarmPrefix + key)
		}
	}
	k.raised = now
}

// ended takes the end of an action.
func (k *Keeper) ended(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	did := k.busy
	k.did = did
	k.busy, k.cutOver, k.acted = NoAction, false, time.Now()
	k.metrics.actions.WithLabelValues(string(did), result(err)).Inc()
	if err != nil {
		k.log.Warn("spam state replication could not act", "action", string(did), "err", err)
	} else {
		k.log.Info("spam state replication has acted", "action", string(did))
	}
	k.failure = ""
	if err != nil {
		k.failure = err.Error()
	}
	switch did {
	case Merge, Carry, Follow, FollowAnyway:
		k.failed, k.failedAt = mergeFine, time.Now()
		switch {
		case err == nil:
		case errors.Is(err, stream.ErrNotCovered):
			k.failed = mergeNotCovered
		case errors.Is(err, merge.ErrLayout):
			k.failed = mergeLayout
		default:
			k.failed = mergeAgain
		}
		for _, w := range k.waiting {
			w <- err
		}
		k.waiting = nil
	case Detach, Promote, Failover, NoAction:
	}
}

func result(err error) string {
	if err != nil {
		return "failed"
	}
	return "done"
}

// watch looks at a server until ctx ends, more often while something moves.
func (k *Keeper) watch(ctx context.Context, c *redis.Client, tell func(Seen)) {
	for {
		began := time.Now()
		s := look(ctx, c)
		if ctx.Err() != nil {
			return
		}
		tell(s)
		every := lookEvery
		if time.Now().UnixNano() < k.hurried.Load() {
			every = lookEvery / 8
		}
		if !pause(ctx, every-time.Since(began)) {
			return
		}
	}
}
