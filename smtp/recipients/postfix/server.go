package postfix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

// Deps is what a Server needs from others.
type Deps struct {
	Domains    *smtp.Domains
	Recipients smtp.Recipients
	// Route returns the next hop for a domain of ours as a URL ("smtp://host:25",
	// "lmtp:///path"), "" to leave it to Postfix. It may be called concurrently. Nil
	// always leaves it to Postfix.
	Route  func(ctx context.Context, domain string) (hop string, err error)
	Logger *slog.Logger
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// Server answers Postfix. Its methods may be called concurrently.
type Server struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	requests *prometheus.CounterVec
}

// NewServer checks cfg and deps. It neither listens nor starts anything.
func NewServer(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Domains == nil || deps.Recipients == nil || deps.Logger == nil {
		return nil, errors.New("postfix server needs domains, recipients and logger")
	}
	s := &Server{cfg: cfg, deps: deps, log: deps.Logger, requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "understudy_postfix_requests_total", Help: "Answered questions of Postfix by protocol: socketmap, policy.",
	}, []string{"protocol"})}
	if deps.Registerer != nil {
		deps.Registerer.MustRegister(s.requests)
	}
	return s, nil
}

// ServeSocketmap answers socketmap requests on l until ctx ends; then it closes l
// and all connections, and returns nil when they have ended.
func (s *Server) ServeSocketmap(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, "socketmap", s.socketmap)
}

// ServePolicy answers policy requests on l in the same way.
func (s *Server) ServePolicy(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, "policy", s.policy)
}

// one answers one request.
type one func(ctx context.Context, r *bufio.Reader, w io.Writer) error

func (s *Server) serve(ctx context.Context, l net.Listener, protocol string, answer one) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	slots := make(chan struct{}, s.cfg.MaxConnections)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := s.accept(ctx, l)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept %s: %w", protocol, err)
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.connection(ctx, c, protocol, answer)
		})
	}
}

// accept tries again after errors that pass (too many open files).
func (s *Server) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		c, err := l.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return c, err
		}
		s.log.Warn("connection of postfix not accepted", "err", err)
		wait := time.NewTimer(time.Second)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, ctx.Err()
		}
	}
}

func (s *Server) connection(ctx context.Context, c net.Conn, protocol string, answer one) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if stop() {
			_ = c.Close()
		}
	}()
	r := bufio.NewReaderSize(c, maxRequestBytes)
	for {
		if err := c.SetDeadline(time.Now().Add(s.cfg.IdleTimeout)); err != nil {
			return
		}
		err := answer(ctx, r, c)
		if err == nil {
			s.requests.WithLabelValues(protocol).Inc()
			continue
		}
		if errors.Is(err, errNetstring) || errors.Is(err, errPolicy) || errors.Is(err, io.ErrUnexpectedEOF) {
			s.log.Warn("request of postfix not understood", "protocol", protocol, "err", err)
		}
		return
	}
}
