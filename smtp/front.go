package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp/wire"
)

// Resolver finds the names of clients; *net.Resolver is one. Methods may be
// called concurrently and must return when ctx ends.
type Resolver interface {
	// LookupAddr returns the PTR names of addr, with a final dot.
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	// LookupNetIP returns the addresses of host; network is "ip".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Deps is what a Front needs from others. Fields that may be nil say so.
type Deps struct {
	// Hostname is the name of this host in trace lines.
	Hostname   string
	Domains    *Domains
	Recipients Recipients
	Queue      Queue
	// Filter judges every message before 250; nil takes all.
	Filter Filter
	// Active says whether this site is the active one; nil is always.
	Active func() bool
	// Flush starts the delivery of the queued mail for a domain (ETRN); "" is all
	// domains. Nil refuses ETRN.
	Flush func(domain string) error
	// Resolver finds the names of clients; nil leaves them unknown.
	Resolver Resolver
	// MaxMessageBytes is compared with MAIL's SIZE parameter; 0 compares nothing.
	MaxMessageBytes int64
	Logger          *slog.Logger
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// Front decides which mail this site takes. It implements wire.Backend; all
// methods may be called concurrently.
type Front struct {
	deps    Deps
	policy  atomic.Pointer[policy]
	limiter *limiter
	metrics *metrics
	mark    []byte // of our own trace lines
	log     *slog.Logger
	// peerConns says by id whether a connection came from the other understudy:
	// XCLIENT replaces the address, not who speaks.
	peerConns sync.Map
}

var _ wire.Backend = (*Front)(nil)

// NewFront checks cfg and deps. It starts nothing.
func NewFront(cfg Config, deps Deps) (*Front, error) {
	p, err := cfg.policy()
	if err != nil {
		return nil, err
	}
	if deps.Hostname == "" || deps.Domains == nil || deps.Recipients == nil || deps.Queue == nil || deps.Logger == nil {
		return nil, errors.New("front needs hostname, domains, recipients, queue and logger")
	}
	f := &Front{
		deps:    deps,
		limiter: newLimiter(cfg.Limits.Clients),
		mark:    traceMark(deps.Hostname),
		log:     deps.Logger,
	}
	f.metrics = newMetrics(deps.Registerer, f.limiter)
	f.policy.Store(p)
	return f, nil
}

// Reload puts cfg in force for new connections and new transactions, except for
// limits.clients. On error the old configuration stays.
func (f *Front) Reload(cfg Config) error {
	p, err := cfg.policy()
	if err != nil {
		return err
	}
	f.policy.Store(p)
	return nil
}

// Connect implements wire.Backend: it counts the connection against the limits
// of its network and starts the look-up of the client's name.
func (f *Front) Connect(ctx context.Context, c *wire.Conn) (wire.Session, error) {
	s, err := f.connect(ctx, c)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// conn is what a session asks of its connection; *wire.Conn is one. It is as
// wide as what there is to know of a client.
type conn interface { //nolint:interfacebloat // it mirrors wire.Conn, and is private
	RemoteAddr() netip.AddrPort
	HELO() string
	Extended() bool
	Protocol() string
	ReverseName() string
	Login() string
	TLS() *tls.ConnectionState
	Forwarded() wire.Forwarded
	ID() string
}

func (f *Front) connect(ctx context.Context, c conn) (*session, error) {
	p := f.policy.Load()
	addr := c.RemoteAddr().Addr()
	s := &session{
		front:   f,
		conn:    c,
		ctx:     ctx,
		started: time.Now(),
		addr:    addr,
		peer:    f.isPeer(ctx, c, p),
	}
	s.log = f.log.With("session", c.ID())
	s.exempt = s.peer || p.exempt.contains(addr)
	if !s.exempt {
		if why := f.limiter.connect(addr, &p.cfg.Limits); why != "" {
			f.metrics.connections.WithLabelValues("refused").Inc()
			return nil, s.refuse(stageConnect, refusal{code: 421, enhanced: code(4, 7, 0), reason: why})
		}
		s.limited = true
	}
	f.metrics.connections.WithLabelValues("accepted").Inc()
	f.metrics.open.Inc()
	s.name.start(ctx, f.deps.Resolver, addr, p.cfg.ReverseTimeout)
	s.log.Debug("connect", "addr", addr.Unmap().String())
	return s, nil
}

// isPeer says whether the other understudy speaks on c, or a front server speaks
// for it. Connect is called again after XCLIENT, when RemoteAddr is the address of
// the message's origin.
func (f *Front) isPeer(ctx context.Context, c conn, p *policy) bool {
	if len(p.peers) == 0 {
		return false
	}
	id := c.ID()
	now := p.peers.contains(c.RemoteAddr().Addr())
	first, known := f.peerConns.LoadOrStore(id, now)
	if !known {
		context.AfterFunc(ctx, func() { f.peerConns.Delete(id) })
	}
	return now || first == true
}
