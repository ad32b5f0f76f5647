package peer

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The first byte a server sends on a connection.
const (
	answerReady   = 'R'
	answerUnknown = 'U'
)

// Conn is one authenticated connection with the other site. CloseWrite ends this
// side's half only. The other half must not be read by two goroutines.
type Conn struct {
	*tls.Conn
	link    *Link
	raw     net.Conn
	service Service
	pin     Pin
	inbound bool // the other site dialled

	// waiting: this side asked for the service and has not read the answer yet.
	waiting bool

	once     sync.Once
	closeErr error
}

// newConn notes an authenticated connection; nil, and closed, when it is one too many.
func (l *Link) newConn(tc *tls.Conn, s Service, inbound bool) *Conn {
	c := &Conn{Conn: tc, link: l, raw: tc.NetConn(), service: s, inbound: inbound, waiting: !inbound}
	c.pin = pinOf(tc.ConnectionState().PeerCertificates[0])
	l.mu.Lock()
	full := l.stopped || inbound && len(l.conns) >= l.cfg.MaxConnections
	if !full {
		l.conns[c] = struct{}{}
	}
	l.mu.Unlock()
	// A key may have lost its pin between the handshake and this line; SetPins
	// either finds the connection in the map, or the new pins are seen here.
	if full || !l.pinned(c.pin) {
		l.metrics.refused.WithLabelValues("connections").Inc()
		_ = c.Abort()
		return nil
	}
	l.metrics.opened.WithLabelValues(string(s)).Inc()
	return c
}

// Service is what the connection is for.
func (c *Conn) Service() Service { return c.service }

// Read implements net.Conn. Its first call on a dialled connection consumes the
// other site's answer to the service: ErrNoService where nobody serves it.
func (c *Conn) Read(p []byte) (int, error) {
	if c.waiting {
		if err := c.confirm(); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// confirm waits for the other site's answer to the service.
func (c *Conn) confirm() error {
	var b [1]byte
	if _, err := c.Conn.Read(b[:]); err != nil {
		return fmt.Errorf("ask the other site for %s: %w", c.service, err)
	}
	if b[0] != answerReady {
		return fmt.Errorf("%w: %s", ErrNoService, c.service)
	}
	c.waiting = false
	return nil
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.forget()
		c.closeErr = c.Conn.Close()
	})
	return c.closeErr
}

// Abort closes without a farewell, and does not wait for a peer that does not read.
func (c *Conn) Abort() error {
	c.once.Do(func() {
		c.forget()
		c.closeErr = c.raw.Close()
	})
	return c.closeErr
}

// abortAll ends connections. The caller holds no lock of the link.
func abortAll(conns []*Conn) {
	for _, c := range conns {
		_ = c.Abort() // they are being thrown away
	}
}

func (c *Conn) forget() {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
}

// quiet says that the connection is open and has nothing to say, which is what
// an idle one must be. It reads nothing.
func (c *Conn) quiet() bool {
	sc, ok := c.raw.(syscall.Conn)
	if !ok {
		return true // a test's own connection
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		_, _, errno := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = errno == unix.EAGAIN
	})
	return err == nil && alive
}

// keepAlive finds a path that was cut while nothing was sent.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}
}

// unansweredLimit ends a connection whose bytes nobody acknowledges.
const unansweredLimit = 20 * time.Second

// bound sets what the kernel does about a path that was cut while bytes are on it.
func bound(nc net.Conn) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := sc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unansweredLimit.Milliseconds()))
		})
	}
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
