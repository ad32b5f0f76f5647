package relay

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"understudy/smtp/wire"
)

// connection is a client and what a result says about it.
type connection struct {
	*wire.Client
	relay string
	tls   string
	// authentic: the certificate proves the host's name, or is pinned. What
	// needs REQUIRETLS goes no other way (RFC 8689, section 4.2.1).
	authentic bool
	// tlsFailed: it is plain text because TLS, which was offered, did not work.
	tlsFailed bool
}

// target is one host of a hop and how to protect the connection to it.
type target struct {
	host    string
	address string
	policy  Policy
	// verify, for a policy decided by a lookup: DANE's and MTA-STS's own rules.
	verify func(tls.ConnectionState) error
	// noPlain: the lookup said that plain text must not be used.
	noPlain bool
}

var errPin = errors.New("the server's key is not the pinned one")

// connect makes a connection to the first host of h that takes one.
func (r *Relay) connect(ctx context.Context, h Hop) (*connection, error) {
	targets, err := r.targets(ctx, h)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, t := range targets {
		c, err := r.connectTo(ctx, h, t)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// connectTo tries one host: with TLS as the policy wants it, and in plain text
// where the policy allows that and TLS fails.
func (r *Relay) connectTo(ctx context.Context, h Hop, t target) (*connection, error) {
	var authentic bool
	tc, required := r.tlsConfig(h, t, &authentic)
	c, err := r.greet(ctx, h, t, tc, required)
	tlsFailed := errors.Is(err, wire.ErrTLS) && !required && !h.ImplicitTLS
	if tlsFailed {
		r.log.InfoContext(ctx, "TLS failed, trying plain text", "hop", h.String(), "host", t.host, "err", err)
		authentic = false
		c, err = r.greet(ctx, h, t, nil, false)
	}
	if err != nil {
		return nil, err
	}
	return &connection{
		Client: c, relay: relayName(h, t.host, c.RemoteAddr()), tls: tlsName(c.TLS()), authentic: authentic,
		tlsFailed: tlsFailed,
	}, nil
}

func (r *Relay) greet(ctx context.Context, h Hop, t target, tc *tls.Config, required bool) (*wire.Client, error) {
	dialCtx, cancel := context.WithTimeout(ctx, r.cfg.ConnectTimeout)
	defer cancel()
	conn, err := r.dial(dialCtx, h.Network, t.address)
	if err != nil {
		return nil, err
	}
	if h.ImplicitTLS {
		conn, tc = tls.Client(conn, tc), nil
	}
	c, err := wire.NewClient(ctx, conn, wire.ClientConfig{
		Hostname: r.hostname, LMTP: h.LMTP, TLS: tc, RequireTLS: required,
		Window: r.cfg.Window, NoChunking: h.NoChunking, NoForward: !r.cfg.Forward,
		GreetingTimeout: r.cfg.GreetingTimeout, CommandTimeout: r.cfg.CommandTimeout,
		ProgressTimeout: r.cfg.ProgressTimeout, FinalTimeout: r.cfg.FinalTimeout,
		IdleTimeout: r.cfg.IdleTimeout + time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.host, err)
	}
	return c, nil
}

// tlsConfig is what a policy comes to. authentic is set during the handshake.
func (r *Relay) tlsConfig(h Hop, t target, authentic *bool) (tc *tls.Config, required bool) {
	name := h.ServerName
	if name == "" {
		name = t.host
	}
	tc = &tls.Config{ServerName: name, RootCAs: r.roots, MinVersion: tls.VersionTLS12}
	check := func(s tls.ConnectionState) error { return verifyName(s, r.roots, name) }
	switch {
	case t.verify != nil:
		check = t.verify
	case t.policy == Pinned:
		check = func(s tls.ConnectionState) error { return verifyPin(s, h.Pins) }
	}
	strict := t.verify != nil || t.policy == Verified || t.policy == Pinned
	// The check is ours, so that a policy without one still learns its result.
	tc.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does it
	tc.VerifyConnection = func(s tls.ConnectionState) error {
		err := check(s)
		*authentic = err == nil
		if strict {
			return err
		}
		return nil
	}
	if t.policy == None && !t.noPlain && !h.ImplicitTLS {
		return nil, false
	}
	return tc, strict || t.policy == Required || t.noPlain || h.ImplicitTLS
}

// verifyName is what crypto/tls does by default: RFC 5280 and RFC 6125.
func verifyName(s tls.ConnectionState, roots *x509.CertPool, names ...string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	var errs []error
	for _, name := range names {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name})
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func verifyPin(s tls.ConnectionState, pins [][sha256.Size]byte) error {
	if len(s.PeerCertificates) == 0 {
		return errPin
	}
	sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
	for _, p := range pins {
		if subtle.ConstantTimeCompare(sum[:], p[:]) == 1 {
			return nil
		}
	}
	return errPin
}
