package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"understudy/internal/ask"
)

// maxDialogueBytes bounds what a server may send in one probe.
const maxDialogueBytes = 1 << 20

// maxLineBytes bounds one line.
const maxLineBytes = 8 << 10

// conn is a dialogue in lines.
type conn struct {
	net.Conn

	in   *bufio.Reader
	stop func() bool
}

// dial connects and ends the connection with ctx.
func dial(ctx context.Context, address string) (*conn, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, at("connect", err)
	}
	c := &conn{Conn: nc, stop: context.AfterFunc(ctx, func() { _ = nc.Close() })}
	c.reset()
	return c, nil
}

func (c *conn) reset() {
	c.in = bufio.NewReaderSize(io.LimitReader(c.Conn, maxDialogueBytes), maxLineBytes)
}

// close ends the dialogue.
func (c *conn) close() {
	c.stop()
	_ = c.Close()
}

// secure starts TLS.
func (c *conn) secure(ctx context.Context, cfg Config) error {
	name := cfg.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(cfg.Address)
	}
	tc := tls.Client(c.Conn, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: name,
		InsecureSkipVerify: cfg.InsecureTLS, //nolint:gosec // the operator asked for it
	})
	if err := tc.HandshakeContext(ctx); err != nil {
		return at("TLS", err)
	}
	c.Conn = tc
	c.reset()
	return nil
}

// line reads one line without its end.
func (c *conn) line() (string, error) {
	text, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("a line of more than %d bytes", maxLineBytes)
	case errors.Is(err, io.EOF):
		return "", errors.New("the server closed the connection")
	case err != nil:
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

func (c *conn) writeLine(format string, args ...any) error {
	_, err := fmt.Fprintf(c.Conn, format+"\r\n", args...)
	return err
}

// password reads the probe's password at every try, so that it can be changed.
func password(c Config) (string, error) {
	text, err := ask.Secret(c.PasswordFile)
	return text, at("password", err)
}
