package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// Queue is where messages come from. Methods may be called concurrently.
type Queue interface {
	// Take waits until a message of route is due and lends out at most limit,
	// oldest first. It returns an empty slice only with an error, which is ctx's
	// or says that the queue is closed.
	Take(ctx context.Context, route string, limit int) ([]smtp.Delivery, error)
	// Expedite makes everything waiting for route due now.
	Expedite(route string)
	// Routes lists the routes that have mail, "" included always.
	Routes() []string
	// RoutesChanged returns a channel closed at the next change of Routes.
	RoutesChanged() <-chan struct{}
}

// Deps is what a Relay is built from. Queue, Hops, Logger and Alarms are needed.
type Deps struct {
	Queue Queue
	// Hops says where route "" leads now, by preference, and returns a channel
	// that is closed when the answer changes. No hops: mail waits.
	Hops     func() (hops []Hop, changed <-chan struct{})
	Hostname string
	Logger   *slog.Logger
	Alarms   smtp.Alarms
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
	// Dial makes connections; nil is the network's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots verify certificates; nil is the system's.
	Roots *x509.CertPool
	// Resolver answers for mx:// hops, DANE and MTA-STS; nil asks Config.Resolver.
	Resolver Resolver
	// HTTP fetches MTA-STS policies; it must not follow redirects. Nil is one
	// with Roots.
	HTTP *http.Client
}

// Relay carries queued messages to their next hops.
type Relay struct {
	cfg      Config
	queue    Queue
	hops     func() ([]Hop, <-chan struct{})
	hostname string
	log      *slog.Logger
	alarms   smtp.Alarms
	metrics  *metrics
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	roots    *x509.CertPool
	resolver Resolver
	sts      *stsCache

	mu     sync.Mutex
	routes map[string]*route
}

// ErrNoRoute says that no such route carries mail.
var ErrNoRoute = errors.New("no such route")

// New builds a relay. It neither dials nor starts anything.
func New(cfg Config, deps Deps) (*Relay, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Queue == nil || deps.Hops == nil || deps.Logger == nil || deps.Alarms == nil {
		return nil, errors.New("relay: queue, hops, logger and alarms are needed")
	}
	r := &Relay{
		cfg: cfg, queue: deps.Queue, hops: deps.Hops, hostname: deps.Hostname,
		log: deps.Logger, alarms: deps.Alarms, metrics: newMetrics(deps.Registerer),
		dial: deps.Dial, roots: deps.Roots, routes: map[string]*route{},
	}
	if r.dial == nil {
		r.dial = dialer
	}
	if r.resolver = deps.Resolver; r.resolver == nil {
		r.resolver = dnsResolver{server: cfg.Resolver, trusted: cfg.ResolverTrusted}
	}
	r.sts = newSTSCache(r.resolver, deps.HTTP, deps.Roots)
	return r, nil
}

// Run carries mail until ctx ends; then it gives what is on its way
// Config.StopTimeout, and returns when every goroutine has ended. It is called
// once. Nil after ctx ended.
func (r *Relay) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first error
	failed := make(chan error, 1)
	for {
		changed := r.queue.RoutesChanged()
		names := r.queue.Routes()
		for _, name := range names {
			r.start(ctx, name, &wg, failed)
		}
		r.endOthers(names)
		select {
		case <-ctx.Done():
			return first
		case first = <-failed:
			cancel()
		case <-changed:
		}
	}
}

// endOthers ends the routes that have no mail any more.
func (r *Relay) endOthers(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, rt := range r.routes {
		if name != "" && !slices.Contains(names, name) {
			rt.end()
			delete(r.routes, name)
		}
	}
}

// start runs a route that does not run yet.
func (r *Relay) start(ctx context.Context, name string, wg *sync.WaitGroup, failed chan<- error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.routes[name] != nil {
		return
	}
	hops := r.hops
	if name != "" {
		h, err := ParseHop(name)
		if err != nil {
			r.alarms.Raise("route:"+name, fmt.Sprintf("mail waits for a route that cannot be used: %v", err))
			r.log.ErrorContext(ctx, "route cannot be used", "route", name, "err", err)
			hops = func() ([]Hop, <-chan struct{}) { return nil, nil }
		} else {
			hops = func() ([]Hop, <-chan struct{}) { return []Hop{h}, nil }
		}
	}
	ctx, end := context.WithCancel(ctx)
	rt := newRoute(r, name, hops)
	rt.end = end
	r.routes[name] = rt
	wg.Go(func() {
		defer end()
		err := rt.run(ctx)
		if err != nil && ctx.Err() == nil {
			select {
			case failed <- err:
			default:
			}
		}
	})
}

// HopStatus is one next hop as operators see it.
type HopStatus struct {
	Route string    `json:"route"`
	Hop   string    `json:"hop"`
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Reason is why it is down or paused, in its own words; LastError is the
	// last trouble, also of a hop that is up.
	Reason    string    `json:"reason,omitempty"`
	LastError string    `json:"last_error,omitempty"`
	LastErrAt time.Time `json:"last_error_at,omitzero"`
	// Proven: it has accepted something since it came up.
	Proven bool `json:"proven"`
	// Limit is how many messages may be on their way, InFlight how many are.
	Limit       int `json:"limit"`
	InFlight    int `json:"in_flight"`
	Connections int `json:"connections"`
	// NextTry is when a paused hop is tried with one message.
	NextTry   time.Time `json:"next_try,omitzero"`
	Delivered uint64    `json:"delivered"`
}

// Status lists the next hops of all routes in use. The error is ctx's.
func (r *Relay) Status(ctx context.Context) ([]HopStatus, error) {
	r.mu.Lock()
	routes := maps.Clone(r.routes)
	r.mu.Unlock()
	out := []HopStatus{}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		rt := routes[name]
		if err := rt.ask(ctx, func() { out = append(out, rt.status()...) }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Resume takes every paused hop of a route back into use, and tries one that is
// down at once. ErrNoRoute.
func (r *Relay) Resume(ctx context.Context, name string) error {
	r.mu.Lock()
	rt := r.routes[name]
	r.mu.Unlock()
	if rt == nil {
		return fmt.Errorf("resume %q: %w", name, ErrNoRoute)
	}
	return rt.ask(ctx, rt.resume)
}
