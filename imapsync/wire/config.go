package wire

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Config says how one server is reached and how far it is trusted. The zero value of
// every field but Address is useful.
type Config struct {
	Address    string   `key:"address" doc:"imaps://host[:993], or imap://host[:143], which uses STARTTLS where offered and plain text only towards loopback."`
	Insecure   bool     `key:"insecure" default:"false" doc:"Allow plain text, secrets included, over imap:// to other machines."`
	ServerName string   `key:"server_name" doc:"Name the certificate must bear; the address's host if empty."`
	CA         string   `key:"ca" doc:"PEM file of the authorities that may sign the certificate; the system's if empty."`
	Pins       []string `key:"pins" doc:"Public keys, sha256: and the base64 or hexadecimal hash of the SubjectPublicKeyInfo. If set, exactly these are trusted and names, dates and authorities do not matter."`
	Compress   bool     `key:"compress" default:"false" doc:"Use COMPRESS=DEFLATE where offered: worth its processor time on thin lines only."`
	Disable    []string `key:"disable" doc:"Capabilities not to be used although the server offers them, such as QRESYNC or MULTIAPPEND."`

	DialTimeout time.Duration `key:"dial_timeout" default:"20s" doc:"Longest time for connecting, the greeting, the TLS handshake and the login."`
	Timeout     time.Duration `key:"timeout" default:"3m" doc:"Longest silence of the server while it owes an answer, and longest time for 32 KiB in either direction."`

	// Limits bound what the server may send.
	Limits Limits `key:"-"`
}

// Limits bound what a server may send. Zero means the default named at the field.
type Limits struct {
	// LineBytes bounds one response without streamed literals; 8 MiB. A search
	// without ESEARCH in 700,000 messages answers about 5 MiB.
	LineBytes int64
	// StringBytes bounds one atom, quoted string or literal that is held in memory;
	// 64 KiB. Headers have a bound of their own.
	StringBytes int64
	// HeaderBytes bounds the fetched header of a message; 256 KiB.
	HeaderBytes int64
	// MessageBytes bounds a streamed body; 4 GiB. Longer ones end the connection.
	MessageBytes int64
	// Items bounds flags of a message, capabilities and the like; 4,096.
	Items int
	// Mailboxes bounds the lines of one LIST; 100,000.
	Mailboxes int
	// Ranges bounds the ranges of one set of UIDs; 1,000,000.
	Ranges int
	// Depth bounds nested parentheses; 16.
	Depth int
}

func (l Limits) withDefaults() Limits {
	set := func(n *int64, def int64) {
		if *n <= 0 {
			*n = def
		}
	}
	count := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	set(&l.LineBytes, 8<<20)
	set(&l.StringBytes, 64<<10)
	set(&l.HeaderBytes, 256<<10)
	set(&l.MessageBytes, 4<<30)
	count(&l.Items, 4096)
	count(&l.Mailboxes, 100_000)
	count(&l.Ranges, 1_000_000)
	count(&l.Depth, 16)
	return l
}

// DefaultConfig returns the defaults named in the tags of Config.
func DefaultConfig() Config {
	return Config{DialTimeout: 20 * time.Second, Timeout: 3 * time.Minute}.withDefaults()
}

func (c Config) withDefaults() Config {
	if c.DialTimeout <= 0 {
		c.DialTimeout = 20 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 3 * time.Minute
	}
	c.Limits = c.Limits.withDefaults()
	return c
}

// Validate returns all faults at once, each with its key in front.
func (c Config) Validate() error {
	var errs []error
	if _, err := c.endpoint(); err != nil {
		errs = append(errs, fmt.Errorf("address: %w", err))
	}
	for _, pin := range c.Pins {
		if _, err := parsePin(pin); err != nil {
			errs = append(errs, fmt.Errorf("pins: %w", err))
		}
	}
	if c.DialTimeout < 0 {
		errs = append(errs, errors.New("dial_timeout: must not be negative"))
	}
	if c.Timeout < 0 {
		errs = append(errs, errors.New("timeout: must not be negative"))
	}
	return errors.Join(errs...)
}

func (c Config) disabled(capability imap.Cap) bool {
	for _, name := range c.Disable {
		if strings.EqualFold(name, string(capability)) {
			return true
		}
	}
	return false
}

// endpoint is a parsed address.
type endpoint struct {
	network, address string // for net.Dialer
	host             string
	implicitTLS      bool
	loopback         bool
}

func (c Config) endpoint() (endpoint, error) {
	if c.Address == "" {
		return endpoint{}, errors.New("is missing")
	}
	u, err := url.Parse(c.Address)
	if err != nil {
		return endpoint{}, err
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return endpoint{}, fmt.Errorf("%q is more than scheme, host and port", c.Address)
	}
	e := endpoint{network: "tcp", host: u.Hostname()}
	port := u.Port()
	switch u.Scheme {
	case "imaps":
		e.implicitTLS = true
		if port == "" {
			port = "993"
		}
	case "imap":
		if port == "" {
			port = "143"
		}
	default:
		return endpoint{}, fmt.Errorf("%q starts neither with imaps:// nor with imap://", c.Address)
	}
	if e.host == "" {
		return endpoint{}, fmt.Errorf("%q names no host", c.Address)
	}
	e.address = net.JoinHostPort(e.host, port)
	ip, err := netip.ParseAddr(e.host)
	e.loopback = err == nil && ip.Unmap().IsLoopback() || err != nil && strings.EqualFold(e.host, "localhost")
	return e, nil
}

// tlsConfig trusts what Config says. Towards loopback, where nothing is configured,
// any certificate will do: whoever can listen there needs no forged one.
func (c Config) tlsConfig(e endpoint) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.host, NextProtos: []string{"imap"}}
	if c.ServerName != "" {
		conf.ServerName = c.ServerName
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities: no certificate in %s", c.CA)
		}
	}
	switch {
	case len(c.Pins) > 0:
		conf.InsecureSkipVerify = true // the pins below are the verification
		pins := make([][]byte, len(c.Pins))
		for i, pin := range c.Pins {
			sum, err := parsePin(pin)
			if err != nil {
				return nil, err
			}
			pins[i] = sum
		}
		// VerifyConnection also runs for a resumed session.
		conf.VerifyConnection = func(state tls.ConnectionState) error { return verifyPins(state, pins) }
	case e.loopback && c.CA == "" && c.ServerName == "":
		conf.InsecureSkipVerify = true
	}
	return conf, nil
}

func verifyPins(state tls.ConnectionState, pins [][]byte) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("server shows no certificate")
	}
	sum := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	for _, pin := range pins {
		if subtle.ConstantTimeCompare(pin, sum[:]) == 1 {
			return nil
		}
	}
	return fmt.Errorf("%w: it is sha256:%s", ErrPin, base64.StdEncoding.EncodeToString(sum[:]))
}

// parsePin reads "sha256:" and a hash in base64 or hexadecimal.
func parsePin(pin string) ([]byte, error) {
	text, ok := strings.CutPrefix(pin, "sha256:")
	if !ok {
		return nil, fmt.Errorf("no sha256: in front of %q", pin)
	}
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if sum, err := decode(text); err == nil && len(sum) == sha256.Size {
			return sum, nil
		}
	}
	return nil, fmt.Errorf("%q is not the base64 or hexadecimal form of 32 bytes", pin)
}
