package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// The bounds of RSA keys: RFC 8301, section 3.2, and what is worth computing.
const (
	minRSABits = 1024
	maxRSABits = 8192
)

// errTemporary marks what may be asked again.
var errTemporary = errors.New("temporary failure")

// publicKey is a key record (RFC 6376, section 3.6.1).
type publicKey struct {
	kind   string // "rsa" or "ed25519"
	key    crypto.PublicKey
	hashes []string // h=; empty is all
}

// key looks the key of a signature up.
func (v *Verifier) key(ctx context.Context, domain, selector string) (publicKey, error) {
	name := canonical(selector) + "._domainkey." + domain
	if !isHostName(name) {
		return publicKey{}, errors.New("impossible key name")
	}
	txts, err := v.lookupKey(ctx, name)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound && ctx.Err() == nil {
			return publicKey{}, errors.New("no key")
		}
		return publicKey{}, fmt.Errorf("%w: %w", errTemporary, err)
	}
	if len(txts) != 1 {
		return publicKey{}, errors.New("not exactly one key record")
	}
	return parseKey(txts[0])
}

func parseKey(txt string) (publicKey, error) {
	t, ok := tags(txt)
	if v, there := t["v"]; !ok || there && v != "DKIM1" {
		return publicKey{}, errors.New("malformed key record")
	}
	raw, err := base64.StdEncoding.DecodeString(noSpace(t["p"]))
	switch {
	case err != nil:
		return publicKey{}, errors.New("malformed key")
	case len(raw) == 0:
		return publicKey{}, errors.New("key revoked")
	}
	k := publicKey{kind: t["k"]}
	if h, there := t["h"]; there {
		k.hashes = strings.Split(noSpace(h), ":")
	}
	if s, there := t["s"]; there {
		if services := strings.Split(noSpace(s), ":"); !slices.Contains(services, "*") && !slices.Contains(services, "email") {
			return publicKey{}, errors.New("key is not for mail")
		}
	}
	switch k.kind {
	case "", "rsa":
		k.kind = "rsa"
		k.key, err = parseRSA(raw)
	case "ed25519": // RFC 8463
		if len(raw) != ed25519.PublicKeySize {
			err = errors.New("malformed key")
		}
		k.key = ed25519.PublicKey(raw)
	default:
		err = errors.New("unknown kind of key")
	}
	return k, err
}

func parseRSA(raw []byte) (*rsa.PublicKey, error) {
	var key *rsa.PublicKey
	if any, err := x509.ParsePKIXPublicKey(raw); err == nil {
		key, _ = any.(*rsa.PublicKey)
	} else if key, err = x509.ParsePKCS1PublicKey(raw); err != nil {
		return nil, errors.New("malformed key")
	}
	if key == nil || key.N.BitLen() < minRSABits || key.N.BitLen() > maxRSABits {
		return nil, errors.New("key of an unacceptable kind or size")
	}
	return key, nil
}

// verify checks a signature over a SHA-256 digest made with algorithm a=.
func (k publicKey) verify(algorithm string, digest, signature []byte) error {
	kind, hash, _ := strings.Cut(algorithm, "-")
	if hash != "sha256" || kind != k.kind || len(k.hashes) > 0 && !slices.Contains(k.hashes, hash) {
		return errors.New("unacceptable algorithm")
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil {
			return nil
		}
	case ed25519.PublicKey:
		if ed25519.Verify(key, digest, signature) {
			return nil
		}
	}
	return errors.New("signature did not verify")
}
