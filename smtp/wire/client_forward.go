package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// errOtherClient ends a connection that speaks for a client, before a message that
// comes from none: XCLIENT cannot be taken back.
var errOtherClient = errors.New("connection ended: it speaks for another client")

// introduce says XCLIENT where the server offers it and the origin is another
// than last time. XCLIENT ends the session as far as the server is concerned:
// nothing may be on its way, and EHLO follows. The caller holds turn.
func (c *Client) introduce(ctx context.Context, m *Outgoing) error {
	if m.Origin == nil && c.asked != nil {
		if err := c.settle(ctx); err != nil {
			return err
		}
		return c.giveUp("", Reply{}, errOtherClient)
	}
	if c.cfg.NoForward || m.Origin == nil || c.noXclient || !c.ext.Has("XCLIENT") {
		return nil
	}
	if c.asked != nil && sameOrigin(c.asked, m.Origin) {
		return nil
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	if c.open() {
		if rep, err := c.command(ctx, opPlain, "RSET\r\n"); err != nil || !rep.Positive() {
			return c.giveUp("RSET", rep, err)
		}
	}
	rep, err := c.command(ctx, opPlain, "XCLIENT"+xclientArgs(m.Origin, c.ext)+"\r\n")
	if err == nil && rep.Code/100 >= 4 && rep.Code != 421 {
		// Offered, but not to us: the hop sees our own address.
		c.noXclient = true
		return nil
	}
	if err != nil || !rep.Positive() {
		return c.giveUp("XCLIENT", rep, err)
	}
	verb := "EHLO"
	if c.cfg.LMTP {
		verb = "LHLO"
	}
	rep, err = c.command(ctx, opPlain, verb+" "+c.cfg.Hostname+"\r\n")
	if err != nil || rep.Code != 250 {
		return c.giveUp(verb+" after XCLIENT", rep, err)
	}
	c.mu.Lock()
	c.ext, c.last = parseExtensions(rep.Text), nil
	c.mu.Unlock()
	origin := *m.Origin
	c.asked = &origin
	return nil
}

// giveUp ends the connection: the server is in an unknown state.
func (c *Client) giveUp(command string, rep Reply, err error) error {
	if err == nil {
		err = &ReplyError{command, rep}
	}
	c.fail(err)
	return c.Err()
}

// sameOrigin leaves the queue id out: XCLIENT has no place for it.
func sameOrigin(a, b *Origin) bool {
	x, y := *a, *b
	x.ID, y.ID = "", ""
	return x == y
}

// forward says XFORWARD in front of MAIL. It holds for one transaction and may
// be pipelined.
func (c *Client) forward(ctx context.Context, f *flight) error {
	if c.cfg.NoForward || f.m.Origin == nil || !c.ext.Has("XFORWARD") || (c.ext.Has("XCLIENT") && !c.noXclient) {
		return nil
	}
	args := xforwardArgs(f.m.Origin, c.ext)
	if args == "" {
		return nil
	}
	_, err := c.step(ctx, clientOp{kind: opForward, flight: f}, []byte("XFORWARD"+args+"\r\n"))
	return err
}

func xclientArgs(o *Origin, ext Extensions) string {
	login := o.Login
	if login == "" {
		login = "[UNAVAILABLE]"
	}
	return originArgs("XCLIENT", ext, [][2]string{
		{"NAME", orUnavailable(o.Name)},
		{"ADDR", originAddr(o.Addr, "IPV6:")},
		{"PORT", originPort(o.Addr)},
		{"PROTO", originProto(o.Protocol)},
		{"HELO", orUnavailable(o.HELO)},
		{"LOGIN", login},
	})
}

func xforwardArgs(o *Origin, ext Extensions) string {
	return originArgs("XFORWARD", ext, [][2]string{
		{"NAME", orUnavailable(o.Name)},
		{"ADDR", originAddr(o.Addr, "IPV6:")},
		{"PORT", originPort(o.Addr)},
		{"PROTO", originProto(o.Protocol)},
		{"HELO", orUnavailable(o.HELO)},
		{"IDENT", orUnavailable(o.ID)},
		{"SOURCE", "REMOTE"},
	})
}

// originArgs writes the attributes the server knows. Values are limited to 255
// octets (XFORWARD_README), and a command line to 512.
func originArgs(keyword string, ext Extensions, attrs [][2]string) string {
	var b strings.Builder
	for _, a := range attrs {
		value := a[1]
		if !strings.HasPrefix(value, "[") {
			value = EncodeXtext(value)
		}
		if !ext.offers(keyword, a[0]) || len(value) > 255 || b.Len()+len(value) > 480 {
			continue
		}
		fmt.Fprintf(&b, " %s=%s", a[0], value)
	}
	return b.String()
}

func orUnavailable(s string) string {
	if s == "" {
		return "[UNAVAILABLE]"
	}
	return s
}

func originAddr(a netip.AddrPort, v6 string) string {
	switch addr := a.Addr().Unmap(); {
	case !addr.IsValid():
		return "[UNAVAILABLE]"
	case addr.Is6():
		return v6 + addr.WithZone("").String()
	default:
		return addr.String()
	}
}

func originPort(a netip.AddrPort) string {
	if !a.IsValid() || a.Port() == 0 {
		return "[UNAVAILABLE]"
	}
	return strconv.Itoa(int(a.Port()))
}

// originProto knows the two words both extensions allow.
func originProto(p string) string {
	if p == "SMTP" {
		return "SMTP"
	}
	return "ESMTP"
}
