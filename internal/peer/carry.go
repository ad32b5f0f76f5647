package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// CarryConfig is one connection that the link carries for another program: what
// connects to Listen here reaches Local at the other site.
type CarryConfig struct {
	// Listen is an address of this machine; empty: this site only answers.
	Listen string `key:"listen" doc:"Address of this machine, as 127.0.0.1:6380, that leads to the same service of the other site."`
	// Local is what the other site reaches; empty: this site only asks.
	Local string `key:"local" doc:"This site's own server, as 127.0.0.1:6379, that the other site may reach."`
}

// carried are the services that the link carries for others, by their names in the
// configuration.
func carried() map[string]Service {
	return map[string]Service{"redis": Redis, "imap": IMAP, "smtp": SMTP, "http": HTTP}
}

// validateCarry checks the section "peer.carry". A listener must be on loopback:
// whoever reaches it reaches the other site's server.
func validateCarry(m map[string]CarryConfig) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(m)) {
		c, at := m[name], "carry."+name
		if _, ok := carried()[name]; !ok {
			fault("%s: the link carries %v", at, slices.Sorted(maps.Keys(carried())))
		}
		if c.Listen == "" && c.Local == "" {
			fault("%s: needs listen, local or both", at)
		}
		if c.Listen != "" {
			if host, _, err := net.SplitHostPort(c.Listen); err != nil {
				fault("%s.listen: %q is not host:port", at, c.Listen)
			} else if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
				fault("%s.listen: %q is not an address of loopback; whoever reaches it reaches the other site's server", at, c.Listen)
			}
		}
		if c.Local != "" {
			if host, port, err := net.SplitHostPort(c.Local); err != nil || host == "" || port == "" {
				fault("%s.local: %q is not host:port", at, c.Local)
			}
		}
	}
	return errors.Join(errs...)
}

// prepareCarry registers what the other site may reach.
func (l *Link) prepareCarry() {
	for name, c := range l.cfg.Carry {
		if c.Local == "" {
			continue
		}
		l.Serve(carried()[name], func(ctx context.Context, from *Conn) {
			d := net.Dialer{Timeout: l.cfg.ConnectTimeout}
			to, err := d.DialContext(ctx, "tcp", c.Local)
			if err != nil {
				l.log.Warn("carry for the other site", "service", name, "err", err)
				_ = from.Abort()
				return
			}
			l.splice(ctx, from, to)
		})
	}
}

// listenCarry opens the addresses of this machine that lead to the other site.
func (l *Link) listenCarry(ctx context.Context) error {
	for name, c := range l.cfg.Carry {
		if c.Listen == "" {
			continue
		}
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", c.Listen)
		if err != nil {
			return fmt.Errorf("carry %s: %w", name, errors.Join(err, l.closeListeners()))
		}
		l.mu.Lock()
		l.carrying = append(l.carrying, carrier{ln, carried()[name]})
		l.mu.Unlock()
	}
	return nil
}

// closeListeners undoes Listen.
func (l *Link) closeListeners() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, ln := range l.listeners {
		errs = append(errs, ln.Close())
	}
	for _, c := range l.carrying {
		errs = append(errs, c.Close())
	}
	l.listeners, l.carrying = nil, nil
	return errors.Join(errs...)
}

// carrier is one open address.
type carrier struct {
	net.Listener
	service Service
}

// Carrying are the addresses of this machine that lead to the other site.
func (l *Link) Carrying() map[Service]net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[Service]net.Addr{}
	for _, c := range l.carrying {
		out[c.service] = c.Addr()
	}
	return out
}

// carry serves one of the addresses until ctx ends.
func (l *Link) carry(ctx context.Context, c carrier) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	for {
		from, err := c.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			l.log.Warn("accept for the other site", "service", string(c.service), "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		l.running.Go(func() {
			dctx, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout+l.cfg.HandshakeTimeout)
			to, err := l.Dial(dctx, c.service)
			cancel()
			if err != nil {
				l.log.Info("carry to the other site", "service", string(c.service), "err", err)
				_ = from.Close()
				return
			}
			l.splice(ctx, from, to)
		})
	}
}

// splice passes bytes both ways until both have ended, one breaks, or ctx ends. A
// path that was cut is found by TCP: keep-alive and the limit on unanswered bytes.
func (l *Link) splice(ctx context.Context, a, b net.Conn) {
	end := sync.OnceFunc(func() {
		for _, c := range []net.Conn{a, b} {
			if p, ok := c.(*Conn); ok {
				_ = p.Abort()
			} else {
				_ = c.Close()
			}
		}
	})
	stop := context.AfterFunc(ctx, end)
	defer stop()
	defer end()
	pass := func(dst, src net.Conn) {
		if _, err := io.Copy(dst, src); err != nil {
			end()
			return
		}
		h, ok := dst.(interface{ CloseWrite() error })
		if !ok || h.CloseWrite() != nil {
			end()
		}
	}
	var other sync.WaitGroup
	other.Go(func() { pass(a, b) })
	pass(b, a)
	other.Wait()
}
