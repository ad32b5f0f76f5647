package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Alarms tells people; smtp.Alarms has its contract.
type Alarms interface {
	// Raise says that someone must look; key is stable.
	Raise(key, text string)
	// Clear says that the condition has ended.
	Clear(key string)
}

// Deps are what a Link needs from outside. Only Key is needed.
type Deps struct {
	// Site and PeerSite are the names of this site and of the other.
	Site, PeerSite string
	// Version is the program's, shown at the other site.
	Version string
	// Key is this site's identity.
	Key *Key
	// Logger, Registerer and Alarms may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Alarms     Alarms
	// DialContext connects by TCP; nil is net.Dialer's.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// ConnHandler serves one connection of a service and owns it: it closes it. Its
// ctx ends when the Link stops.
type ConnHandler func(ctx context.Context, c *Conn)

// Link is the connection between this site and the other. Its methods may be
// called concurrently, before and while it runs.
type Link struct {
	cfg     Config
	deps    Deps
	key     *Key
	log     *slog.Logger
	metrics metrics
	pins    atomic.Pointer[[]Pin]
	tickets tls.ClientSessionCache
	// serverTLS is one for all connections: it keeps the keys of the tickets.
	serverTLS *tls.Config
	// versions of the RPC protocol this side speaks, oldest and newest.
	oldest, newest int

	mu        sync.Mutex
	methods   map[string]Handler
	services  map[Service]ConnHandler
	pools     map[Service]*Pool
	changed   []func(up bool)
	conns     map[*Conn]struct{}
	controls  []*control
	spares    []*Conn // the other site's, oldest first
	listeners []net.Listener
	carrying  []carrier
	summary   map[string]string
	revision  uint64 // counts SetConfig
	peer      hello  // what the other site last said about itself
	heard     time.Time
	samples   []sample
	up        bool
	since     time.Time // of up, or of down
	lastFault string
	stopped   bool

	shaking []net.Conn // connections that have not proved their key, oldest first
	running sync.WaitGroup
	stop    chan struct{} // closed when Run ends
	parked  chan struct{} // a spare has come; one token for each that waits
	wake    chan struct{} // the state of controls may have changed
}

// handshakesAtOnce bounds connections that have not proved their key yet. Where
// there are more, the oldest is closed: a handshake takes a round trip or two, and
// who takes longer than hundreds of others is most likely a stranger.
const handshakesAtOnce = 512

// New returns a Link that neither listens nor dials yet.
func New(cfg Config, deps Deps) (*Link, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Key == nil {
		return nil, errors.New("peer: no key; run understudy peer init")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.DialContext == nil {
		d := &net.Dialer{KeepAliveConfig: keepAlive()}
		deps.DialContext = d.DialContext
	}
	l := &Link{
		cfg: cfg, deps: deps, key: deps.Key, log: deps.Logger,
		tickets: tls.NewLRUClientSessionCache(ticketsKept),
		oldest:  oldestVersion, newest: newestVersion,
		methods: map[string]Handler{}, services: map[Service]ConnHandler{}, pools: map[Service]*Pool{},
		conns: map[*Conn]struct{}{}, since: time.Now(),
		stop: make(chan struct{}), wake: make(chan struct{}, 1),
		parked: make(chan struct{}, maxSpares),
	}
	if err := l.SetPins(cfg.Pins); err != nil {
		return nil, err
	}
	l.serverTLS = l.serverConfig()
	l.metrics = newMetrics(l, deps.Registerer)
	l.prepareCarry()
	return l, nil
}

// SetPins replaces the keys that are trusted. Connections of a key that is not
// among them any more are closed before it returns.
func (l *Link) SetPins(list []string) error {
	pins := make([]Pin, len(list))
	for i, text := range list {
		var err error
		if pins[i], err = ParsePin(text); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
		if pins[i] == l.key.pin {
			return fmt.Errorf("pins: %s is this site's own key; write the other site's", text)
		}
	}
	l.pins.Store(&pins)
	l.mu.Lock()
	var gone []*Conn
	for c := range l.conns {
		if !l.pinned(c.pin) {
			gone = append(gone, c)
		}
	}
	l.mu.Unlock()
	for _, c := range gone {
		l.log.Warn("closing a connection whose key is not pinned any more", "pin", c.pin.String())
		_ = c.Abort() // it is being thrown away
	}
	return nil
}

// Serve registers what is done with the other site's connections of a service.
func (l *Link) Serve(s Service, h ConnHandler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.services[s] = h
}

// OnChange registers a function that is told when the link comes up and when it
// goes down, one call after the other, from a goroutine of Run. It must not block.
func (l *Link) OnChange(f func(up bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = append(l.changed, f)
}

// Up says whether the other site was heard within Config.Silence.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

// Pin is this site's own.
func (l *Link) Pin() Pin { return l.key.pin }

// Listen opens the configured addresses. Run serves them.
func (l *Link) Listen(ctx context.Context) error {
	for _, address := range l.cfg.Listen {
		lc := net.ListenConfig{KeepAliveConfig: keepAlive(), Control: reusePort}
		ln, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listen for the other site: %w", errors.Join(err, l.closeListeners()))
		}
		l.mu.Lock()
		l.listeners = append(l.listeners, ln)
		l.mu.Unlock()
	}
	return l.listenCarry(ctx)
}

// Addrs are the addresses that Listen opened.
func (l *Link) Addrs() []net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []net.Addr
	for _, ln := range l.listeners {
		out = append(out, ln.Addr())
	}
	return out
}

// Run keeps the link until ctx ends; then it closes everything and waits for it.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	listeners, carrying := l.listeners, l.carrying
	var pools []*Pool
	for _, p := range l.pools {
		pools = append(pools, p)
	}
	l.mu.Unlock()
	failed := make(chan error, len(listeners))
	for _, ln := range listeners {
		l.running.Go(func() {
			if err := l.accept(ctx, ln); err != nil {
				failed <- err
			}
		})
	}
	l.running.Go(func() { l.watch(ctx) })
	if l.cfg.Address != "" {
		l.running.Go(func() { l.keepControl(ctx) })
		if len(l.cfg.Listen) == 0 {
			l.running.Go(func() { l.keepSpares(ctx) })
		}
	}
	for _, c := range carrying {
		l.running.Go(func() { l.carry(ctx, c) })
	}
	for _, p := range pools {
		l.running.Go(func() { p.run(ctx) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	l.shutdown(listeners)
	return err
}

// shutdown closes what is open, and waits for the goroutines.
func (l *Link) shutdown(listeners []net.Listener) {
	for _, ln := range listeners {
		_ = ln.Close() // accept has ended, or ends by this
	}
	l.mu.Lock()
	l.stopped = true
	close(l.stop)
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	abortAll(conns)
	l.running.Wait()
}

// accept starts a goroutine for each connection.
func (l *Link) accept(ctx context.Context, ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil //nolint:nilerr // this is how the end of Run looks here
			}
			l.log.Warn("accept from the other site", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		l.beginHandshake(nc)
		l.running.Go(func() { l.handshake(ctx, nc) })
	}
}

// handshake lets a connection prove its key, and serves it.
func (l *Link) handshake(ctx context.Context, nc net.Conn) {
	bound(nc)
	tc := tls.Server(nc, l.serverTLS)
	hctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	err := tc.HandshakeContext(hctx)
	cancel()
	l.endHandshake(nc)
	if err != nil {
		_ = nc.Close()
		l.refused(nc.RemoteAddr(), err)
		return
	}
	c := l.newConn(tc, Service(tc.ConnectionState().NegotiatedProtocol), true)
	if c == nil {
		return
	}
	// A goroutine of its own: the stack of a handshake is large, and a warm
	// connection waits for long.
	l.running.Go(func() { l.serve(ctx, c) })
}

// beginHandshake notes a connection that has not proved its key, and closes the
// oldest of too many.
func (l *Link) beginHandshake(nc net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.shaking) >= handshakesAtOnce {
		l.metrics.refused.WithLabelValues("handshakes").Inc()
		_ = l.shaking[0].Close() // its handshake ends with an error
		l.shaking = slices.Delete(l.shaking, 0, 1)
	}
	l.shaking = append(l.shaking, nc)
}

func (l *Link) endHandshake(nc net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.shaking, nc); i >= 0 {
		l.shaking = slices.Delete(l.shaking, i, i+1)
	}
}

// refused notes a connection that was not let in.
func (l *Link) refused(from net.Addr, err error) {
	why := "handshake"
	if errors.Is(err, ErrWrongKey) {
		why = "key"
	}
	l.metrics.refused.WithLabelValues(why).Inc()
	l.log.Warn("connection to the peer port refused", "from", from.String(), "err", err)
}

// serve hands a connection to whoever registered for its service.
func (l *Link) serve(ctx context.Context, c *Conn) {
	if c.service == spare {
		l.park(c)
		return
	}
	l.mu.Lock()
	h := l.services[c.service]
	l.mu.Unlock()
	if c.service == RPC {
		h = l.serveControl
	}
	answer := byte(answerReady)
	if h == nil {
		answer = answerUnknown
	}
	_ = c.SetWriteDeadline(time.Now().Add(l.cfg.HandshakeTimeout))
	_, err := c.Write([]byte{answer})
	_ = c.SetWriteDeadline(time.Time{})
	if err != nil || h == nil {
		_ = c.Abort()
		return
	}
	h(ctx, c)
}
