package wire

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

const (
	// maxOutput is how many bytes of replies wait for one write.
	maxOutput = 4 << 10
	// lingerTime and lingerBytes bound the reading after the last reply, which
	// keeps the kernel from throwing that reply away with a reset.
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// Conn is one client connection, as a Session sees it. Its methods may be called
// from within the calls of Backend and Session only; Context's value may be kept.
type Conn struct {
	srv     *Server
	raw     net.Conn // the socket
	nc      net.Conn // raw, or TLS over it
	in      *input
	out     []byte
	log     *slog.Logger
	id      string
	ctx     context.Context //nolint:containedctx // the connection is what it stands for
	cancel  context.CancelFunc
	session Session

	peer          netip.AddrPort // who speaks SMTP to us; XCLIENT does not change it
	remote, local netip.AddrPort
	trusted       bool
	xclient       xclient
	forwarded     Forwarded
	tlsState      *tls.ConnectionState

	greeted, extended bool
	helo              string
	mail              bool // a transaction is open
	rcpts, deferred   int  // recipients of the transaction answered 2xx and 4xx
	utf8              bool

	badCommands, badRecipients, idleCommands, transactions int

	// next is a command that ended a BDAT sequence and is still to be done.
	next *command
	// closing ends the command loop; linger says that the client may still be
	// sending.
	closing, linger bool

	mu   sync.Mutex
	idle bool // may be interrupted by Shutdown
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *Conn {
	c := &Conn{srv: s, raw: nc, nc: nc, id: rand.Text()[:13]}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.remote, c.local = addrPort(nc.RemoteAddr()), addrPort(nc.LocalAddr())
	c.peer = c.remote
	c.log = s.log.With("session", c.id)
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// Context ends when the connection does.
func (c *Conn) Context() context.Context { return c.ctx }

// ID names the connection in logs.
func (c *Conn) ID() string { return c.id }

// RemoteAddr is the client's address, after PROXY and XCLIENT. It is the zero
// value where the listener has no such addresses (unix sockets).
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// LocalAddr is the address the client connected to, after PROXY and XCLIENT.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// TLS is the state of the TLS connection, nil in plain text.
func (c *Conn) TLS() *tls.ConnectionState { return c.tlsState }

// HELO is the name the client gave, or XCLIENT gave for it; empty before that.
func (c *Conn) HELO() string {
	if c.xclient.helo != "" {
		return c.xclient.helo
	}
	return c.helo
}

// Extended reports whether the client greeted with EHLO.
func (c *Conn) Extended() bool { return c.extended }

// ReverseName is the client's name as XCLIENT gave it, else empty.
func (c *Conn) ReverseName() string { return c.xclient.name }

// Login is the user name as XCLIENT gave it, else empty.
func (c *Conn) Login() string { return c.xclient.login }

// Protocol is the keyword for the "with" clause of a Received field: SMTP, ESMTP,
// ESMTPS (RFC 3848), UTF8SMTP or UTF8SMTPS (RFC 6531) by the current transaction.
func (c *Conn) Protocol() string {
	switch {
	case c.xclient.proto != "":
		return c.xclient.proto
	case !c.extended:
		return "SMTP"
	}
	name := "ESMTP"
	if c.utf8 {
		name = "UTF8SMTP"
	}
	if c.tlsState != nil {
		name += "S"
	}
	return name
}

// Trusted reports that the client's address was given by a listed network, with
// the PROXY protocol or XCLIENT.
func (c *Conn) Trusted() bool { return c.trusted }

// Forwarded is what a listed client told with XFORWARD about the current message.
func (c *Conn) Forwarded() Forwarded { return c.forwarded }

// serve runs the connection to its end.
func (c *Conn) serve() {
	defer c.close()
	defer func() {
		// One broken session must not take the others' messages along.
		if p := recover(); p != nil {
			c.log.Error("session panicked", "panic", p, "stack", string(debug.Stack()))
			c.fail(refusal(421, 3, 0, "Internal error, try again later"))
		}
	}()
	if !c.welcome() {
		return
	}
	for !c.closing {
		if c.srv.stopping.Load() {
			c.fail(errStopping)
			return
		}
		cmd, ok := c.readCommand(time.Time{})
		for ok && !c.closing {
			c.do(cmd)
			if c.next == nil {
				break
			}
			cmd, c.next = *c.next, nil
		}
		if !ok {
			return
		}
	}
}

// close says the last words that are still waiting and frees everything.
func (c *Conn) close() {
	c.setBusy()
	if err := c.flush(); err == nil && (c.linger || c.in != nil && len(c.in.unread()) > 0) {
		c.lingerOn()
	}
	c.logout()
	c.cancel()
	if err := c.nc.Close(); err != nil {
		c.log.Debug("close the connection", "err", err)
	}
	// A TLS connection that could not say goodbye still has its socket closed.
	if c.in != nil {
		c.in.r, c.in.w = 0, 0
		c.in.release()
	}
}

func (c *Conn) logout() {
	if c.session == nil {
		return
	}
	session := c.session
	c.session = nil
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("session panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := session.Logout(); err != nil {
		c.log.Debug("session logout", "err", err)
	}
}

// lingerOn half-closes and reads on for a moment.
func (c *Conn) lingerOn() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.raw != c.nc {
		if half, ok := c.raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
			return
		}
	}
	if c.raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	buf := make([]byte, 4<<10)
	for total := 0; total < lingerBytes; {
		n, err := c.raw.Read(buf)
		if err != nil {
			return
		}
		total += n
	}
}

// interrupt wakes the connection if it waits for the client outside of a message.
func (c *Conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle {
		if err := c.raw.SetDeadline(time.Unix(1, 0)); err != nil {
			c.log.Debug("interrupt a connection", "err", err)
		}
	}
}

// abort closes the socket under whatever is going on.
func (c *Conn) abort() {
	c.cancel()
	if err := c.raw.Close(); err != nil {
		c.log.Debug("abort a connection", "err", err)
	}
}

// setIdle sets the deadline for a wait that Shutdown may interrupt. It returns
// false if the server is stopping already.
func (c *Conn) setIdle(deadline time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.srv.stopping.Load() || c.raw.SetDeadline(deadline) != nil {
		return false
	}
	c.idle = true
	return true
}

func (c *Conn) setBusy() {
	c.mu.Lock()
	c.idle = false
	c.mu.Unlock()
}

// reply adds a reply to the output, which is written before the next read.
func (c *Conn) reply(code int, enhanced gosmtp.EnhancedCode, text string) {
	c.out = appendReply(c.out, code, enhanced, text)
	if len(c.out) >= maxOutput {
		if err := c.flush(); err != nil {
			c.closing = true
		}
	}
}

func (c *Conn) replyError(e *gosmtp.SMTPError) { c.reply(e.Code, e.EnhancedCode, e.Message) }

// fail replies and ends the connection.
func (c *Conn) fail(e *gosmtp.SMTPError) {
	c.replyError(e)
	c.closing = true
}

// refuse writes one reply at once, for a connection that is not served.
func (c *Conn) refuse(e *gosmtp.SMTPError) {
	c.replyError(e)
	if err := c.flush(); err != nil {
		c.log.Debug("refuse a connection", "err", err)
	}
}

func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.raw.SetWriteDeadline(time.Now().Add(c.srv.cfg.CommandTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(c.out)
	if cap(c.out) > 2*maxOutput {
		c.out = nil
	}
	c.out = c.out[:0]
	return err
}

// answer turns what a session returned into a reply; nil becomes the given one.
// An error without a code says nothing to the outside.
func (c *Conn) answer(err error, code int, enhanced gosmtp.EnhancedCode, text string) (positive bool) {
	e := &gosmtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
	if err != nil {
		e = c.publicError(err)
	}
	c.replyError(e)
	if e.Code == 421 {
		c.closing, c.linger = true, true
	}
	return e.Code/100 == 2
}

func (c *Conn) publicError(err error) *gosmtp.SMTPError {
	var e *gosmtp.SMTPError
	if errors.As(err, &e) && e != nil && (e.Code/100 == 2 || e.Code/100 == 4 || e.Code/100 == 5) {
		return e
	}
	c.log.Warn("session error", "err", err)
	return refusal(451, 3, 0, "Temporary local error, try again later")
}

var (
	errStopping = refusal(421, 3, 2, "Service shutting down, try again later")
	errTimeout  = refusal(421, 4, 2, "Timeout, closing the connection")
)

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// isEnd reports that the client hung up, in good order or not.
func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) }
