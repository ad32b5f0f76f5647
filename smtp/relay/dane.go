package relay

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// Certificate usages of RFC 6698 that RFC 7672, section 3.1 knows for SMTP.
const (
	usageTA = 2
	usageEE = 3
)

var errDANE = errors.New("the server's certificate matches no TLSA record")

// usable are the records that can authenticate an SMTP server.
func usable(records []*dns.TLSA) []*dns.TLSA {
	var out []*dns.TLSA
	for _, t := range records {
		raw, err := hex.DecodeString(t.Certificate)
		known := (t.Usage == usageTA || t.Usage == usageEE) && t.Selector <= 1
		switch t.MatchingType {
		case 0:
			known = known && len(raw) > 0
		case 1:
			known = known && len(raw) == 32
		case 2:
			known = known && len(raw) == 64
		default:
			known = false
		}
		if err == nil && known {
			out = append(out, t)
		}
	}
	return out
}

// verifyDANE is RFC 7672, section 3.1: DANE-EE binds the key and nothing else
// matters; DANE-TA makes a certificate of the chain the only trust anchor, and
// the name is checked.
func verifyDANE(s tls.ConnectionState, records []*dns.TLSA, names ...string) error {
	if len(s.PeerCertificates) == 0 {
		return errDANE
	}
	err := errDANE
	for _, t := range records {
		switch t.Usage {
		case usageEE:
			if t.Verify(s.PeerCertificates[0]) == nil {
				return nil
			}
		case usageTA:
			for _, anchor := range anchors(s.PeerCertificates, t) {
				roots := x509.NewCertPool()
				roots.AddCert(anchor)
				nameErr := verifyName(s, roots, names...)
				if nameErr == nil {
					return nil
				}
				err = fmt.Errorf("%w: %w", errDANE, nameErr)
			}
		}
	}
	return err
}

// anchors are the certificates a DANE-TA record means: those of the chain that
// match, and the one in the record itself.
func anchors(chain []*x509.Certificate, t *dns.TLSA) []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range chain {
		if t.Verify(c) == nil {
			out = append(out, c)
		}
	}
	if t.Selector == 0 && t.MatchingType == 0 && len(out) == 0 {
		if raw, err := hex.DecodeString(t.Certificate); err == nil {
			if c, err := x509.ParseCertificate(raw); err == nil {
				out = append(out, c)
			}
		}
	}
	return out
}
