package builtin

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"understudy/smtp/auth"
	"understudy/spamsync"
)

// Config is the section spam.builtin.
type Config struct {
	Thresholds  Thresholds                `key:"thresholds"`
	Scores      map[string]float64        `key:"scores" doc:"Score of a symbol, by its name, instead of the default."`
	DNSBL       []ZoneConfig              `key:"dnsbl" doc:"Block lists that are asked for the client's address."`
	URIBL       []ZoneConfig              `key:"uribl" doc:"Block lists that are asked for the domains of URLs."`
	DNSTimeout  time.Duration             `key:"dns_timeout" default:"8s" doc:"Longest time all DNS questions of one message may take together."`
	DNSCache    auth.CacheConfig          `key:"dns_cache"`
	Trusted     []string                  `key:"trusted" doc:"Networks whose clients are neither looked up in lists nor greylisted nor limited."`
	TrustedARC  []string                  `key:"trusted_arc" doc:"Domains whose ARC seals are believed where DMARC fails, such as those of mailing lists."`
	ReceivedSPF bool                      `key:"received_spf" default:"false" doc:"Add a Received-SPF field."`
	Bayes       spamsync.BayesConfig      `key:"bayes"`
	Greylist    spamsync.GreylistConfig   `key:"greylist"`
	Ratelimit   spamsync.RatelimitConfig  `key:"ratelimit"`
	Reputation  spamsync.ReputationConfig `key:"reputation"`
}

// Thresholds say from which score something happens; the scale is rspamd's.
type Thresholds struct {
	Greylist  float64 `key:"greylist" default:"4" doc:"From this score up to reject, mail that was not seen before is deferred once."`
	AddHeader float64 `key:"add_header" default:"6" doc:"From this score mail is marked as spam."`
	Reject    float64 `key:"reject" default:"15" doc:"From this score mail is refused."`
}

// ZoneConfig is one DNS list. Several entries of one zone with different codes tell
// its answers apart; the question is asked once.
type ZoneConfig struct {
	Zone   string   `key:"zone" doc:"Name of the list in DNS."`
	Symbol string   `key:"symbol" doc:"Name of the finding, in capitals."`
	Score  float64  `key:"score" default:"0" doc:"Score of the finding."`
	Codes  []string `key:"codes" doc:"Answers that count, addresses or networks in 127.0.0.0/8; without any, every answer but the error codes 127.255.255.x."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{
		Thresholds: Thresholds{Greylist: 4, AddHeader: 6, Reject: 15},
		DNSTimeout: 8 * time.Second,
		DNSCache:   auth.CacheConfig{Entries: 20_000, TTL: 5 * time.Minute, Negative: time.Minute, Timeout: 5 * time.Second},
		Bayes:      spamsync.BayesConfig{MinLearns: 200},
		Greylist: spamsync.GreylistConfig{
			Enabled: true, Delay: 5 * time.Minute, Window: 48 * time.Hour, Remember: 840 * time.Hour, MaxLocal: 100_000,
		},
		Ratelimit:  spamsync.RatelimitConfig{Window: time.Hour},
		Reputation: spamsync.ReputationConfig{Enabled: true, HalfLife: 168 * time.Hour, Keep: 960 * time.Hour},
	}
}

// Validate reports all faults at once, each with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if t := c.Thresholds; t.Greylist <= 0 || t.AddHeader < t.Greylist || t.Reject < t.AddHeader {
		fault("thresholds", errors.New("must be positive and rise from greylist over add_header to reject"))
	}
	known := defaults()
	for name := range c.Scores {
		if _, ok := known[name]; !ok && !c.isZoneSymbol(name) {
			fault("scores", fmt.Errorf("no symbol is named %q", name))
		}
	}
	for i, z := range c.DNSBL {
		fault(fmt.Sprintf("dnsbl[%d]", i), z.validate(known))
	}
	for i, z := range c.URIBL {
		fault(fmt.Sprintf("uribl[%d]", i), z.validate(known))
	}
	if c.DNSTimeout <= 0 {
		fault("dns_timeout", errors.New("must be positive"))
	}
	if _, err := parseNetworks(c.Trusted); err != nil {
		fault("trusted", err)
	}
	fault("dns_cache", c.DNSCache.Validate())
	fault("bayes", c.Bayes.Validate())
	fault("greylist", c.Greylist.Validate())
	fault("ratelimit", c.Ratelimit.Validate())
	fault("reputation", c.Reputation.Validate())
	return errors.Join(errs...)
}

func (c Config) isZoneSymbol(name string) bool {
	for _, z := range append(append([]ZoneConfig(nil), c.DNSBL...), c.URIBL...) {
		if z.Symbol == name {
			return true
		}
	}
	return false
}

func (z ZoneConfig) validate(known map[string]float64) error {
	var errs []error
	if z.Zone == "" || strings.ContainsAny(z.Zone, " /@") || !strings.Contains(z.Zone, ".") {
		errs = append(errs, fmt.Errorf("zone: %q is no domain", z.Zone))
	}
	if z.Symbol == "" || strings.Trim(z.Symbol, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		errs = append(errs, fmt.Errorf("symbol: %q is not made of capitals, digits and _", z.Symbol))
	} else if _, taken := known[z.Symbol]; taken {
		errs = append(errs, fmt.Errorf("symbol: %s is taken", z.Symbol))
	}
	if _, err := parseNetworks(z.Codes); err != nil {
		errs = append(errs, fmt.Errorf("codes: %w", err))
	}
	return errors.Join(errs...)
}

// parseNetworks reads addresses and networks.
func parseNetworks(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	var errs []error
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, errAddr := netip.ParseAddr(s); errAddr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is neither an address nor a network", s))
			continue
		}
		out = append(out, p.Masked())
	}
	return out, errors.Join(errs...)
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
