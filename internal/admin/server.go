package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The time limits of the two listeners.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// stallTimeout bounds one read or write of a stream: a caller that pages
	// through a listing may take a while, one that is gone must not stay.
	stallTimeout = 10 * time.Minute
	// webTimeout bounds a whole answer of the web listener.
	webTimeout = time.Minute
	// stopTimeout bounds the end of running requests.
	stopTimeout = 5 * time.Second
)

// Deps is what the server shows and changes. A nil part is answered
// "not_configured".
type Deps struct {
	Logger *slog.Logger
	// Registerer takes the server's own metrics, Gatherer is shown on /metrics.
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer

	Queue      Queue
	Archive    Archive
	Rules      Rules
	Hops       Hops
	Recipients Recipients
	Status     Status
	Spam       Spam
	Mailsync   Mailsync
	Bans       Bans
	Failover   Failover

	// AllowBody says whether bodies may be read (queue.allow_body_access); nil is no.
	AllowBody func() bool
	// Checks are the conditions of /readyz.
	Checks []Check
}

// Server answers operators on the unix socket and monitoring on the web listener.
type Server struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	requests *prometheus.CounterVec
	// rules serialises the read and the write of a change of hold rules.
	rules sync.Mutex

	socket *unixSocket
	web    net.Listener

	flushMu sync.Mutex
	flushes map[*flushRun]struct{}

	// flushTick, flushRetry and flushGrace are the constants; tests are in a hurry.
	flushTick, flushRetry, flushGrace time.Duration
}

// New builds a server; it neither listens nor touches files. It returns the
// faults of cfg.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, deps: deps, log: deps.Logger, flushTick: flushTick, flushRetry: flushRetry, flushGrace: flushGrace}
	s.flushes = map[*flushRun]struct{}{}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "understudy_admin_requests_total",
		Help: "Requests of operators by route and HTTP status.",
	}, []string{"route", "status"})
	if deps.Registerer != nil {
		if err := deps.Registerer.Register(s.requests); err != nil {
			return nil, fmt.Errorf("register admin metrics: %w", err)
		}
	}
	return s, nil
}

// Listen opens the socket and, where configured, the web listener. ErrInUse says
// that another daemon runs.
func (s *Server) Listen() error {
	sock, err := listenUnix(s.cfg)
	if err != nil {
		return err
	}
	if s.cfg.Listen != "" {
		web, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.cfg.Listen)
		if err != nil {
			return errors.Join(fmt.Errorf("listen on admin.listen: %w", err), sock.Close())
		}
		s.web = web
	}
	s.socket = sock
	return nil
}

// WebAddr is the web listener's address after Listen; nil where there is none.
func (s *Server) WebAddr() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

// Close closes the listeners of a server that Run is not called for.
func (s *Server) Close() error {
	var errs []error
	if s.socket != nil {
		errs = append(errs, s.socket.Close())
		s.socket = nil
	}
	if s.web != nil {
		errs = append(errs, s.web.Close())
		s.web = nil
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends: streams are then cut off, other requests get five
// seconds. It returns when everything it started has ended; Listen comes before.
func (s *Server) Run(ctx context.Context) error {
	if s.socket == nil {
		return errors.New("admin server runs before Listen")
	}
	defer func() { s.socket, s.web = nil, nil }()
	// Requests live on until Shutdown has told them; ctx itself ends streams.
	base := func(net.Listener) context.Context { return ctx }
	servers := []*http.Server{{
		Handler:           s.operatorHandler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       base,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}}
	listeners := []net.Listener{s.socket}
	if s.web != nil {
		servers = append(servers, &http.Server{
			Handler:           s.webHandler(),
			ReadHeaderTimeout: readHeaderTimeout,
			ReadTimeout:       webTimeout,
			WriteTimeout:      webTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    16 << 10,
			BaseContext:       base,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		})
		listeners = append(listeners, s.web)
	}

	ended := make(chan error, len(servers))
	for i, srv := range servers {
		go func() { ended <- srv.Serve(listeners[i]) }()
	}
	var errs []error
	left := len(servers)
	select {
	case <-ctx.Done():
	case err := <-ended: // one listener died: end the other too
		errs = append(errs, fmt.Errorf("serve admin requests: %w", err))
		left--
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(stop); err != nil {
			errs = append(errs, fmt.Errorf("stop admin server: %w", errors.Join(err, srv.Close())))
		}
	}
	for range left {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("serve admin requests: %w", err))
		}
	}
	return errors.Join(errs...)
}
