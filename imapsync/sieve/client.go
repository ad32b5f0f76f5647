package sieve

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"understudy/imapsync/wire"
)

// The bounds of what a server may send.
const (
	// MaxScript is the longest script, in bytes.
	MaxScript = 1 << 20
	// maxScripts is how many scripts an account may have.
	maxScripts = 1000
	maxLine    = 8 << 10
	// callTimeout bounds one command.
	callTimeout = time.Minute
)

// RefusalError is a server's NO.
type RefusalError struct{ Command, Text string }

// Error implements error.
func (r *RefusalError) Error() string { return r.Command + ": refused: " + r.Text }

// ErrProtocol says that the server does not speak ManageSieve.
var ErrProtocol = errors.New("not ManageSieve")

// Client is one session. It is used by one goroutine at a time.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
	caps map[string]string
}

var _ Scripts = (*Client)(nil)

// Dial connects to addr, host:port, with the trust and the login of the IMAP server
// of the same account. Plain text is for this machine only, unless the server's
// configuration permits it.
func Dial(ctx context.Context, addr string, server wire.Config, login wire.Login) (*Client, error) {
	trust, host, loopback, err := server.Trust()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, maxLine)}
	if err := c.begin(ctx, trust, loopback || server.Insecure, host, login); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// begin reads the greeting, secures the line and logs in.
func (c *Client) begin(ctx context.Context, trust *tls.Config, plain bool, host string, login wire.Login) error {
	defer c.guard(ctx)()
	if err := c.readCaps(); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if _, ok := c.caps["STARTTLS"]; ok {
		if _, err := c.command("STARTTLS"); err != nil {
			return err
		}
		if c.r.Buffered() > 0 {
			return fmt.Errorf("%w: data before the TLS handshake", ErrProtocol)
		}
		secure := tls.Client(c.conn, trust)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		c.conn, c.r = secure, bufio.NewReaderSize(secure, maxLine)
		if err := c.readCaps(); err != nil {
			return fmt.Errorf("after STARTTLS: %w", err)
		}
	} else if !plain {
		return errors.New("the server offers no STARTTLS, and plain text is not permitted (insecure)")
	}
	return c.login(host, login)
}

func (c *Client) login(host string, login wire.Login) error {
	mechanism := login.Authenticator(host)
	name, first, err := mechanism.Start()
	if err != nil {
		return err
	}
	if !strings.Contains(" "+c.caps["SASL"]+" ", " "+name+" ") {
		return fmt.Errorf("the server offers %q, not %s", c.caps["SASL"], name)
	}
	line := "AUTHENTICATE " + quote(name)
	if first != nil {
		line += " " + quote(base64.StdEncoding.EncodeToString(first))
	}
	if err := c.send(line); err != nil {
		return err
	}
	for range 10 {
		_, challenge, final, err := c.response()
		if err != nil {
			return err
		}
		if final != nil {
			return final.as("AUTHENTICATE")
		}
		raw, err := base64.StdEncoding.DecodeString(challenge)
		if err != nil {
			return fmt.Errorf("%w: challenge: %w", ErrProtocol, err)
		}
		next, err := mechanism.Next(raw)
		if err != nil {
			return err
		}
		if err := c.send(quote(base64.StdEncoding.EncodeToString(next))); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the login does not end", ErrProtocol)
}

// Close ends the session.
func (c *Client) Close() error {
	_ = c.conn.SetDeadline(time.Now().Add(time.Second))
	_ = c.send("LOGOUT") // a courtesy
	return c.conn.Close()
}

// guard bounds what follows by ctx and callTimeout; its result ends the bound.
func (c *Client) guard(ctx context.Context) func() {
	deadline := time.Now().Add(callTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = c.conn.SetDeadline(deadline)
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// List implements Scripts (RFC 5804, section 2.7).
func (c *Client) List(ctx context.Context) (names []string, active string, err error) {
	defer c.guard(ctx)()
	if err := c.send("LISTSCRIPTS"); err != nil {
		return nil, "", err
	}
	for {
		words, name, final, err := c.response()
		switch {
		case err != nil:
			return nil, "", err
		case final != nil:
			return names, active, final.as("LISTSCRIPTS")
		case len(names) == maxScripts:
			return nil, "", fmt.Errorf("%w: more than %d scripts", ErrProtocol, maxScripts)
		}
		names = append(names, name)
		if strings.EqualFold(words, "ACTIVE") {
			active = name
		}
	}
}

// Get implements Scripts (section 2.9).
func (c *Client) Get(ctx context.Context, name string) (string, error) {
	defer c.guard(ctx)()
	if err := c.send("GETSCRIPT " + quote(name)); err != nil {
		return "", err
	}
	_, text, final, err := c.response()
	if err != nil {
		return "", err
	}
	if final != nil {
		if err := final.as("GETSCRIPT"); err != nil {
			return "", err
		}
		return "", fmt.Errorf("%w: GETSCRIPT without a script", ErrProtocol)
	}
	_, _, final, err = c.response()
	if err != nil {
		return "", err
	}
	if final == nil {
		return "", fmt.Errorf("%w: two scripts", ErrProtocol)
	}
	return text, final.as("GETSCRIPT")
}

// Put implements Scripts (section 2.6).
func (c *Client) Put(ctx context.Context, name, text string) error {
	defer c.guard(ctx)()
	_, err := c.command("PUTSCRIPT " + quote(name) + " {" + strconv.Itoa(len(text)) + "+}\r\n" + text)
	return err
}

// Activate implements Scripts (section 2.8).
func (c *Client) Activate(ctx context.Context, name string) error {
	defer c.guard(ctx)()
	_, err := c.command("SETACTIVE " + quote(name))
	return err
}

// Delete implements Scripts (section 2.10).
func (c *Client) Delete(ctx context.Context, name string) error {
	defer c.guard(ctx)()
	_, err := c.command("DELETESCRIPT " + quote(name))
	return err
}

// command sends a line and wants OK.
func (c *Client) command(line string) (string, error) {
	if err := c.send(line); err != nil {
		return "", err
	}
	_, _, final, err := c.response()
	if err != nil {
		return "", err
	}
	word, _, _ := strings.Cut(line, " ")
	if final == nil {
		return "", fmt.Errorf("%w: %s has an answer", ErrProtocol, word)
	}
	return final.text, final.as(word)
}

func (c *Client) send(line string) error {
	_, err := io.WriteString(c.conn, line+"\r\n")
	return err
}

// readCaps reads capabilities up to OK (section 1.7).
func (c *Client) readCaps() error {
	c.caps = map[string]string{}
	for range 100 {
		value, name, final, err := c.response()
		switch {
		case err != nil:
			return err
		case final != nil:
			return final.as("capabilities")
		}
		c.caps[strings.ToUpper(name)] = value
	}
	return fmt.Errorf("%w: too many capabilities", ErrProtocol)
}
