package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"understudy/dnsfailover"
	"understudy/internal/peer"
)

// Deps are what a Tunnel needs from outside.
type Deps struct {
	// Site is this site's name.
	Site string
	// View is who is active, now. It must not block.
	View func() dnsfailover.View
	// Link is the way to the other site; nil where there is none.
	Link *peer.Link
	// Banned says whether a client may not connect; nil: none is banned.
	Banned func(netip.Addr) bool
	// Listen opens an address; nil: lc does. Its listener may give the address up for
	// a while, and ends Accept with net.ErrClosed once it is closed only.
	Listen func(ctx context.Context, lc net.ListenConfig, address string) (net.Listener, error)
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Tunnel serves all services. Its methods may be called concurrently.
type Tunnel struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	metrics  metrics
	services map[string]*service

	mu       sync.Mutex
	sessions map[*session]struct{}
	perNet   map[clientKey]int
	open     map[string]int // sessions of each service that began here
	stopping bool
	// impatient: StopDrain is over, and a session that begins now ends at once.
	impatient bool

	listeners []listener
	running   sync.WaitGroup
	kick      chan struct{}
}

// service is one configured service.
type service struct {
	ServiceConfig
	name     string
	protocol string
	fenced   string
	trusted  []netip.Prefix
}

type listener struct {
	net.Listener
	service *service
}

// clientKey counts the connections of one client to one service.
type clientKey struct {
	service string
	network netip.Prefix
}

// New returns a Tunnel that does not listen yet. It takes the service Tunnel of
// the link, and keeps connections of it warm; it must be called before the link runs.
func New(cfg Config, deps Deps) (*Tunnel, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.View == nil {
		return nil, errors.New("tunnel: no view")
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Banned == nil {
		deps.Banned = func(netip.Addr) bool { return false }
	}
	if deps.Listen == nil {
		deps.Listen = func(ctx context.Context, lc net.ListenConfig, address string) (net.Listener, error) {
			return lc.Listen(ctx, "tcp", address)
		}
	}
	t := &Tunnel{
		cfg: cfg, deps: deps, log: deps.Logger, services: map[string]*service{},
		sessions: map[*session]struct{}{}, perNet: map[clientKey]int{}, open: map[string]int{},
		kick: make(chan struct{}, 1),
	}
	for name, s := range cfg.Services {
		svc := &service{ServiceConfig: s, name: name, protocol: protocolOf(name, s.Protocol), fenced: whenFencedOf(name, s.WhenFenced)}
		for _, text := range s.AcceptProxyFrom {
			p, err := parseNetwork(text)
			if err != nil {
				return nil, err // Validate has seen it
			}
			svc.trusted = append(svc.trusted, p)
		}
		t.services[name] = svc
	}
	t.metrics = newMetrics(t, deps.Registerer)
	if deps.Link != nil {
		deps.Link.Warm(peer.Tunnel)
		deps.Link.Serve(peer.Tunnel, t.serveExit)
	}
	return t, nil
}

// Listen opens every address of every service, or none.
func (t *Tunnel) Listen(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(t.services)) {
		for _, address := range t.services[name].Listen {
			lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute}, Control: reusePort}
			l, err := t.deps.Listen(ctx, lc, address)
			if err != nil {
				for _, l := range t.listeners {
					err = errors.Join(err, l.Close())
				}
				t.listeners = nil
				return fmt.Errorf("listen for %s: %w", name, err)
			}
			t.listeners = append(t.listeners, listener{l, t.services[name]})
		}
	}
	return nil
}

// reusePort lets a new daemon listen while the old one still drains.
func reusePort(_, _ string, rc syscall.RawConn) error {
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return err
	}
	return serr
}

// Addrs are the addresses that Listen opened, by service.
func (t *Tunnel) Addrs() map[string][]net.Addr {
	out := map[string][]net.Addr{}
	for _, l := range t.listeners {
		out[l.service.name] = append(out[l.service.name], l.Addr())
	}
	return out
}

// Run serves until ctx ends. Then no client is taken any more, those that are
// connected have StopDrain to finish, and the rest are told to go.
func (t *Tunnel) Run(ctx context.Context) error {
	failed := make(chan error, len(t.listeners))
	// Sessions outlive ctx by the time they have to finish.
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var accepting sync.WaitGroup
	for _, l := range t.listeners {
		accepting.Go(func() {
			if err := t.accept(sctx, l); err != nil {
				failed <- fmt.Errorf("serve %s: %w", l.service.name, err)
			}
		})
	}
	accepting.Go(func() { t.look(sctx) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	t.mu.Lock()
	t.stopping = true
	t.mu.Unlock()
	for _, l := range t.listeners {
		_ = l.Close() // nothing is lost with it
	}
	t.drain(cancel)
	cancel()
	accepting.Wait()
	return err
}

// drain waits for the sessions, and ends those that stay. giveUp ends the search
// for a way of those that have none yet.
func (t *Tunnel) drain(giveUp context.CancelFunc) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.running.Wait()
	}()
	limit := time.NewTimer(t.cfg.StopDrain)
	defer limit.Stop()
	select {
	case <-done:
		return
	case <-limit.C:
	}
	t.mu.Lock()
	t.impatient = true
	t.mu.Unlock()
	giveUp()
	for _, s := range t.list() {
		s.end("stopping", true)
	}
	<-done
}

// list is a copy of the sessions.
func (t *Tunnel) list() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.sessions))
}

// ViewChanged tells the Tunnel that the view has changed: connections that are in
// the wrong place now have Drain to finish. It does not block.
func (t *Tunnel) ViewChanged() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// accept starts a goroutine for each client.
func (t *Tunnel) accept(ctx context.Context, l listener) error {
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ECONNABORTED):
			t.log.Warn("accept client", "service", l.service.name, "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
				continue
			}
		default:
			return err
		}
		t.mu.Lock()
		if t.stopping {
			t.mu.Unlock()
			reset(nc)
			return nil
		}
		t.running.Add(1)
		t.mu.Unlock()
		go t.entry(ctx, l.service, nc)
	}
}

// reset closes a connection with RST, so that the client tries elsewhere at once.
func reset(nc net.Conn) {
	if b, ok := nc.(*buffered); ok {
		nc = b.Conn
	}
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	_ = nc.Close()
}

// networkOf is what counts as one client.
func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
