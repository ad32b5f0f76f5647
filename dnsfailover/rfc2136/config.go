package rfc2136

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"understudy/internal/ask"
)

// Config is where the register is, and what lets this site change it.
type Config struct {
	// Server is the zone's primary, host:port.
	Server string `key:"server" doc:"Primary name server of the register's zone, as ns.example.net:53. It must be in neither site."`
	// Zone is the zone of the register and of the records that move with it.
	Zone string `key:"zone" doc:"Zone that holds the register, as svc.example.net."`
	// Name of the register's TXT record, relative to the zone.
	Name string `key:"name" default:"_understudy" doc:"Name of the register's TXT record within the zone."`
	// TSIG is this site's key.
	TSIG TSIG `key:"tsig"`
	// Timeout bounds one question and its answer.
	Timeout time.Duration `key:"timeout" default:"3s" doc:"Time for one question to the name server."`
}

// TSIG is a key.
type TSIG struct {
	Name       string `key:"name" doc:"Name of this site's TSIG key. Give each site its own."`
	Algorithm  string `key:"algorithm" default:"hmac-sha256" enum:"hmac-sha256,hmac-sha384,hmac-sha512" doc:"Algorithm of the TSIG key."`
	SecretFile string `key:"secret_file" doc:"File with the TSIG key's secret in base64."`
}

// algorithms are those that are still advised (RFC 8945, section 6).
var algorithms = map[string]func() hash.Hash{
	dns.HmacSHA256: sha256.New,
	dns.HmacSHA384: sha512.New384,
	dns.HmacSHA512: sha512.New,
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "_understudy"
	}
	if c.TSIG.Algorithm == "" {
		c.TSIG.Algorithm = "hmac-sha256"
	}
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	return c
}

// Validate joins all faults, each starting with its key. It reads no file.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if host, port, err := net.SplitHostPort(c.Server); err != nil || host == "" || port == "" {
		fault("server: %q is not host:port", c.Server)
	}
	if _, ok := dns.IsDomainName(c.Zone); !ok || strings.Trim(c.Zone, ".") == "" {
		fault("zone: %q is no domain name", c.Zone)
	}
	if _, ok := dns.IsDomainName(c.Name); !ok || strings.HasSuffix(c.Name, ".") || c.Name == "@" {
		fault("name: %q is no name within the zone", c.Name)
	}
	if _, ok := dns.IsDomainName(c.TSIG.Name); !ok || strings.Trim(c.TSIG.Name, ".") == "" {
		fault("tsig.name: %q is no name of a key", c.TSIG.Name)
	}
	if algorithms[dns.CanonicalName(c.TSIG.Algorithm)] == nil {
		fault("tsig.algorithm: %q is not one of hmac-sha256, hmac-sha384, hmac-sha512", c.TSIG.Algorithm)
	}
	if c.TSIG.SecretFile == "" {
		fault("tsig.secret_file: is empty")
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute {
		fault("timeout: %s is not between 100ms and 1m", c.Timeout)
	}
	return errors.Join(errs...)
}

// Host is the name server's host, for the check that it is in neither site.
func (c Config) Host() string {
	host, _, _ := net.SplitHostPort(c.Server)
	return host
}

// loadKey reads the secret.
func (t TSIG) loadKey() (key, error) {
	info, err := os.Stat(t.SecretFile)
	if err != nil {
		return key{}, fmt.Errorf("read TSIG secret: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return key{}, fmt.Errorf("read TSIG secret: %s is open to everybody (mode %04o); run chmod o= on it", t.SecretFile, info.Mode().Perm())
	}
	text, err := ask.Secret(t.SecretFile)
	if err != nil {
		return key{}, err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(secret) == 0 {
		// The text of the error could hold the secret.
		return key{}, fmt.Errorf("read TSIG secret: %s is not one line of base64", t.SecretFile)
	}
	algorithm := dns.CanonicalName(t.Algorithm)
	return key{name: dns.CanonicalName(t.Name), algorithm: algorithm, hash: algorithms[algorithm], secret: secret}, nil
}
