package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// How a target learns the client's address.
const (
	ProxyNone = "none"
	ProxyV1   = "v1"
	ProxyV2   = "v2"
)

// What a service does while nobody knows who is active, or the active site cannot
// be reached.
const (
	// FencedAuto is local for mail, whose two sides are merged afterwards, and
	// refuse for everything else.
	FencedAuto = "auto"
	// FencedLocal goes on with the local target.
	FencedLocal = "local"
	// FencedRefuse resets the client at once.
	FencedRefuse = "refuse"
)

// What a service speaks in plain text, for a farewell its clients understand.
const (
	ProtocolAuto  = "auto"
	ProtocolRaw   = "raw"
	ProtocolIMAP  = "imap"
	ProtocolPOP3  = "pop3"
	ProtocolSMTP  = "smtp"
	ProtocolSieve = "sieve"
)

// Config is the section "tunnel".
type Config struct {
	// Services are the names of what is served, the same at both sites.
	Services map[string]ServiceConfig `key:"services" doc:"What clients may reach at either site, by names that are the same at both: imaps, submission, https."`
	// Drain is how long a connection may go on after its site has lost the role.
	Drain time.Duration `key:"drain" default:"5m" doc:"How long existing connections go on after the active site has changed."`
	// StopDrain is how long a daemon that stops waits for its connections.
	StopDrain time.Duration `key:"stop_drain" default:"10s" doc:"How long a daemon that stops lets connections go on before it says farewell."`
	// IdleTimeout ends a connection on which nothing passes.
	IdleTimeout time.Duration `key:"idle_timeout" default:"35m" doc:"How long a connection may be idle; more than the 29 minutes of IMAP IDLE."`
	// StallTimeout ends a connection whose reader takes nothing.
	StallTimeout time.Duration `key:"stall_timeout" default:"2m" doc:"How long a client or server may refuse to take bytes that wait for it."`
	// ConnectTimeout bounds the way to a target.
	ConnectTimeout time.Duration `key:"connect_timeout" default:"5s" doc:"Time to reach a target, or the other site."`
	// LinkLost is how long the link may be down before its connections are ended.
	LinkLost time.Duration `key:"link_lost" default:"15s" doc:"How long the link between the sites may be down before the connections on it are ended."`
}

// ServiceConfig is one service.
type ServiceConfig struct {
	// Listen are the public addresses.
	Listen []string `key:"listen" single:"true" doc:"Addresses for clients, as :993."`
	// Local is this site's server.
	Local string `key:"local" doc:"This site's own server, as 127.0.0.1:10993; of this machine or its network."`
	// ProxyProtocol is how Local learns the client's address.
	ProxyProtocol string `key:"proxy_protocol" default:"v2" enum:"v2,v1,none" doc:"How the server is told the client's address; it must expect exactly this."`
	// WhenFenced is what happens while nobody knows who is active.
	WhenFenced string `key:"when_fenced" default:"auto" enum:"auto,local,refuse" doc:"What happens while this site does not know who is active, or cannot reach the active site: local goes on here, refuse resets clients; auto is local for mail and refuse for everything else."`
	// Protocol is what is spoken in plain text.
	Protocol string `key:"protocol" default:"auto" enum:"auto,raw,imap,pop3,smtp,sieve" doc:"What clients speak, for a farewell in its words; auto knows it by the service's name."`
	// AcceptProxyFrom are networks whose PROXY header is believed.
	AcceptProxyFrom []string `key:"accept_proxy_from" doc:"Networks of load balancers whose connections start with a PROXY header; from anywhere else such a header is refused."`
	// MaxConnections and MaxPerClient bound what one service, and one client, may use.
	MaxConnections int `key:"max_connections" default:"8192" doc:"Connections to this service at the same time."`
	MaxPerClient   int `key:"max_per_client" default:"200" doc:"Connections of one client at the same time; an IPv6 client is its /64."`
}

// On says whether there is anything to serve.
func (c Config) On() bool { return len(c.Services) > 0 }

// withDefaults fills in what a Config made by hand leaves out.
func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Drain, 5*time.Minute)
	set(&c.StopDrain, 10*time.Second)
	set(&c.IdleTimeout, 35*time.Minute)
	set(&c.StallTimeout, 2*time.Minute)
	set(&c.ConnectTimeout, 5*time.Second)
	set(&c.LinkLost, 15*time.Second)
	c.Services = maps.Clone(c.Services)
	for name, s := range c.Services {
		c.Services[name] = s.withDefaults()
	}
	return c
}

func (s ServiceConfig) withDefaults() ServiceConfig {
	if s.ProxyProtocol == "" {
		s.ProxyProtocol = ProxyV2
	}
	if s.WhenFenced == "" {
		s.WhenFenced = FencedAuto
	}
	if s.Protocol == "" {
		s.Protocol = ProtocolAuto
	}
	if s.MaxConnections == 0 {
		s.MaxConnections = 8192
	}
	if s.MaxPerClient == 0 {
		s.MaxPerClient = 200
	}
	return s
}

// Validate joins all faults, each starting with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		at := "services." + name
		if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			fault("%s: %q is no name of a service; use lower-case letters, digits, - and _, at most 32", at, name)
		}
		s := c.Services[name]
		for _, a := range s.Listen {
			if other, twice := seen[a]; twice {
				fault("%s.listen: %q is already %s's", at, a, other)
			}
			seen[a] = name
			if host, port, err := net.SplitHostPort(a); err != nil || port == "" {
				fault("%s.listen: %q is not an address to listen on; write :993", at, a)
			} else if _, err := netip.ParseAddr(host); host != "" && err != nil {
				fault("%s.listen: %q: %q is not an IP address", at, a, host)
			} else if port == "25" {
				fault("%s.listen: port 25 is not tunnelled: each site takes mail itself (smtp.listen)", at)
			}
		}
		if s.Local == "" {
			fault("%s.local: is missing; write where this site's own server listens, as 127.0.0.1:10993", at)
		} else if host, port, err := net.SplitHostPort(s.Local); err != nil || host == "" || port == "" {
			fault("%s.local: %q is not host:port", at, s.Local)
		}
		for _, n := range s.AcceptProxyFrom {
			if _, err := parseNetwork(n); err != nil {
				fault("%s.accept_proxy_from: %w", at, err)
			}
		}
		if s.MaxConnections < 0 {
			fault("%s.max_connections: %d is negative", at, s.MaxConnections)
		}
		if s.MaxPerClient < 0 {
			fault("%s.max_per_client: %d is negative", at, s.MaxPerClient)
		}
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"drain", c.Drain},
		{"stop_drain", c.StopDrain},
		{"idle_timeout", c.IdleTimeout},
		{"stall_timeout", c.StallTimeout},
		{"connect_timeout", c.ConnectTimeout},
		{"link_lost", c.LinkLost},
	} {
		if d.value < 0 {
			fault("%s: must not be negative", d.key)
		}
	}
	return errors.Join(errs...)
}

// parseNetwork reads an address or a network.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is no network; write 192.0.2.0/24", text)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits behind its mask; write %s", text, p.Masked())
	}
	return p, nil
}
