package witness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"understudy/dnsfailover"
	"understudy/internal/peer"
)

const (
	// exchangeLimit bounds one connection, from accept to its end.
	exchangeLimit = 10 * time.Second
	// maxConnections bounds those that are open at the same time.
	maxConnections = 64
)

// Sites are the keys that may ask, and whose they are.
type Sites map[peer.Pin]dnsfailover.Site

// ParseSites reads words such as "a=sha256:...". A site may have two keys while
// one is being replaced.
func ParseSites(list []string) (Sites, error) {
	out := Sites{}
	var errs []error
	count := map[string]int{}
	for _, word := range list {
		site, text, ok := strings.Cut(word, "=")
		pin, err := peer.ParsePin(text)
		switch {
		case !ok || site == "":
			errs = append(errs, fmt.Errorf("%q is not SITE=PIN", word))
		case err != nil:
			errs = append(errs, err)
		case out[pin] != "" && out[pin] != dnsfailover.Site(site):
			errs = append(errs, fmt.Errorf("%s and %s have the same key", out[pin], site))
		default:
			out[pin] = dnsfailover.Site(site)
			count[site]++
		}
	}
	if len(errs) == 0 && len(count) != 2 {
		errs = append(errs, fmt.Errorf("keys of %d sites are given, want two", len(count)))
	}
	return out, errors.Join(errs...)
}

// Deps are what a server is given; the zero value is for use.
type Deps struct {
	Logger *slog.Logger
}

// Server answers the two sites.
type Server struct {
	store *Store
	sites Sites
	tls   *tls.Config
	log   *slog.Logger
}

// NewServer makes a server; it neither listens nor reads.
func NewServer(store *Store, key *peer.Key, sites Sites, d Deps) *Server {
	log := d.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	pins := slices.Collect(maps.Keys(sites))
	return &Server{
		store: store, sites: sites, log: log,
		tls: peer.ServerTLS(key, func() []peer.Pin { return pins }, protocol),
	}
}

// Run answers until ctx ends; then it closes ln, lets what is under way finish
// within a second and returns nil. Another error of the listener is returned.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, maxConnections)
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				continue
			}
			return errors.Join(fmt.Errorf("accept: %w", err), ln.Close())
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close() // strangers fill the slots; a site asks again
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			s.connection(ctx, c)
		})
	}
}

func (s *Server) connection(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(exchangeLimit)) // a dead connection fails at its first use
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now().Add(time.Second)) })
	defer stop()
	tc := tls.Server(c, s.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		s.log.Warn("connection refused", "remote", c.RemoteAddr().String(), "err", err)
		return
	}
	state := tc.ConnectionState()
	site := s.sites[peer.PinOf(state.PeerCertificates[0])]
	if _, err := tc.Write([]byte{welcome}); err != nil {
		return
	}
	var q request
	if err := receive(tc, &q); err != nil {
		s.log.Debug("no request", "site", string(site), "err", err)
		return
	}
	a := s.answer(site, q)
	if err := send(tc, a); err != nil {
		s.log.Info("answer not delivered", "site", string(site), "operation", q.Op, "err", err)
		return
	}
	_ = tc.Close() // says that this is all
}

func (s *Server) answer(site dnsfailover.Site, q request) answer {
	switch q.Op {
	case "read":
		r, err := s.store.Read()
		if err != nil {
			return errorAnswer(err)
		}
		return answer{Register: r.String()}
	case "swap":
		old, err := parseOld(q.Old)
		if err != nil {
			return errorAnswer(fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err))
		}
		next, err := dnsfailover.ParseRegister(q.New)
		if err != nil {
			return errorAnswer(fmt.Errorf("%w: %w", dnsfailover.ErrRefused, err))
		}
		if err := s.store.Swap(old, next); err != nil {
			level := slog.LevelInfo
			if errors.Is(err, ErrBroken) {
				level = slog.LevelError
			}
			s.log.Log(context.Background(), level, "register not changed", "site", string(site), "err", err)
			return errorAnswer(err)
		}
		s.log.Info("register changed", "site", string(site), "epoch", next.Epoch, "holder", string(next.Holder), "state", string(next.State))
		return answer{}
	}
	return errorAnswer(fmt.Errorf("%w: %q is no operation", dnsfailover.ErrRefused, q.Op))
}
