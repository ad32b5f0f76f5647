package peer

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
)

// ServerTLS is TLS 1.3 for a server that is not the link, and whose clients have
// pinned keys: pins is asked at every handshake, resumed ones included. alpn is
// the one protocol spoken.
func ServerTLS(key *Key, pins func() []Pin, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{key.cert},
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: pinnedBy(pins),
		NextProtos:       []string{alpn},
	}
}

// ClientTLS is TLS 1.3 towards a server that is not the link and has one of the
// pinned keys. A wrong key fails the handshake with ErrWrongKey.
func ClientTLS(key *Key, pins func() []Pin, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{key.cert},
		ServerName:         serverName,
		InsecureSkipVerify: true, //nolint:gosec // pinnedBy compares the key with the pins, on every handshake
		VerifyConnection:   pinnedBy(pins),
		NextProtos:         []string{alpn},
	}
}

// PinOf is the pin of the key in a certificate.
func PinOf(cert *x509.Certificate) Pin { return pinOf(cert) }

func pinnedBy(pins func() []Pin) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if cs.Version != tls.VersionTLS13 || len(cs.PeerCertificates) == 0 {
			return ErrWrongKey
		}
		if pin := pinOf(cs.PeerCertificates[0]); !slices.Contains(pins(), pin) {
			return fmt.Errorf("%w: %s", ErrWrongKey, pin)
		}
		return nil
	}
}
