package peer

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Config is the section "peer".
type Config struct {
	// Listen is where the other site may connect to; empty: only this site dials.
	Listen []string `key:"listen" single:"true" doc:"Addresses on which the other site may connect, as :7025; none: only this site dials, as behind NAT."`
	// Address is where the other site listens; empty: only the other site dials.
	Address string `key:"address" doc:"Where the other site listens, as mx1.example.net:7025; none: only the other site dials."`
	// Pins are the other site's public keys, two while one is being replaced. None:
	// the sites are not paired yet, and nobody is let in.
	Pins []string `key:"pins" reload:"true" single:"true" doc:"Public key of the other site, as understudy peer show prints it there (sha256:...); two while it is being replaced."`
	// KeyFile holds this site's private key.
	KeyFile string `key:"key_file" secret:"false" doc:"File of this site's private key, made by understudy peer init; by default peer.key in data_dir."`
	// Carry are connections of other programs, by "redis", "imap", "smtp" and "http".
	Carry map[string]CarryConfig `key:"carry" doc:"Connections that the link carries for other programs, so that one port between the sites is enough: redis, imap, smtp, http."`
	// Ping is how often each RPC connection is asked for a sign of life.
	Ping time.Duration `key:"ping" default:"1s" doc:"How often the link is measured."`
	// Silence is how long the link counts as up without a sign of life.
	Silence time.Duration `key:"silence" default:"5s" doc:"How long the other site may be silent before the link counts as down."`
	// ConnectTimeout bounds a TCP connect.
	ConnectTimeout time.Duration `key:"connect_timeout" default:"5s" doc:"Time to connect to the other site."`
	// HandshakeTimeout bounds a TLS handshake, in either direction.
	HandshakeTimeout time.Duration `key:"handshake_timeout" default:"10s" doc:"Time for a connection to prove its key."`
	// MaxConnections bounds the connections the other site may have open here.
	MaxConnections int `key:"max_connections" default:"16384" doc:"Connections that the other site may have open here at the same time."`
	// MaxClockOffset is the difference of the clocks that raises an alarm.
	MaxClockOffset time.Duration `key:"max_clock_offset" default:"2s" doc:"Difference between the two sites' clocks that raises an alarm."`
}

// On says whether there is a link at all.
func (c Config) On() bool { return len(c.Listen) > 0 || c.Address != "" || len(c.Pins) > 0 }

// withDefaults fills in what a Config made by hand leaves out.
func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Ping, time.Second)
	set(&c.Silence, 5*time.Second)
	set(&c.ConnectTimeout, 5*time.Second)
	set(&c.HandshakeTimeout, 10*time.Second)
	set(&c.MaxClockOffset, 2*time.Second)
	if c.MaxConnections == 0 {
		c.MaxConnections = 16384
	}
	return c
}

// Validate joins all faults, each starting with its key.
func (c Config) Validate() error {
	if !c.On() {
		return nil
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Listen) == 0 && c.Address == "" {
		fault("listen: is empty, and so is address: neither site could dial the other")
	}
	for _, a := range c.Listen {
		if _, _, err := net.SplitHostPort(a); err != nil {
			fault("listen: %q is not an address to listen on; write :7025", a)
		}
	}
	if c.Address != "" {
		if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
			fault("address: %q is not host:port", c.Address)
		}
	}
	if len(c.Pins) > 2 {
		fault("pins: has %d keys; two are enough while one is being replaced", len(c.Pins))
	}
	for _, p := range c.Pins {
		if _, err := ParsePin(p); err != nil {
			fault("pins: %w", err)
		}
	}
	if c.Ping < 50*time.Millisecond || c.Ping > time.Minute {
		fault("ping: %s is not between 50ms and 1m", c.Ping)
	}
	if c.Silence < 2*c.Ping {
		fault("silence: %s is less than two pings", c.Silence)
	}
	if c.ConnectTimeout <= 0 {
		fault("connect_timeout: must be positive")
	}
	if c.HandshakeTimeout <= 0 {
		fault("handshake_timeout: must be positive")
	}
	if c.MaxConnections < 16 {
		fault("max_connections: %d is less than 16", c.MaxConnections)
	}
	if c.MaxClockOffset <= 0 {
		fault("max_clock_offset: must be positive")
	}
	return errors.Join(append(errs, validateCarry(c.Carry))...)
}
