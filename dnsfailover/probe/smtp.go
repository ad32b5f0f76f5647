package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// smtpProbe goes as far as RCPT and leaves.
type smtpProbe struct{ c Config }

func (p smtpProbe) try(ctx context.Context) error {
	c, err := dial(ctx, p.c.Address)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.greet("EHLO"); err != nil {
		return err
	}
	if p.c.Recipient != "" {
		if err := c.envelope(p.c.Recipient); err != nil {
			return err
		}
		if err := c.command("RSET", 2, "RSET"); err != nil {
			return err
		}
	}
	return c.command("QUIT", 2, "QUIT")
}

// greet reads the banner and says hello.
func (c *conn) greet(hello string) error {
	if err := c.reply(2); err != nil {
		return at("banner", err)
	}
	return c.command(hello, 2, "%s %s", hello, literal(c.LocalAddr()))
}

// literal is an address as EHLO takes it (RFC 5321, section 4.1.3).
func literal(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case tcp.IP.To4() != nil:
		return "[" + tcp.IP.String() + "]"
	}
	return "[IPv6:" + tcp.IP.String() + "]"
}

// envelope names the null sender: nothing must ever be answered to a probe.
func (c *conn) envelope(recipient string) error {
	if err := c.command("MAIL", 2, "MAIL FROM:<>"); err != nil {
		return err
	}
	return c.command("RCPT", 2, "RCPT TO:<%s>", recipient)
}

// command sends a line and wants a reply of the class.
func (c *conn) command(step string, class byte, format string, args ...any) error {
	if err := c.writeLine(format, args...); err != nil {
		return at(step, err)
	}
	return at(step, c.reply(class))
}

// reply reads a reply of one or more lines (RFC 5321, section 4.2.1).
func (c *conn) reply(class byte) error {
	for range 100 {
		text, err := c.line()
		if err != nil {
			return err
		}
		switch {
		case len(text) < 3 || strings.Trim(text[:3], "0123456789") != "":
			return fmt.Errorf("no SMTP reply: %.100q", text)
		case len(text) > 3 && text[3] == '-':
			continue
		case text[0] != '0'+class:
			return fmt.Errorf("%.200s", text)
		}
		return nil
	}
	return errors.New("a reply without end")
}
