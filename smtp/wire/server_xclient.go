package wire

import (
	"net/netip"
	"strconv"
	"strings"

	gosmtp "github.com/emersion/go-smtp"
)

// The attributes of Postfix's XCLIENT and XFORWARD, as announced.
var (
	xclientNames  = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"}
	xforwardNames = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"}
)

// xclient is what XCLIENT put in the place of the connection's own.
type xclient struct{ name, helo, login, proto string }

// Forwarded is what XFORWARD told about where the current message came from. It is
// for logs and trace only; empty fields are unknown.
type Forwarded struct {
	Name, HELO, Protocol, Ident, Source string
	Addr                                netip.AddrPort
}

func (c *Conn) mayXClient() bool {
	return c.srv.xclients.contains(c.peer.Addr())
}

// attributes reads "NAME=value ..." in xtext; what is unavailable is empty.
func attributes(arg string, known []string) (map[string]string, bool) {
	list, err := splitParams(arg)
	if err != nil || len(list) == 0 {
		return nil, false
	}
	attrs := make(map[string]string, len(list))
	for _, p := range list {
		value, err := DecodeXtext(p.value)
		if err != nil || hasControl(value) || len(value) > 255 || !knows(known, p.key) {
			return nil, false
		}
		switch strings.ToUpper(value) {
		case "[UNAVAILABLE]", "[TEMPUNAVAIL]":
			value = ""
		}
		attrs[p.key] = value
	}
	return attrs, true
}

// hostPort changes the parts of old that the attributes name.
func hostPort(attrs map[string]string, addrKey, portKey string, old netip.AddrPort) (netip.AddrPort, bool) {
	addr, port := old.Addr(), old.Port()
	if s, ok := attrs[addrKey]; ok {
		if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
			s = s[5:]
		}
		switch a, err := netip.ParseAddr(s); {
		case s == "":
			addr = netip.Addr{}
		case err != nil || a.Zone() != "":
			return old, false
		default:
			addr = a.Unmap()
		}
		port = 0
	}
	if s, ok := attrs[portKey]; ok {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil && s != "" {
			return old, false
		}
		port = uint16(n)
	}
	return netip.AddrPortFrom(addr, port), true
}

// doXClient implements Postfix's XCLIENT: the session starts again, as if the
// client named had connected itself.
func (c *Conn) doXClient(arg string) {
	if !c.mayXClient() {
		c.bad(refusal(550, 7, 0, "XCLIENT is not for you"))
		return
	}
	if c.mail {
		c.bad(refusal(503, 5, 1, "Not inside a transaction"))
		return
	}
	attrs, ok := attributes(arg, xclientNames)
	if ok && attrs["PROTO"] != "" {
		attrs["PROTO"] = strings.ToUpper(attrs["PROTO"])
		ok = knows([]string{"SMTP", "ESMTP"}, attrs["PROTO"])
	}
	remote, good := hostPort(attrs, "ADDR", "PORT", c.remote)
	local, fine := hostPort(attrs, "DESTADDR", "DESTPORT", c.local)
	if !ok || !good || !fine {
		c.bad(refusal(501, 5, 4, "Bad XCLIENT attribute"))
		return
	}
	for key, field := range map[string]*string{
		"NAME": &c.xclient.name, "HELO": &c.xclient.helo, "LOGIN": &c.xclient.login, "PROTO": &c.xclient.proto,
	} {
		if value, given := attrs[key]; given {
			*field = value
		}
	}
	c.reset()
	c.logout()
	c.remote, c.local, c.trusted = remote, local, true
	c.helo, c.extended, c.greeted = "", false, false
	c.badCommands, c.badRecipients = 0, 0 // another client's
	if c.connect() {
		c.banner()
	}
}

// doXForward implements Postfix's XFORWARD; several commands add up, and the end of
// the transaction forgets them.
func (c *Conn) doXForward(arg string) {
	if !c.mayXClient() {
		c.bad(refusal(550, 7, 0, "XFORWARD is not for you"))
		return
	}
	if c.mail {
		c.bad(refusal(503, 5, 1, "Not inside a transaction"))
		return
	}
	attrs, ok := attributes(arg, xforwardNames)
	addr, good := hostPort(attrs, "ADDR", "PORT", c.forwarded.Addr)
	if !ok || !good {
		c.bad(refusal(501, 5, 4, "Bad XFORWARD attribute"))
		return
	}
	f := &c.forwarded
	f.Addr = addr
	for key, field := range map[string]*string{
		"NAME": &f.Name, "HELO": &f.HELO, "PROTO": &f.Protocol, "IDENT": &f.Ident, "SOURCE": &f.Source,
	} {
		if value, given := attrs[key]; given {
			*field = value
		}
	}
	c.reply(250, gosmtp.EnhancedCode{2, 0, 0}, "OK")
}
