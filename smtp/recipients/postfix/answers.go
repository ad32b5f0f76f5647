package postfix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"understudy/smtp"
)

// verdict is what is known about one recipient.
type verdict uint8

const (
	notOurs verdict = iota // not our domain
	exists
	unknown
	unsure
)

// recipient answers with the rules of the front: postmaster always exists, and an
// error is not "no".
func (s *Server) recipient(ctx context.Context, address string) (verdict, error) {
	a, err := smtp.ParseAddress(address)
	if err != nil || a.Domain == "" {
		return notOurs, nil // Postfix asks for parts of addresses as well
	}
	if !s.deps.Domains.Has(a.Domain) {
		return notOurs, nil
	}
	// RFC 5321, section 4.5.1.
	if strings.EqualFold(a.Local, "postmaster") {
		return exists, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LookupTimeout)
	defer cancel()
	d, err := s.deps.Recipients.Lookup(ctx, a.String())
	if err != nil {
		return unsure, err
	}
	switch d {
	case smtp.Exists:
		return exists, nil
	case smtp.Unknown:
		return unknown, nil
	case smtp.Unsure:
	}
	return unsure, nil
}

// errHop is wrapped by Transport for what is no next hop.
var errHop = errors.New("malformed next hop")

// Transport writes a next hop ("smtp://mx1.example.net:25", "lmtp:///run/lmtp")
// as the right-hand side of a transport(5) table. Hosts are not looked up by MX.
func Transport(hop string) (string, error) {
	u, err := url.Parse(hop)
	if err != nil {
		return "", fmt.Errorf("%w: %q", errHop, hop)
	}
	switch u.Scheme {
	case "smtp", "lmtp":
	default:
		return "", fmt.Errorf("%w: %q is not smtp:// or lmtp://", errHop, hop)
	}
	if u.Host == "" {
		if u.Scheme != "lmtp" || !strings.HasPrefix(u.Path, "/") {
			return "", fmt.Errorf("%w: %q has no host", errHop, hop)
		}
		return "lmtp:unix:" + u.Path, nil
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"smtp": "25", "lmtp": "24"}[u.Scheme]
	}
	if ip := net.ParseIP(host); ip != nil && strings.Contains(host, ":") {
		host = "ipv6:" + host
	}
	return u.Scheme + ":[" + host + "]:" + port, nil
}
