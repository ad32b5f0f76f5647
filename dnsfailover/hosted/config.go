package hosted

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libdns/cloudflare"
	"github.com/libdns/desec"
	"github.com/libdns/hetzner"
	"github.com/libdns/libdns"
	"github.com/libdns/route53"

	"understudy/dnsfailover"
	"understudy/internal/ask"
)

// The providers.
const (
	Cloudflare = "cloudflare"
	Route53    = "route53"
	DeSEC      = "desec"
	Hetzner    = "hetzner"
)

// Config is a zone at a DNS host.
type Config struct {
	Provider string `key:"provider" enum:"cloudflare,route53,desec,hetzner" doc:"Who hosts the zone."`
	Zone     string `key:"zone" doc:"The zone, as example.net."`
	// TokenFile holds the token. For Route 53 it holds the secret access key.
	TokenFile   string        `key:"token_file" doc:"File with the API token, limited to this zone; for route53, with the secret access key."`
	AccessKeyID string        `key:"access_key_id" doc:"With route53, the access key id."`
	Region      string        `key:"region" default:"us-east-1" doc:"With route53, the region of the API."`
	Name        string        `key:"name" default:"_understudy" doc:"Name within the zone of the TXT record that notes the epoch."`
	Timeout     time.Duration `key:"timeout" default:"30s" doc:"Time for one call of the API, retries included."`
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "_understudy"
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	return c
}

// Validate joins all faults, each starting with its key.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !slices.Contains([]string{Cloudflare, Route53, DeSEC, Hetzner}, c.Provider) {
		fault("provider: %q is not one of cloudflare, route53, desec, hetzner", c.Provider)
	}
	if strings.Trim(c.Zone, ".") == "" || strings.ContainsAny(c.Zone, " /") {
		fault("zone: %q is no domain name", c.Zone)
	}
	if c.TokenFile == "" {
		fault("token_file: is empty")
	}
	if c.Provider == Route53 && c.AccessKeyID == "" {
		fault("access_key_id: is empty")
	}
	if c.Timeout < time.Second || c.Timeout > 5*time.Minute {
		fault("timeout: %s is not between 1s and 5m", c.Timeout)
	}
	return errors.Join(errs...)
}

// Holds says whether a name is in the zone.
func (c Config) Holds(name string) bool {
	name, zone := dnsfailover.CanonicalName(name), dnsfailover.CanonicalName(c.Zone)
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// Whole says whether sets of several values can be replaced at the provider.
func (c Config) Whole() bool { return c.Provider == DeSEC }

// provider is what the adapter needs of libdns.
type provider interface {
	libdns.RecordGetter
	libdns.RecordSetter
}

func (c Config) open() (provider, error) {
	token, err := ask.Secret(c.TokenFile)
	if err != nil {
		return nil, err
	}
	token = strings.TrimSpace(token)
	if token == "" {
		return nil, fmt.Errorf("token_file: %s is empty", c.TokenFile)
	}
	switch c.Provider {
	case Cloudflare:
		return &cloudflare.Provider{APIToken: token}, nil
	case Route53:
		return &route53.Provider{AccessKeyId: c.AccessKeyID, SecretAccessKey: token, Region: c.Region, MaxRetries: 3}, nil
	case DeSEC:
		return &desec.Provider{Token: token}, nil
	}
	return hetzner.New(token), nil
}
