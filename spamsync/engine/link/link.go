package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// ErrTooLong is returned by a Conn that was sent more than it may read.
var ErrTooLong = errors.New("answer is too long")

// Parse reads the address of a server: "tcp://host:port", "host:port",
// "inet:host:port", "unix:///path", "unix:/path" or "/path".
func Parse(server string) (network, address string, err error) {
	switch {
	case strings.HasPrefix(server, "/"):
		return "unix", server, nil
	case strings.HasPrefix(server, "unix:"):
		path := strings.TrimPrefix(strings.TrimPrefix(server, "unix:"), "//")
		if !strings.HasPrefix(path, "/") {
			return "", "", fmt.Errorf("%q is no absolute path", server)
		}
		return "unix", path, nil
	}
	address = strings.TrimPrefix(strings.TrimPrefix(server, "inet:"), "tcp://")
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q is neither host:port nor a path", server)
	}
	return "tcp", address, nil
}

// Conn is a connection that ends with a context.
type Conn struct {
	net.Conn
	ctx      context.Context //nolint:containedctx // the connection lives within one call
	stop     func() bool
	left     int64
	deadline time.Time
}

// Dial connects to a server as Parse reads it. The connection is dead when ctx
// ends, and reads fail after maxRead bytes.
func Dial(ctx context.Context, server string, maxRead int64) (*Conn, error) {
	network, address, err := Parse(server)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: nc, ctx: ctx, left: maxRead}
	if t, ok := ctx.Deadline(); ok {
		c.deadline = t
		if err := nc.SetDeadline(t); err != nil {
			_ = nc.Close()
			return nil, err
		}
	}
	c.stop = context.AfterFunc(ctx, func() { _ = nc.Close() })
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// Read fails with ErrTooLong where more came than is allowed, and with the
// context's error where that has ended.
func (c *Conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, ErrTooLong
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, c.cause(err)
}

// Write fails with the context's error where that has ended.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.cause(err)
}

func (c *Conn) cause(err error) error {
	if err == nil {
		return nil
	}
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

// SetDeadline never goes beyond the context's.
func (c *Conn) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(c.clamp(t)) }

// SetReadDeadline never goes beyond the context's.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.clamp(t)) }

// SetWriteDeadline never goes beyond the context's.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.clamp(t)) }

func (c *Conn) clamp(t time.Time) time.Time {
	if !c.deadline.IsZero() && (t.IsZero() || t.After(c.deadline)) {
		return c.deadline
	}
	return t
}

// Servers are several that do the same. It may be used concurrently.
type Servers struct {
	names []string
	rest  time.Duration
	mu    sync.Mutex
	tired map[string]time.Time // until when it is asked last
}

// NewServers keeps names in the order of preference; a server that failed is
// asked last for the time rest.
func NewServers(names []string, rest time.Duration) (*Servers, error) {
	if len(names) == 0 {
		return nil, errors.New("no server is named")
	}
	return &Servers{names: names, rest: rest, tired: make(map[string]time.Time)}, nil
}

// Try calls ask with one server after the other until it returns nil, all within
// timeout: each gets an even share of what is left. The error names every server.
func (s *Servers) Try(ctx context.Context, timeout time.Duration, ask func(ctx context.Context, server string) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	end, _ := ctx.Deadline()
	names := s.order(time.Now())
	var errs []error
	for i, name := range names {
		share := time.Until(end) / time.Duration(len(names)-i)
		err := within(ctx, share, name, ask)
		if err == nil {
			s.mark(name, time.Time{})
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", Redact(name), err))
		if errors.Is(ctx.Err(), context.Canceled) {
			break // nobody waits any more; the server is not to blame
		}
		s.mark(name, time.Now().Add(s.rest))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func within(ctx context.Context, share time.Duration, name string, ask func(ctx context.Context, server string) error) error {
	ctx, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	return ask(ctx, name)
}

func (s *Servers) order(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := make([]string, 0, len(s.names))
	var tired []string
	for _, n := range s.names {
		if s.tired[n].After(now) {
			tired = append(tired, n)
		} else {
			fresh = append(fresh, n)
		}
	}
	return append(fresh, tired...)
}

func (s *Servers) mark(name string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until.IsZero() {
		delete(s.tired, name)
		return
	}
	s.tired[name] = until
}

// Redact hides the password of a URL.
func Redact(server string) string {
	if u, err := url.Parse(server); err == nil && u.User != nil {
		return u.Redacted()
	}
	return server
}

// Text makes a server's words one line of printable characters, at most maxBytes
// long: they go into replies, headers and logs.
func Text(s string, maxBytes int) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '\r' || c == '\n' || c == '\t':
			return ' '
		case c < ' ' || c == 0x7f || c == utf8.RuneError || c >= 0x80 && c < 0xa0:
			return '?'
		}
		return c
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxBytes {
		for maxBytes > 0 && !utf8.RuneStart(s[maxBytes]) {
			maxBytes--
		}
		s = s[:maxBytes]
	}
	return s
}

// Name makes a server's name for a finding a word: letters, digits and
// "_-./:@+" stay, others become "_"; at most 128 bytes.
func Name(s string) string {
	const maxBytes = 128
	if len(s) > maxBytes {
		s = s[:maxBytes]
	}
	return strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("_-./:@+", c) {
			return c
		}
		return '_'
	}, s)
}
