package rfc2136

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
)

// Deps are what a client is given; the zero value is for use.
type Deps struct {
	// Dial opens a connection; nil is net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Clock is the wall clock that requests are signed with; nil is time.Now.
	Clock func() time.Time
}

// reuse is how long an idle connection is used again for a question. Servers
// close theirs after 10 s (Knot) or 30 s (BIND).
const reuse = 8 * time.Second

// maxAnswerBytes is what the length before a DNS message over TCP can say.
const maxAnswerBytes = 1<<16 - 1

// link asks one server. Safe for concurrent use.
type link struct {
	server  string
	key     key
	timeout time.Duration
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	clock   func() time.Time

	mu   sync.Mutex
	idle net.Conn // at most one is kept
	last time.Time
}

func newLink(c Config, d Deps) (*link, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	k, err := c.TSIG.loadKey()
	if err != nil {
		return nil, err
	}
	l := &link{server: c.Server, key: k, timeout: c.Timeout, dial: d.Dial, clock: d.Clock}
	if l.dial == nil {
		l.dial = (&net.Dialer{}).DialContext
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	return l, nil
}

// close ends the kept connection.
func (l *link) close() {
	if c := l.take(); c != nil {
		_ = c.Close()
	}
}

func (l *link) take() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.idle
	l.idle = nil
	if c != nil && time.Since(l.last) > reuse {
		_ = c.Close()
		return nil
	}
	return c
}

func (l *link) keep(c net.Conn) {
	l.mu.Lock()
	c, l.idle = l.idle, c
	l.last = time.Now()
	l.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// question asks m, once more on a new connection where a kept one was dead.
// Errors: ErrUnreachable.
func (l *link) question(ctx context.Context, m *dns.Msg) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if c := l.take(); c != nil {
		if a, err := l.exchange(ctx, c, m); err == nil || ctx.Err() != nil {
			return a, unreachable(err)
		}
	}
	c, err := l.dial(ctx, "tcp", l.server)
	if err != nil {
		return answer{}, unreachable(err)
	}
	a, err := l.exchange(ctx, c, m)
	return a, unreachable(err)
}

// change sends an UPDATE, at most once. Errors: ErrUnreachable, nothing was sent;
// ErrUnknownOutcome.
func (l *link) change(ctx context.Context, m *dns.Msg) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if ctx.Err() != nil {
		return answer{}, unreachable(ctx.Err())
	}
	// Not on a kept connection: if that is dead, the outcome would be unknown.
	c, err := l.dial(ctx, "tcp", l.server)
	if err != nil {
		return answer{}, unreachable(err)
	}
	a, err := l.exchange(ctx, c, m)
	if err != nil {
		return a, fmt.Errorf("%w: %w", dnsfailover.ErrUnknownOutcome, err)
	}
	return a, nil
}

func unreachable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", dnsfailover.ErrUnreachable, err)
}

// exchange sends m and reads its answer. The connection is kept or closed.
//
// Framing is done here, not by dns.Conn: that keeps the last request's MAC and
// mixes it into the signature of the next request.
func (l *link) exchange(ctx context.Context, c net.Conn, m *dns.Msg) (answer, error) {
	m = m.Copy()
	m.Id = dns.Id()
	out, mac, err := l.key.sign(m, l.clock())
	if err != nil {
		_ = c.Close()
		return answer{}, fmt.Errorf("sign request: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	raw, err := roundTrip(ctx, c, out)
	late := !stop() // it is closed now; an answer that came stands
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return answer{}, err
	}
	a, err := l.key.parse(raw, m.Id, mac)
	if err == nil && a.proven && !late {
		l.keep(c)
	} else {
		_ = c.Close() // somebody else may be writing on it
	}
	return a, err
}

func roundTrip(ctx context.Context, c net.Conn, out []byte) ([]byte, error) {
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			return nil, err
		}
	}
	if len(out) > maxAnswerBytes {
		return nil, errors.New("request is too long")
	}
	// RFC 1035, section 4.2.2: two bytes of length.
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(out)), uint16(len(out)))
	if _, err := c.Write(append(frame, out...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, raw); err != nil {
		return nil, err
	}
	return raw, nil
}

// verdict is the error in an answer's head; nil where the server did what it was
// asked, and for prerequisites that are not met, which are the caller's.
//
// An answer that is not proven yields an error that Is otherwise as well:
// ErrUnreachable for a question, ErrUnknownOutcome for a change.
func (l *link) verdict(a answer, otherwise error) error {
	var err error
	switch {
	case a.tsigError == dns.RcodeBadTime:
		err = fmt.Errorf("%w: %s", dnsfailover.ErrBadTime, clocks(a.ahead))
	case a.tsigError == dns.RcodeBadKey || a.tsigError == dns.RcodeBadSig || a.tsigError == dns.RcodeBadTrunc:
		err = fmt.Errorf("%w: %s says %s of the key %s", dnsfailover.ErrBadKey, l.server, dns.RcodeToString[int(a.tsigError)], l.key.name)
	case a.Rcode == dns.RcodeNotAuth || a.Rcode == dns.RcodeRefused:
		err = fmt.Errorf("%w: %s says %s to the key %s", dnsfailover.ErrBadKey, l.server, dns.RcodeToString[a.Rcode], l.key.name)
	case !a.proven:
		return fmt.Errorf("%w: the answer of %s is not signed", otherwise, l.server)
	}
	if err != nil && !a.proven {
		return &unproven{says: err, knows: otherwise}
	}
	return err
}

// unproven is what an answer without signature says. That is the likely cause, and
// no proof of anything. It Is both.
type unproven struct{ says, knows error }

func (u *unproven) Error() string { return u.says.Error() + " (not signed, which proves nothing)" }

func (u *unproven) Unwrap() []error { return []error{u.says, u.knows} }

func clocks(ahead time.Duration) string {
	switch {
	case ahead > 0:
		return fmt.Sprintf("the name server's is %s ahead", ahead)
	case ahead < 0:
		return fmt.Sprintf("the name server's is %s behind", -ahead)
	}
	return "by more than " + fudge.String()
}
