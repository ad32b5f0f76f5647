package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// Backend decides who may talk to the server. Its method may be called
// concurrently.
type Backend interface {
	// Connect is called once a connection's real client address is known (after
	// PROXY) and before the banner, and again after XCLIENT has changed it, when
	// the session before it has been logged out. An error refuses the connection:
	// a *gosmtp.SMTPError with its own reply, anything else with 421 4.3.0.
	Connect(ctx context.Context, c *Conn) (Session, error)
}

// Session is one client's dialogue: go-smtp's session plus the greeting. Its
// methods are called one at a time. An error that is no *gosmtp.SMTPError is
// logged and answered 451 4.3.0 with a generic text; an SMTPError with a 2xx code
// is success with that text; one with code 421 also closes the connection.
//
// The addresses given to Mail and Rcpt are without angle brackets and source
// routes, and are syntactically right; "postmaster" may come without a domain.
// ENVID and ORCPT are decoded from xtext; EncodeXtext and FormatORCPT are the way
// back.
//
// Data's reader ends with io.EOF only if the whole message arrived and was free of
// bare CR, bare LF and NUL. On any other error the session must drop the message;
// what it returns then is not used, because the server knows the right reply. The
// reader may block for as long as the sender may be silent, with BDAT also between
// two chunks. It is also an io.WriterTo.
//
// Reset is called after a transaction ended, whatever became of it; Logout once,
// at the end.
type Session interface {
	gosmtp.Session
	// Hello is called for HELO and EHLO, and again after STARTTLS.
	Hello(name string, extended bool) error
}

// ETRNSession is a Session that takes ETRN (RFC 1985).
type ETRNSession interface {
	// ETRN gets the argument as sent ("example.com", "@example.com", "#queue"). Nil
	// is answered 250; for other positive replies return an SMTPError with a 2xx
	// code.
	ETRN(argument string) error
}

// Server is a strict SMTP server. Make it with NewServer.
type Server struct {
	cfg      ServerConfig
	hostname string
	tls      *tls.Config
	backend  Backend
	log      *slog.Logger
	proxies  networks
	xclients networks
	buffers  buffers

	stopping atomic.Bool
	quit     chan struct{} // closed when stopping begins
	mu       sync.Mutex
	all      map[net.Listener]struct{}
	conns    map[*Conn]struct{}
	running  sync.WaitGroup // one for each connection
}

// NewServer returns a server that greets as hostname. A nil tlsConfig switches
// STARTTLS off; otherwise at least TLS 1.2 is asked for. A nil log discards.
func NewServer(cfg ServerConfig, hostname string, tlsConfig *tls.Config, backend Backend, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if !validDomainOrLiteral(hostname) || !isASCII(hostname) {
		return nil, fmt.Errorf("hostname: %q is no domain name", hostname)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.MinVersion = max(tlsConfig.MinVersion, tls.VersionTLS12)
	}
	s := &Server{
		cfg: cfg, hostname: hostname, tls: tlsConfig, backend: backend, log: log,
		quit: make(chan struct{}),
		all:  make(map[net.Listener]struct{}), conns: make(map[*Conn]struct{}),
	}
	var err error
	if s.proxies, err = parseNetworks(cfg.ProxyFrom); err != nil {
		return nil, fmt.Errorf("proxy_from: %w", err)
	}
	if s.xclients, err = parseNetworks(cfg.XClientFrom); err != nil {
		return nil, fmt.Errorf("xclient_from: %w", err)
	}
	return s, nil
}

// Serve accepts connections from l until Shutdown is called or ctx ends; the
// latter is a Shutdown with shutdown_timeout. It returns after the server's
// connections have ended: nil then, else why accepting became impossible. It
// closes l. It may be called for several listeners at the same time; ending one
// context ends all of them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.addListener(l) {
		return l.Close()
	}
	defer s.removeListener(l)
	stopped := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
		defer cancel()
		if err := s.Shutdown(grace); err != nil {
			s.log.Warn("connections closed by force", "err", err)
		}
	})
	err := s.accept(context.WithoutCancel(ctx), l)
	if !release() {
		<-stopped
	}
	if s.stopping.Load() {
		s.running.Wait()
		return nil
	}
	return fmt.Errorf("accept on %v: %w", l.Addr(), err)
}

// accept hands each connection to a goroutine of its own.
func (s *Server) accept(ctx context.Context, l net.Listener) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.start(ctx, nc)
			continue
		case s.stopping.Load() || errors.Is(err, net.ErrClosed):
			return err
		}
		// Out of descriptors or the like: it passes.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("cannot accept a connection", "err", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-s.quit:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// start runs one connection, or turns it away where there are too many.
func (s *Server) start(ctx context.Context, nc net.Conn) {
	c := newConn(ctx, s, nc)
	s.mu.Lock()
	full := len(s.conns) >= s.cfg.MaxConnections
	stopping := s.stopping.Load()
	if !full && !stopping {
		s.conns[c] = struct{}{}
		s.running.Add(1)
	}
	s.mu.Unlock()
	if full || stopping {
		// A few bytes into an empty socket buffer do not block.
		c.refuse(refusal(421, 3, 2, "Too many connections, try again later"))
		c.cancel()
		if err := nc.Close(); err != nil {
			s.log.Debug("close a connection", "err", err)
		}
		return
	}
	go func() {
		defer s.running.Done()
		defer func() {
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		c.serve()
	}()
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.all[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	_, open := s.all[l]
	delete(s.all, l)
	s.mu.Unlock()
	if open {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Warn("cannot close the listener", "err", err)
		}
	}
}

// Shutdown stops accepting, answers idle clients 421 and closes them at once. A
// message that is being received may finish until ctx ends; then all that is left
// is closed and ctx's error returned. A stopped server stays stopped.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping.Swap(true) {
		close(s.quit)
	}
	open := make([]net.Listener, 0, len(s.all))
	for l := range s.all {
		open = append(open, l)
	}
	clear(s.all)
	left := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		left = append(left, c)
	}
	s.mu.Unlock()

	var errs []error
	for _, l := range open {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close listener: %w", err))
		}
	}
	for _, c := range left {
		c.interrupt()
	}
	force := context.AfterFunc(ctx, func() {
		for _, c := range left {
			c.abort()
		}
	})
	s.running.Wait()
	if !force() {
		errs = append(errs, context.Cause(ctx))
	}
	return errors.Join(errs...)
}
