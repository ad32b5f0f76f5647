package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// ServerID is what a server says of itself (RFC 2971).
type ServerID struct {
	Name, Version string
}

// Dial connects, secures the connection and logs in. All of it takes at most
// Config.DialTimeout. The caller must Close or Logout.
func Dial(ctx context.Context, cfg Config, login Login) (*Client, error) {
	cfg = cfg.withDefaults()
	end, err := cfg.endpoint()
	if err != nil {
		return nil, fmt.Errorf("address of the server: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.DialTimeout,
		fmt.Errorf("server %s did not take the login within %v", end.address, cfg.DialTimeout))
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, end.network, end.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	lingers(conn, 0)
	c, err := open(ctx, conn, cfg, end, login)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", end.address, err)
	}
	return c, nil
}

// lingers says for how many seconds the system goes on sending after a close, or
// after this process was killed. With 0 it sends nothing more: a message that was on
// its way must not arrive after the next runner has looked. -1 is the system's own way.
func lingers(conn net.Conn, seconds int) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(seconds) // without it the server only gets more than it need
	}
}

// open speaks on a connection that Dial made.
func open(ctx context.Context, conn net.Conn, cfg Config, end endpoint, login Login) (*Client, error) {
	c := &Client{cfg: cfg, end: end, raw: conn, line: &line{Conn: conn, timeout: cfg.Timeout, writing: cfg.Timeout}, enabled: make(map[imap.Cap]bool), owner: login.owner()}
	c.attach(c.line)
	err := c.setUp(ctx, login)
	if err != nil {
		c.cut()
		if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, err
	}
	return c, nil
}

func (c *Client) setUp(ctx context.Context, login Login) error {
	secure := false
	if c.end.implicitTLS {
		if err := c.handshake(ctx); err != nil {
			return err
		}
		secure = true
	}
	preauth, err := c.greet(ctx)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if !secure && !preauth {
		if secure, err = c.startTLS(ctx); err != nil {
			return err
		}
	}
	if !secure && !c.end.loopback && !c.cfg.Insecure {
		// PREAUTH in plain text too: it would hide a STARTTLS that was stripped.
		return ErrNoTLS
	}
	if !secure && len(c.cfg.Pins) > 0 {
		return fmt.Errorf("%w, and its key is pinned", ErrNoTLS)
	}
	if !preauth {
		if err := c.login(ctx, login); err != nil {
			return err
		}
	}
	return c.settle(ctx)
}

