package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ErrNullMX says that the domain takes no mail (RFC 7505).
var ErrNullMX = errors.New("domain takes no mail (null MX)")

// ErrLoop says that the MX records of a domain lead to this host and to none before
// it (RFC 5321, section 5.1).
var ErrLoop = errors.New("mail loops back to this host")

// targets lists the hosts of a hop by preference, each with its protection.
// Hosts that must not be used are left out; if none is left, the error says why.
func (r *Relay) targets(ctx context.Context, h Hop) ([]target, error) {
	p := h.TLS
	if p == "" {
		p = Policy(r.cfg.TLS)
	}
	if h.Network == "unix" {
		return []target{{host: h.Host, address: h.Address, policy: None}}, nil
	}
	_, port, err := net.SplitHostPort(h.Address)
	if err != nil {
		return nil, err
	}
	hosts, secure := []string{h.Host}, true
	if h.MX {
		if hosts, secure, err = r.exchangers(ctx, h.Host); err != nil {
			return nil, err
		}
	}
	var out []target
	var errs []error
	for _, host := range hosts {
		t := target{host: host, address: net.JoinHostPort(host, port), policy: p}
		if err := r.protect(ctx, h, &t, secure, port); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", host, err))
			continue
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// exchangers are the MX hosts of a domain, or the domain itself (RFC 5321,
// section 5.1).
func (r *Relay) exchangers(ctx context.Context, domain string) ([]string, bool, error) {
	hosts, secure, err := r.resolver.MX(ctx, domain)
	if err != nil {
		return nil, false, err
	}
	switch {
	case len(hosts) == 0:
		hosts = []string{domain}
	case len(hosts) == 1 && hosts[0] == "":
		return nil, false, fmt.Errorf("%s: %w", domain, ErrNullMX)
	}
	// A backup MX is one of the domain's hosts. It must not take its own mail in
	// again, nor give it to hosts that stand behind it (RFC 5321, section 5.1).
	own := slices.IndexFunc(hosts, func(h string) bool { return strings.EqualFold(h, r.hostname) })
	if own == 0 {
		return nil, false, fmt.Errorf("%s: %w", domain, ErrLoop)
	}
	if own > 0 {
		hosts = hosts[:own]
	}
	return hosts, secure, nil
}

// protect turns the policies that need a lookup into what a connection needs.
// DANE goes before MTA-STS (RFC 8461, section 2).
func (r *Relay) protect(ctx context.Context, h Hop, t *target, secure bool, port string) error {
	if t.policy == DANE {
		t.policy = Opportunistic
		done, err := r.dane(ctx, h, t, secure, port)
		if err != nil || done {
			return err
		}
	}
	if !h.MX || t.policy == None {
		return nil
	}
	sts, err := r.sts.policy(ctx, h.Host)
	if err != nil {
		r.log.InfoContext(ctx, "MTA-STS policy not fresh", "domain", h.Host, "err", err)
	}
	if sts.mode != "enforce" {
		return nil
	}
	if !sts.allows(t.host) {
		return errors.New("not one of the hosts in the domain's MTA-STS policy")
	}
	if t.policy != Pinned {
		t.policy = Verified
	}
	return nil
}

// dane says whether TLSA records decide about a host. An error means that they
// may exist and could not be had: the host must not be used then (RFC 7672,
// section 2.1.1).
func (r *Relay) dane(ctx context.Context, h Hop, t *target, secure bool, port string) (bool, error) {
	if _, err := netip.ParseAddr(t.host); err == nil || !secure {
		return false, nil
	}
	records, secure, err := r.resolver.TLSA(ctx, t.host, port)
	if err != nil {
		return false, err
	}
	if !secure || len(records) == 0 {
		return false, nil
	}
	good := usable(records)
	if len(good) == 0 {
		t.noPlain = true // RFC 7672, section 2.2: encrypted, unauthenticated
		return true, nil
	}
	names := []string{t.host}
	if h.MX {
		names = append(names, h.Host) // RFC 7672, section 3.2.2
	}
	t.verify = func(s tls.ConnectionState) error { return verifyDANE(s, good, names...) }
	return true, nil
}
