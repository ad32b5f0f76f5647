package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pinPrefix starts every pin; another hash would have another one.
const pinPrefix = "sha256:"

// Pin is the SHA-256 of a public key in its PKIX form, as RFC 7469, section 2.4,
// computes it.
type Pin [sha256.Size]byte

// String is the form in configurations: "sha256:" and 43 characters of base64url.
func (p Pin) String() string { return pinPrefix + base64.RawURLEncoding.EncodeToString(p[:]) }

// ParsePin reads what String wrote; padding and the standard alphabet are
// understood too.
func ParsePin(s string) (Pin, error) {
	var p Pin
	text, ok := strings.CutPrefix(s, pinPrefix)
	if !ok {
		return p, fmt.Errorf("%q is no pin: it must start with %s", s, pinPrefix)
	}
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(p) {
		return p, fmt.Errorf("%q is no pin: after %s come 43 characters of base64", s, pinPrefix)
	}
	copy(p[:], raw)
	return p, nil
}

// Key is a site's identity.
type Key struct {
	private ed25519.PrivateKey
	pin     Pin
	cert    tls.Certificate
}

// Pin is what the other site must be told.
func (k *Key) Pin() Pin { return k.pin }

// NewKey makes a key.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return keyOf(private)
}

// keyOf makes the certificate that carries the key through TLS. Nobody looks at
// anything in it but the key.
func keyOf(private ed25519.PrivateKey) (*Key, error) {
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "understudy"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		// RFC 5280, section 4.1.2.5: a certificate without an expiry date.
		NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &Key{
		private: private, pin: sha256.Sum256(spki),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
	}, nil
}

// pinOf computes the pin of a certificate's key.
func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// LoadKey reads a key that Save wrote. It refuses a file that others than its
// owner and group can read.
func LoadKey(path string) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read peer key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("read peer key: %s is open to everybody (mode %04o); run chmod o= on it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read peer key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("read peer key: %s holds no private key in PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read peer key: %s: %w", path, err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read peer key: %s is no ed25519 key", path)
	}
	return keyOf(private)
}

// ErrKeyExists is returned by Save where there is a key already; it left it alone.
var ErrKeyExists = errors.New("peer: there is a key already")

// Save writes the key to a new file that only its owner can read, synced. It
// never replaces one: the other site would not know the new key.
func (k *Key) Save(path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return fmt.Errorf("encode peer key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %s", ErrKeyExists, path)
	case err != nil:
		return fmt.Errorf("write peer key: %w", err)
	}
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write peer key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Pairing is what an operator carries to the other site: who this is, where it
// listens and how its key is recognised.
type Pairing struct {
	// Site is this site's name.
	Site string
	// Address is host:port; empty where the site cannot be reached.
	Address string
	// Pin recognises the key.
	Pin Pin
}

// String is the pairing string, "a@mx1.example.net:7025/sha256:...". It holds no
// secret, but whoever can change it on its way can pose as the site.
func (p Pairing) String() string { return p.Site + "@" + p.Address + "/" + p.Pin.String() }

// ParsePairing reads what String wrote.
func ParsePairing(s string) (Pairing, error) {
	site, rest, ok := strings.Cut(strings.TrimSpace(s), "@")
	address, pin, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || site == "" {
		return Pairing{}, fmt.Errorf("%q is no pairing string: expected SITE@HOST:PORT/%s and the pin", s, pinPrefix)
	}
	if address != "" {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return Pairing{}, fmt.Errorf("pairing string: %q is not host:port", address)
		}
	}
	parsed, err := ParsePin(pin)
	if err != nil {
		return Pairing{}, fmt.Errorf("pairing string: %w", err)
	}
	return Pairing{Site: site, Address: address, Pin: parsed}, nil
}