func (c *Client) handshake(ctx context.Context) error {
	conf, err := c.cfg.tlsConfig(c.end)
	if err != nil {
		return err
	}
	conn := tls.Client(c.line, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.attach(conn)
	return nil
}

// greet reads the server's first line.
func (c *Client) greet(ctx context.Context) (preauth bool, err error) {
	defer c.guard(ctx)()
	c.line.fresh()
	c.dec.start()
	if err := c.dec.expect("* "); err != nil {
		return false, c.failIn(ctx, err)
	}
	word, err := c.dec.keyword("")
	if err != nil {
		return false, c.failIn(ctx, err)
	}
	t, ok := statusType(word)
	if !ok {
		return false, c.fail(protocol("it starts with %s", word))
	}
	s, err := c.dec.status(t)
	if err != nil {
		return false, c.failIn(ctx, err)
	}
	c.greeting = s.Text
	switch t { //nolint:exhaustive // the others refuse
	case imap.StatusResponseTypeOK, imap.StatusResponseTypePreAuth:
	default:
		return false, c.fail(fmt.Errorf("%w: %s", ErrClosed, s))
	}
	c.heard(s)
	return t == imap.StatusResponseTypePreAuth, nil
}

// startTLS takes TLS where it is offered.
func (c *Client) startTLS(ctx context.Context) (bool, error) {
	if err := c.needCaps(ctx); err != nil {
		return false, err
	}
	if !c.Has(imap.CapStartTLS) {
		return false, nil
	}
	if _, err := begin[struct{}](c, "STARTTLS", nil).Wait(ctx); err != nil {
		return false, err
	}
	// Nothing said in clear may count inside TLS.
	if c.br.Buffered() > 0 {
		return false, c.fail(protocol("data between the answer to STARTTLS and the handshake"))
	}
	if err := c.handshake(ctx); err != nil {
		return false, err
	}
	c.caps = nil
	return true, nil
}

func (c *Client) needCaps(ctx context.Context) error {
	if c.caps != nil {
		return nil
	}
	if _, err := begin[struct{}](c, "CAPABILITY", nil).Wait(ctx); err != nil {
		return err
	}
	if c.caps == nil {
		return c.fail(protocol("CAPABILITY without an answer"))
	}
	return nil
}

// settle asks who the server is, and switches on what will be used: one round trip,
// and another one for COMPRESS.
func (c *Client) settle(ctx context.Context) error {
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	var id *Reply[ServerID]
	if c.Has(imap.CapID) {
		id = c.id()
	}
	// The quirks that must be known before ENABLE show in the greeting; what only ID
	// tells is ruled out right after it.
	c.know(ServerID{})
	var want []imap.Cap
	for _, capability := range []imap.Cap{imap.CapQResync, imap.CapCondStore, imap.CapUTF8Accept} {
		if _, ok := c.caps[capability]; ok {
			want = append(want, capability)
		}
	}
	var enable *Reply[[]imap.Cap]
	if c.Has(imap.CapEnable) && len(want) > 0 {
		enable = c.enable(want)
	}
	if id != nil {
		server, err := id.Wait(ctx)
		if err != nil && !Refused(err) {
			return err
		}
		c.know(server)
	}
	if enable != nil {
		on, err := enable.Wait(ctx)
		if err != nil && !Refused(err) {
			return err
		}
		for _, capability := range on {
			c.enabled[capability] = true
		}
	}
	if _, ok := c.caps["COMPRESS=DEFLATE"]; ok && c.cfg.Compress {
		if _, err := begin[struct{}](c, "COMPRESS", func(w *builder) { w.raw(" DEFLATE") }).Wait(ctx); err == nil {
			return c.deflate()
		} else if !Refused(err) {
			return err
		}
	}
	return nil
}

// know takes the server's quirks into account.
func (c *Client) know(server ServerID) {
	if server != (ServerID{}) {
		c.server = server
	}
	c.quirks = quirksOf(c.server, c.greeting, c.caps)
	c.caps = c.without(c.caps)
}

func (c *Client) enable(want []imap.Cap) *Reply[[]imap.Cap] {
	r := begin[[]imap.Cap](c, "ENABLE", func(w *builder) {
		for _, capability := range want {
			w.raw(" ", string(capability))
		}
	})
	r.cmd.take = func(u *response) (bool, error) {
		if u.kind != "ENABLED" || u.hasNum {
			return false, nil
		}
		if blank, err := c.dec.accept(' '); err != nil || !blank {
			return true, err // "* ENABLED" alone: nothing
		}
		words, err := c.dec.wordsTo('\r')
		for _, w := range words {
			r.value = append(r.value, imap.Cap(strings.ToUpper(w)))
		}
		return true, err
	}
	return r
}

// id tells nothing of us but a name, which some servers want to see in their logs.
func (c *Client) id() *Reply[ServerID] {
	r := begin[ServerID](c, "ID", func(w *builder) { w.raw(` ("name" "understudy")`) })
	r.cmd.take = func(u *response) (bool, error) {
		if u.kind != "ID" || u.hasNum {
			return false, nil
		}
		if err := c.dec.space(); err != nil {
			return true, err
		}
		if b, err := c.dec.peek(); err != nil || b != '(' {
			return true, err // NIL; the rest of the line is skipped
		}
		return true, c.dec.list(func() error {
			key, err := c.dec.text(c.dec.lim.StringBytes)
			if err != nil {
				return err
			}
			if err := c.dec.space(); err != nil {
				return err
			}
			value, _, err := c.dec.nstring(c.dec.lim.StringBytes)
			switch strings.ToLower(key) {
			case "name":
				r.value.Name = value
			case "version":
				r.value.Version = value
			}
			return err
		})
	}
	return r
}

// Server is what the server said of itself.
func (c *Client) Server() ServerID { return c.server }

// Enabled says whether ENABLE switched a capability on (RFC 5161).
func (c *Client) Enabled(capability imap.Cap) bool { return c.enabled[capability] }

// TLS is the state of the TLS connection, nil without one.
func (c *Client) TLS() *tls.ConnectionState {
	t, ok := c.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	return &state
}
