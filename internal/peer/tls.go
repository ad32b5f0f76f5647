package peer

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// Service is one use of the port, and the ALPN name that chooses it. The number
// at its end is the version of what is spoken there.
type Service string

// The services.
const (
	// RPC carries questions and answers in both directions; only Link uses it.
	RPC Service = "us-rpc/1"
	// Tunnel carries one client's connection to the active site.
	Tunnel Service = "us-tun/1"
	// Redis carries a connection to the other site's Redis.
	Redis Service = "us-redis/1"
	// IMAP carries a connection to the other site's IMAP server.
	IMAP Service = "us-imap/1"
	// SMTP carries the spool's deliveries.
	SMTP Service = "us-smtp/1"
	// HTTP carries questions to the other site's spam engine.
	HTTP Service = "us-http/1"
	// spare is a connection kept by a site that cannot be dialled.
	spare Service = "us-spare/1"
)

// services are all that a Link offers to a client that asks by ALPN.
func services() []string {
	var out []string
	for _, s := range []Service{RPC, Tunnel, Redis, IMAP, SMTP, HTTP, spare} {
		out = append(out, string(s))
	}
	return out
}

// serverName is sent as SNI and is the same everywhere: the key, not the name,
// says who it is.
const serverName = "understudy"

// ticketsKept bounds the TLS session tickets a client keeps.
const ticketsKept = 64

// verify refuses a connection whose key is not pinned. crypto/tls calls
// VerifyConnection for every handshake, the resumed ones included, where
// PeerCertificates are those of the first one.
func (l *Link) verify(cs tls.ConnectionState) error {
	if cs.Version != tls.VersionTLS13 || len(cs.PeerCertificates) == 0 {
		return ErrWrongKey
	}
	pin := pinOf(cs.PeerCertificates[0])
	if !l.pinned(pin) {
		return fmt.Errorf("%w: %s", ErrWrongKey, pin)
	}
	return nil
}

func (l *Link) pinned(p Pin) bool { return slices.Contains(*l.pins.Load(), p) }

// serverConfig asks for a certificate and leaves its judgement to verify.
func (l *Link) serverConfig() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{l.key.cert},
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: l.verify,
		NextProtos:       services(),
	}
}

// clientConfig skips crypto/tls's own verification, which would want an
// authority, a name and a date; verify does what matters here.
func (l *Link) clientConfig(s Service) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{l.key.cert},
		ServerName:         serverName,
		InsecureSkipVerify: true, //nolint:gosec // verify compares the key with the pins, on every handshake
		VerifyConnection:   l.verify,
		NextProtos:         []string{string(s)},
		ClientSessionCache: l.tickets,
	}
}
