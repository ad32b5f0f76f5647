package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// The bounds of spare connections, which a site that cannot be dialled keeps.
const (
	minSpares = 4
	maxSpares = 64
	// spareAge is when a spare is replaced by a fresh one: before a NAT forgets it.
	spareAge = 2 * time.Minute
)

// Dial returns a connection of service s: a warm one where there is a Pool for
// it, else a new one. On an error nothing was sent. ErrDown: the other site
// cannot be reached.
func (l *Link) Dial(ctx context.Context, s Service) (*Conn, error) {
	l.mu.Lock()
	p := l.pools[s]
	l.mu.Unlock()
	if p != nil {
		return p.Get(ctx)
	}
	return l.dial(ctx, s)
}

// dial makes a new connection, or uses a spare of the other site's.
func (l *Link) dial(ctx context.Context, s Service) (*Conn, error) {
	var direct error
	if l.cfg.Address != "" {
		var c *Conn
		if c, direct = l.dialAddress(ctx, s); direct == nil {
			return c, nil
		}
	}
	for {
		c := l.takeSpare()
		if c == nil && direct == nil && l.Up() && l.waitSpare(ctx) {
			continue
		}
		if c == nil {
			break
		}
		if err := l.useSpare(c, s); err == nil {
			return c, nil
		}
		_ = c.Abort()
	}
	if direct == nil {
		direct = errors.New("it keeps no connection open, and peer.address is not set")
	}
	return nil, fmt.Errorf("%w: %w", ErrDown, direct)
}

// dialAddress connects to the other site's port.
func (l *Link) dialAddress(ctx context.Context, s Service) (*Conn, error) {
	tctx, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	nc, err := l.deps.DialContext(tctx, "tcp", l.cfg.Address)
	cancel()
	if err != nil {
		return nil, fmt.Errorf("connect to the other site: %w", err)
	}
	bound(nc)
	tc := tls.Client(nc, l.clientConfig(s))
	hctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	if err := tc.HandshakeContext(hctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("handshake with the other site: %w", err)
	}
	if tc.ConnectionState().DidResume {
		l.metrics.resumed.Inc()
	}
	c := l.newConn(tc, s, false)
	if c == nil {
		return nil, ErrDown
	}
	return c, nil
}

// park keeps the other site's spare until it is taken or ends.
func (l *Link) park(c *Conn) {
	bound(c.raw)
	l.mu.Lock()
	var gone []*Conn
	l.spares = append(slices.DeleteFunc(l.spares, func(s *Conn) bool {
		dead := !s.quiet()
		if dead {
			gone = append(gone, s)
		}
		return dead
	}), c)
	if len(l.spares) > maxSpares {
		gone = append(gone, l.spares[0])
		l.spares = slices.Delete(l.spares, 0, 1)
	}
	l.mu.Unlock()
	abortAll(gone)
	select {
	case l.parked <- struct{}{}:
	default:
	}
}

// takeSpare returns the newest one that is still open; nil where there is none.
func (l *Link) takeSpare() *Conn {
	for {
		l.mu.Lock()
		n := len(l.spares)
		if n == 0 {
			l.mu.Unlock()
			return nil
		}
		c := l.spares[n-1]
		l.spares = l.spares[:n-1]
		l.mu.Unlock()
		if c.quiet() {
			return c
		}
		_ = c.Abort()
	}
}

// waitSpare waits for a spare of a site that cannot be dialled: it makes more when
// one is used, and that takes a round trip or two.
func (l *Link) waitSpare(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	defer cancel()
	select {
	case <-l.parked:
		return true
	case <-ctx.Done():
		return false
	case <-l.stop:
		return false
	}
}

// useSpare turns a spare into a connection of service s that this site asked for.
func (l *Link) useSpare(c *Conn, s Service) error {
	name := []byte(s)
	_ = c.SetWriteDeadline(time.Now().Add(l.cfg.HandshakeTimeout))
	_, err := c.Write(append([]byte{byte(len(name))}, name...))
	_ = c.SetWriteDeadline(time.Time{})
	if err != nil {
		return fmt.Errorf("use a spare connection: %w", err)
	}
	c.service, c.waiting = s, true
	return nil
}

// keepSpares holds connections that the other site may use, more while it uses many.
func (l *Link) keepSpares(ctx context.Context) {
	used := make(chan struct{}, maxSpares)
	wanted, open := minSpares, 0
	ended := make(chan bool, maxSpares) // true: it was used
	backoff := newBackoff()
	for {
		for open < wanted {
			open++
			l.running.Go(func() {
				wasUsed := l.offerSpare(ctx, used)
				select {
				case ended <- wasUsed:
				case <-ctx.Done(): // nobody reads it any more
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-used:
			// It serves now; another takes its place, and one more for the burst.
			open--
			wanted = min(wanted+1, maxSpares)
			backoff.reset()
		case wasUsed := <-ended:
			if wasUsed {
				continue
			}
			open--
			wanted = max(wanted-1, minSpares)
			if !backoff.wait(ctx) {
				return
			}
		}
	}
}

// offerSpare dials one spare, waits until the other site uses it, and serves it.
// It tells used before it serves, and returns true then.
func (l *Link) offerSpare(ctx context.Context, used chan<- struct{}) bool {
	c, err := l.dialAddress(ctx, spare)
	if err != nil {
		return false
	}
	c.waiting = false // the other site does not answer a spare
	var size [1]byte
	_ = c.SetReadDeadline(time.Now().Add(spareAge))
	if _, err := c.Conn.Read(size[:]); err != nil {
		_ = c.Abort()
		return false
	}
	name := make([]byte, size[0])
	_ = c.SetReadDeadline(time.Now().Add(l.cfg.HandshakeTimeout))
	for got := 0; got < len(name); {
		n, err := c.Conn.Read(name[got:])
		got += n
		if err != nil {
			_ = c.Abort()
			return false
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	select {
	case used <- struct{}{}:
	case <-ctx.Done():
		_ = c.Abort()
		return true
	}
	if c.service = Service(name); c.service == spare {
		_ = c.Abort()
		return true
	}
	l.serve(ctx, c)
	return true
}

var _ net.Conn = (*Conn)(nil)
