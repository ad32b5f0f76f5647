package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is the session policy: the part of the section smtp that belongs to
// this package.
type Config struct {
	// Peers are the networks of the other understudy.
	Peers []string `key:"peers" doc:"Networks of the other understudy; its mail is answered 451 while this site is not active."`
	// ETRNFrom are the networks that may start a flush.
	ETRNFrom []string `key:"etrn_from" doc:"Networks that may start the delivery of a domain's queue with ETRN (RFC 1985)." reload:"true"`
	// MaxHops is the number of Received lines above which a message loops.
	MaxHops int `key:"max_hops" default:"50" doc:"A message with more Received lines than this is taken for a loop." reload:"true"`
	// MaxOwnHops is how often a message may have passed this host already.
	MaxOwnHops int `key:"max_own_hops" default:"1" doc:"A message that has passed this host more often than this is taken for a loop." reload:"true"`
	// ReverseTimeout bounds the look-up of a client's name.
	ReverseTimeout time.Duration `key:"reverse_timeout" default:"5s" doc:"How long the client's name is looked for, counted from the connection; 0 switches it off." reload:"true"`
	// LookupTimeout bounds one recipient look-up.
	LookupTimeout time.Duration `key:"lookup_timeout" default:"20s" doc:"Longest look-up of one recipient; then the answer is 451." reload:"true"`
	// FilterTimeout bounds the filter.
	FilterTimeout time.Duration `key:"filter_timeout" default:"2m" doc:"Longest wait for the spam filter; then the answer is 451." reload:"true"`
	// CommitTimeout bounds the write to the queue.
	CommitTimeout time.Duration `key:"commit_timeout" default:"2m" doc:"Longest wait for the disk at the end of a message; then the answer is 451." reload:"true"`
	// Limits bound what one network may do.
	Limits LimitsConfig `key:"limits"`
}

// LimitsConfig bounds what one client network (an IPv4 address, an IPv6 /64) may
// do; 0 switches a limit off. The other understudy and listed networks are exempt.
type LimitsConfig struct {
	Exempt               []string `key:"exempt" default:"127.0.0.0/8, ::1/128" doc:"Networks without limits." reload:"true"`
	Connections          int      `key:"connections" default:"50" doc:"Open connections of one client network (an IPv4 address or an IPv6 /64)." reload:"true"`
	ConnectionsPerMinute int      `key:"connections_per_minute" default:"300" doc:"New connections of one client network in any minute." reload:"true"`
	MessagesPerMinute    int      `key:"messages_per_minute" default:"600" doc:"Messages of one client network in any minute." reload:"true"`
	RecipientsPerMinute  int      `key:"recipients_per_minute" default:"6000" doc:"Recipients, refused ones included, of one client network in any minute." reload:"true"`
	Clients              int      `key:"clients" default:"100000" doc:"Client networks remembered at most, about 300 bytes each; the longest idle are forgotten first."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{
		MaxHops:        50,
		MaxOwnHops:     1,
		ReverseTimeout: 5 * time.Second,
		LookupTimeout:  20 * time.Second,
		FilterTimeout:  2 * time.Minute,
		CommitTimeout:  2 * time.Minute,
		Limits: LimitsConfig{
			Exempt:               []string{"127.0.0.0/8", "::1/128"},
			Connections:          50,
			ConnectionsPerMinute: 300,
			MessagesPerMinute:    600,
			RecipientsPerMinute:  6000,
			Clients:              100_000,
		},
	}
}

// Validate returns all faults at once, each prefixed with its key.
func (c Config) Validate() error {
	_, err := c.policy()
	return err
}

// policy is a Config made ready for use; it is swapped as a whole on reload.
type policy struct {
	cfg      Config
	peers    networks
	etrnFrom networks
	exempt   networks
}

func (c Config) policy() (*policy, error) {
	p := &policy{cfg: c}
	var faults []error
	fault := func(key string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
	}
	var err error
	p.peers, err = parseNetworks(c.Peers)
	fault("peers", err)
	p.etrnFrom, err = parseNetworks(c.ETRNFrom)
	fault("etrn_from", err)
	p.exempt, err = parseNetworks(c.Limits.Exempt)
	fault("limits.exempt", err)
	if c.MaxHops < 1 {
		fault("max_hops", fmt.Errorf("%d is less than 1", c.MaxHops))
	}
	if c.MaxOwnHops < 0 {
		fault("max_own_hops", fmt.Errorf("%d is negative", c.MaxOwnHops))
	}
	if c.ReverseTimeout < 0 {
		fault("reverse_timeout", fmt.Errorf("%s is negative", c.ReverseTimeout))
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"lookup_timeout", c.LookupTimeout},
		{"filter_timeout", c.FilterTimeout},
		{"commit_timeout", c.CommitTimeout},
	} {
		if d.d <= 0 {
			fault(d.key, fmt.Errorf("%s is not positive", d.d))
		}
	}
	for _, n := range []struct {
		key string
		n   int
	}{
		{"limits.connections", c.Limits.Connections},
		{"limits.connections_per_minute", c.Limits.ConnectionsPerMinute},
		{"limits.messages_per_minute", c.Limits.MessagesPerMinute},
		{"limits.recipients_per_minute", c.Limits.RecipientsPerMinute},
	} {
		if n.n < 0 {
			fault(n.key, fmt.Errorf("%d is negative", n.n))
		}
	}
	if c.Limits.Clients < 1 {
		fault("limits.clients", fmt.Errorf("%d is less than 1", c.Limits.Clients))
	}
	return p, errors.Join(faults...)
}

// networks is a list of IP networks.
type networks []netip.Prefix

// parseNetworks reads addresses and prefixes.
func parseNetworks(list []string) (networks, error) {
	var nets networks
	var faults []error
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			a = a.Unmap()
			nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("%q is neither an address nor a network", s))
			continue
		}
		nets = append(nets, p.Masked())
	}
	return nets, errors.Join(faults...)
}

func (n networks) contains(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
