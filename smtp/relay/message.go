package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"understudy/smtp"
	"understudy/smtp/wire"
)

// outgoing is a delivery as the client wants it.
func outgoing(d smtp.Delivery, pending []int, header bool) *wire.Outgoing {
	env := d.Envelope()
	m := &wire.Outgoing{
		From: env.Sender, Body: env.Body, UTF8: env.SMTPUTF8, RequireTLS: env.RequireTLS,
		Return: env.Return, EnvelopeID: env.EnvelopeID, SizeBytes: env.SizeBytes,
		Origin: origin(env),
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			rc, _, err := d.Open(ctx)
			return rc, err
		},
	}
	for _, i := range pending {
		r := env.Recipients[i]
		m.To = append(m.To, wire.OutgoingRecipient{Address: r.Address, ORCPT: r.ORCPT, Notify: r.Notify})
	}
	if header {
		m.Prefix = []byte(clientHeader(env))
		if m.SizeBytes > 0 {
			m.SizeBytes += int64(len(m.Prefix))
		}
	}
	return m
}

func origin(env *smtp.Envelope) *wire.Origin {
	c := env.Client
	if !c.Addr.IsValid() {
		return nil
	}
	o := &wire.Origin{
		Addr: c.Addr, HELO: c.HELO, Name: c.ReverseName, Login: c.User, Protocol: "ESMTP", ID: env.ID,
	}
	if c.Protocol == "SMTP" {
		o.Protocol = "SMTP"
	}
	return o
}

// clientHeader is the agreed field for hops that know neither XCLIENT nor
// XFORWARD. Values are xtext, so that a client cannot write fields of its own.
func clientHeader(env *smtp.Envelope) string {
	c := env.Client
	if !c.Addr.IsValid() {
		return ""
	}
	return fmt.Sprintf("X-Understudy-Client: addr=%s; helo=%s;\r\n\tname=%s; received=%s\r\n",
		c.Addr.Addr().Unmap().WithZone(""), xtextShort(c.HELO), xtextShort(c.ReverseName), env.Received.UTC().Format(time.RFC3339))
}

func xtextShort(s string) string {
	s = strings.ReplaceAll(wire.EncodeXtext(s), ";", "+3B")
	return s[:min(len(s), 300)]
}

// relayName is the host asked, as Postfix writes it in its log.
func relayName(h Hop, host string, addr net.Addr) string {
	if h.Network == "unix" {
		return h.Host + "[" + h.Address + "]"
	}
	ip, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return host + "[" + addr.String() + "]"
	}
	return host + "[" + ip + "]:" + port
}

// tlsName describes a connection's protection.
func tlsName(s *tls.ConnectionState) string {
	if s == nil {
		return ""
	}
	return strings.ReplaceAll(tls.VersionName(s.Version), " ", "") + " " + tls.CipherSuiteName(s.CipherSuite)
}
