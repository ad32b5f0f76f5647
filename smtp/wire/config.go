package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ServerConfig holds the limits of a Server. The zero value is not useful:
// start from DefaultServerConfig. Every count and size limits one connection,
// unless it says otherwise.
type ServerConfig struct {
	MaxMessageBytes int64 `key:"max_message" default:"50MiB" doc:"Largest message taken; announced with SIZE. A message of exactly this size is taken."`
	MaxRecipients   int   `key:"max_recipients" default:"1000" doc:"Recipients per message, at least 100 (RFC 5321, 4.5.3.1.8); announced with LIMITS. More get 452."`

	MaxCommandLineBytes int64 `key:"max_command_line" default:"4KiB" doc:"Longest command line, CRLF included; longer ones are answered 500."`
	MaxConnections      int   `key:"max_connections" default:"1000" doc:"Connections served at the same time, over all listeners; more get 421."`
	MaxBadCommands      int   `key:"max_bad_commands" default:"10" doc:"Refused commands between two messages after which the connection is closed with 421."`
	MaxBadRecipients    int   `key:"max_bad_recipients" default:"20" doc:"Recipients refused with 5xx between two messages after which the connection is closed with 421."`
	MaxIdleCommands     int   `key:"max_idle_commands" default:"100" doc:"Commands that move no mail (NOOP, RSET, VRFY, EHLO ...) between two messages, after which the connection is closed with 421."`
	MaxTransactions     int   `key:"max_transactions" default:"10000" doc:"Messages per connection; then 421, and the client may connect again."`

	CommandTimeout   time.Duration `key:"command_timeout" default:"5m" doc:"Time a client has for one whole command line, and for taking a reply (RFC 5321, 4.5.3.2.7)."`
	DataTimeout      time.Duration `key:"data_timeout" default:"3m" doc:"Longest silence inside a message (RFC 5321, 4.5.3.2.5), and the credit of min_data_rate."`
	DataTotal        time.Duration `key:"data_total" default:"1h" doc:"Longest time one message may take."`
	MinDataRate      int64         `key:"min_data_rate" default:"100" doc:"Bytes per second a message must make on the whole; a slower sender uses up data_timeout and is cut off. 0 switches it off."`
	DiscardTimeout   time.Duration `key:"discard_timeout" default:"5m" doc:"Longest time the rest of a refused message is read before the connection is closed."`
	HandshakeTimeout time.Duration `key:"handshake_timeout" default:"1m" doc:"Longest time for a TLS handshake, and for the header of the PROXY protocol."`
	GreetDelay       time.Duration `key:"greet_delay" default:"0s" doc:"Wait before the banner; a client that talks meanwhile is refused. 0s only looks once."`
	ShutdownTimeout  time.Duration `key:"shutdown_timeout" default:"30s" doc:"Time a message being received has to finish when the server stops."`

	ProxyFrom   []string `key:"proxy_from" doc:"Networks whose connections must start with a PROXY v1 or v2 header."`
	XClientFrom []string `key:"xclient_from" doc:"Networks that may use XCLIENT and XFORWARD."`
}

// DefaultServerConfig returns the defaults named in the tags of ServerConfig.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{
		MaxMessageBytes:     50 << 20,
		MaxRecipients:       1000,
		MaxCommandLineBytes: 4 << 10,
		MaxConnections:      1000,
		MaxBadCommands:      10,
		MaxBadRecipients:    20,
		MaxIdleCommands:     100,
		MaxTransactions:     10000,
		CommandTimeout:      5 * time.Minute,
		DataTimeout:         3 * time.Minute,
		DataTotal:           time.Hour,
		MinDataRate:         100,
		DiscardTimeout:      5 * time.Minute,
		HandshakeTimeout:    time.Minute,
		ShutdownTimeout:     30 * time.Second,
	}
}

// Validate returns all faults at once, each with its key in front.
func (c ServerConfig) Validate() error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	atLeast := func(key string, have, least int64) {
		if have < least {
			fault(key, "is %d, must be at least %d", have, least)
		}
	}
	positive := func(key string, d time.Duration) {
		if d <= 0 {
			fault(key, "is %v, must be positive", d)
		}
	}
	// RFC 5321, section 4.5.3.1.7: at least 64 KiB of message content.
	atLeast("max_message", c.MaxMessageBytes, 64<<10)
	// RFC 5321, section 4.5.3.1.8: at least 100 recipients.
	atLeast("max_recipients", int64(c.MaxRecipients), 100)
	// RFC 5321, section 4.5.3.1.4, and what RFC 1870, 3461 and 6531 add to it.
	atLeast("max_command_line", c.MaxCommandLineBytes, 2048)
	if c.MaxCommandLineBytes > 64<<10 {
		fault("max_command_line", "is %d bytes, must be at most 64KiB", c.MaxCommandLineBytes)
	}
	atLeast("max_connections", int64(c.MaxConnections), 1)
	atLeast("max_bad_commands", int64(c.MaxBadCommands), 1)
	atLeast("max_bad_recipients", int64(c.MaxBadRecipients), 1)
	atLeast("max_idle_commands", int64(c.MaxIdleCommands), 1)
	atLeast("max_transactions", int64(c.MaxTransactions), 1)
	positive("command_timeout", c.CommandTimeout)
	positive("data_timeout", c.DataTimeout)
	positive("data_total", c.DataTotal)
	atLeast("min_data_rate", c.MinDataRate, 0)
	positive("discard_timeout", c.DiscardTimeout)
	positive("handshake_timeout", c.HandshakeTimeout)
	if c.GreetDelay < 0 {
		fault("greet_delay", "is %v, must not be negative", c.GreetDelay)
	}
	positive("shutdown_timeout", c.ShutdownTimeout)
	if _, err := parseNetworks(c.ProxyFrom); err != nil {
		fault("proxy_from", "%v", err)
	}
	if _, err := parseNetworks(c.XClientFrom); err != nil {
		fault("xclient_from", "%v", err)
	}
	return errors.Join(errs...)
}

// networks is a list of address ranges.
type networks []netip.Prefix

// contains reports whether addr is in one of the ranges. An IPv4 address inside
// IPv6 counts as IPv4.
func (n networks) contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// parseNetworks reads addresses ("192.0.2.1") and ranges ("2001:db8::/32").
func parseNetworks(list []string) (networks, error) {
	var nets networks
	for _, s := range list {
		if !strings.Contains(s, "/") {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("%q is no address and no network", s)
			}
			a = a.Unmap()
			nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no address and no network", s)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%q has bits set beyond its length; did you mean %q?", s, p.Masked())
		}
		nets = append(nets, p)
	}
	return nets, nil
}
