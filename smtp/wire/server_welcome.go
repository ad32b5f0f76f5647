package wire

import (
	"bufio"
	"errors"
	"fmt"
	"time"

	"github.com/pires/go-proxyproto"

	gosmtp "github.com/emersion/go-smtp"
)

// welcome does what comes before the first command: PROXY header, the backend's
// consent, the watch for early talkers, the banner. False: the connection is over.
func (c *Conn) welcome() bool {
	c.in = newInput(c.raw, int(c.srv.cfg.MaxCommandLineBytes)+1, &c.srv.buffers)
	if c.srv.proxies.contains(c.remote.Addr()) {
		if err := c.readProxyHeader(); err != nil {
			c.log.Warn("proxy header", "proxy", c.remote.String(), "err", err)
			c.linger = true
			c.fail(refusal(421, 7, 0, "PROXY header expected"))
			return false
		}
	}
	return c.connect() && c.patience() && c.banner()
}

// readProxyHeader takes the client's address from a PROXY v1 or v2 header.
func (c *Conn) readProxyHeader() error {
	if !c.setIdle(time.Now().Add(c.srv.cfg.HandshakeTimeout)) {
		return errStopped
	}
	defer c.setBusy()
	r := bufio.NewReaderSize(c.raw, smallBuffer)
	h, err := proxyproto.Read(r)
	if err != nil {
		return fmt.Errorf("read PROXY header: %w", err)
	}
	early, err := r.Peek(r.Buffered())
	if err != nil {
		return fmt.Errorf("read past PROXY header: %w", err)
	}
	c.in.w = copy(c.in.buf, early)
	if h.Command.IsLocal() {
		return nil // the proxy's own connection, a health check for example
	}
	src, dst, ok := h.TCPAddrs()
	if !ok {
		return nil // "UNKNOWN": the proxy cannot tell
	}
	c.remote, c.local, c.trusted = addrPort(src), addrPort(dst), true
	c.peer = c.remote
	return nil
}

// connect asks the backend.
func (c *Conn) connect() bool {
	session, err := c.srv.backend.Connect(c.ctx, c)
	if err == nil {
		c.session = session
		return true
	}
	var e *gosmtp.SMTPError
	if !errors.As(err, &e) || e == nil || e.Code/100 != 4 && e.Code/100 != 5 {
		c.log.Warn("session error", "err", err)
		e = refusal(421, 3, 0, "Temporary local error, try again later")
	}
	c.fail(e)
	return false
}

// patience finds clients that talk before they are spoken to. Listed front servers
// are not made to wait.
func (c *Conn) patience() bool {
	early := len(c.in.unread()) > 0
	if d := c.srv.cfg.GreetDelay; !early && d > 0 && !c.mayXClient() {
		err := c.wait(time.Now().Add(d), true)
		switch {
		case err == nil:
			early = true
		case isTimeout(err) && !c.srv.stopping.Load():
		default:
			c.lineFault(err)
			return false
		}
	}
	if early || pending(c.raw) {
		// RFC 5321, section 4.3.1: the sender must wait for the greeting.
		c.log.Info("client talked before the banner", "client", c.remote.String())
		c.linger = true
		c.fail(refusal(554, 5, 1, "You talked before the greeting"))
		return false
	}
	return true
}

func (c *Conn) banner() bool {
	c.reply(220, noEnhanced, c.srv.hostname+" ESMTP")
	return true
}
