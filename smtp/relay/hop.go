package relay

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Policy is how a connection to a next hop is protected.
type Policy string

// The policies. The empty one is the relay's default.
const (
	// None: plain text.
	None Policy = "none"
	// Opportunistic: STARTTLS where offered, with any certificate, plain text
	// where it fails.
	Opportunistic Policy = "opportunistic"
	// Required: encrypted, with any certificate, or not at all.
	Required Policy = "required"
	// Verified: encrypted, the certificate valid for the host's name.
	Verified Policy = "verified"
	// Pinned: encrypted, the public key one of the hop's pins.
	Pinned Policy = "pinned"
	// DANE: RFC 7672 where the zone is signed and has TLSA records, else
	// Opportunistic.
	DANE Policy = "dane"
)

func (p Policy) valid() bool {
	switch p {
	case None, Opportunistic, Required, Verified, Pinned, DANE:
		return true
	}
	return false
}

// Hop is one place mail can be carried to. The zero value is no hop.
type Hop struct {
	// Network is tcp or unix; MX says that Address is a domain whose MX records
	// name the hosts.
	Network string
	MX      bool
	// Host is the name or address as given, for logs and for the certificate;
	// Address is what is dialled: host:port, a path, or the domain of MX.
	Host    string
	Address string
	// LMTP speaks RFC 2033; ImplicitTLS begins with TLS (smtps).
	LMTP        bool
	ImplicitTLS bool
	// TLS is the policy; empty is the relay's default. Pins are SHA-256 sums of
	// public keys (SubjectPublicKeyInfo).
	TLS  Policy
	Pins [][sha256.Size]byte
	// ServerName is the name to verify instead of Host.
	ServerName string
	// Connections limits the connections; 0 is the relay's default.
	Connections int
	// NoChunking uses DATA even where CHUNKING is offered.
	NoChunking bool

	text string
}

// String is the hop as it was configured.
func (h Hop) String() string { return h.text }

// IsZero says that this is no hop.
func (h Hop) IsZero() bool { return h.Address == "" }

// ParseHop reads "smtp://host:25", "smtps://host", "lmtp://host:24",
// "lmtp:///path/socket", "mx://domain" or "host[:port]". Options follow as a
// query: tls=POLICY, pin=sha256:KEY (base64 or hex; may be repeated), name=NAME
// to verify, connections=N, chunking=off.
func ParseHop(s string) (Hop, error) {
	text := s
	if !strings.Contains(s, "://") {
		s = "smtp://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return Hop{}, fmt.Errorf("next hop %q: %w", text, err)
	}
	h := Hop{Network: "tcp", text: text}
	if err := place(&h, u); err != nil {
		return Hop{}, fmt.Errorf("next hop %q: %w", text, err)
	}
	if err := options(&h, u.Query()); err != nil {
		return Hop{}, fmt.Errorf("next hop %q: %w", text, err)
	}
	return h, nil
}

func place(h *Hop, u *url.URL) error {
	if u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return errors.New("only scheme, host, port, path and options are known")
	}
	port := "25"
	switch u.Scheme {
	case "smtp":
	case "smtps":
		port, h.ImplicitTLS = "465", true
	case "lmtp":
		port, h.LMTP = "24", true
		if u.Host == "" && len(u.Path) > 1 {
			h.Network, h.Host, h.Address = "unix", "localhost", u.Path
			return nil
		}
	case "mx":
		h.MX = true
	default:
		return fmt.Errorf("unknown scheme %q: smtp, smtps, lmtp or mx", u.Scheme)
	}
	if u.Path != "" && u.Path != "/" {
		return errors.New("a path needs lmtp:///path")
	}
	h.Host = u.Hostname()
	if h.Host == "" {
		return errors.New("no host")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("port %q is none", p)
		}
		port = p
	}
	h.Address = net.JoinHostPort(h.Host, port)
	return nil
}

func options(h *Hop, q url.Values) error {
	for key, values := range q {
		value := values[len(values)-1]
		switch key {
		case "tls":
			if h.TLS = Policy(value); !h.TLS.valid() {
				return fmt.Errorf("tls=%q is none of none, opportunistic, required, verified, pinned, dane", value)
			}
		case "pin":
			for _, v := range values {
				pin, err := parsePin(v)
				if err != nil {
					return err
				}
				h.Pins = append(h.Pins, pin)
			}
		case "name":
			h.ServerName = value
		case "connections":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > 1000 {
				return fmt.Errorf("connections=%q is not between 1 and 1000", value)
			}
			h.Connections = n
		case "chunking":
			if !slices.Contains([]string{"on", "off"}, value) {
				return fmt.Errorf("chunking=%q is neither on nor off", value)
			}
			h.NoChunking = value == "off"
		default:
			return fmt.Errorf("unknown option %q", key)
		}
	}
	if len(h.Pins) > 0 && h.TLS == "" {
		h.TLS = Pinned
	}
	if (h.TLS == Pinned) != (len(h.Pins) > 0) {
		return errors.New("tls=pinned and pin= go together")
	}
	if h.ImplicitTLS && h.TLS == None {
		return errors.New("smtps with tls=none")
	}
	return nil
}

// parsePin reads "sha256:" or "pin-sha256:" and a sum in base64 or hex. A query
// turns "+" into a blank: it is turned back.
func parsePin(s string) (sum [sha256.Size]byte, err error) {
	v := strings.TrimPrefix(strings.ReplaceAll(s, " ", "+"), "pin-")
	v, ok := strings.CutPrefix(v, "sha256:")
	if !ok {
		return sum, fmt.Errorf("pin %q has no sha256: in front", s)
	}
	b, err := hex.DecodeString(v)
	if err != nil {
		v = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(v), "=")
		b, err = base64.RawStdEncoding.DecodeString(v)
	}
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("pin %q is no SHA-256 sum in base64 or hex", s)
	}
	return [sha256.Size]byte(b), nil
}
