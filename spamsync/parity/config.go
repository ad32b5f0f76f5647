package parity

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"understudy/spamsync/engine/link"
)

// Config is the section spam.parity.
type Config struct {
	Interval         time.Duration `key:"interval" default:"0s" doc:"How often serve compares both sites; 0 never does."`
	PeerURL          string        `key:"peer_url" doc:"Rspamd's normal worker at the other site, as http://10.0.0.1:11333; without it no Rspamd is compared."`
	PeerController   string        `key:"peer_controller" doc:"Rspamd's controller at the other site; by default port 11334 of the host in peer_url."`
	Controller       string        `key:"controller" doc:"Rspamd's controller at this site, by default http://127.0.0.1:11334."`
	PasswordFile     string        `key:"password_file" doc:"File with the password of this site's controller."`
	PeerPasswordFile string        `key:"peer_password_file" doc:"File with the password of the other site's controller; by default that of password_file."`
	Samples          int           `key:"samples" default:"50" doc:"How many generated messages both sites judge in a scheduled comparison."`
	Corpus           string        `key:"corpus" doc:"Directory or mbox of messages for scheduled comparisons instead of generated ones."`
	Timeout          time.Duration `key:"timeout" default:"30s" doc:"Longest time for one judgement."`
	MaxClockOffset   time.Duration `key:"max_clock_offset" default:"2s" doc:"How far the clocks of both sites may be apart."`
	BayesTolerance   float64       `key:"bayes_tolerance" default:"2" doc:"How far the classifier's scores for one message may be apart; they differ a little from one start of Rspamd to the next. On average over all messages 0.25 is the limit."`
	Resolver         string        `key:"resolver" doc:"DNS server that this site's engine asks, host:port; with peer_resolver, to compare their answers."`
	PeerResolver     string        `key:"peer_resolver" doc:"DNS server that the other site's engine asks, host:port."`
	Names            []string      `key:"names" default:"2.0.0.127.zen.spamhaus.org, dbltest.com.dbl.spamhaus.org, test.uribl.com.multi.uribl.com" doc:"Names that both DNS servers are asked for; the test entries of the block lists in use show a server that is blocked there."`
	Configdump       []string      `key:"configdump" doc:"Command, without a shell, that prints this site's configuration of Rspamd; by default rspamadm configdump -j. It runs only with peer_configdump."`
	PeerConfigdump   []string      `key:"peer_configdump" doc:"Command, without a shell, that prints the other site's configuration of Rspamd, such as ssh with rspamadm configdump -j, or cat of a file; without it configurations are not compared."`
	ConfigdumpIgnore []string      `key:"configdump_ignore" default:"logging, worker" doc:"Sections or settings of Rspamd, as options.dns, that may differ between the sites."`
	Disable          []string      `key:"disable" doc:"Further symbols of Rspamd that a comparison must not run, such as the _POST and _IDEMPOTENT ones of reputation rules of your own."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{
		Samples: 50, Timeout: 30 * time.Second, MaxClockOffset: 2 * time.Second, BayesTolerance: 2,
		ConfigdumpIgnore: []string{"logging", "worker"},
		Names:            []string{"2.0.0.127.zen.spamhaus.org", "dbltest.com.dbl.spamhaus.org", "test.uribl.com.multi.uribl.com"},
	}
}

// Validate reports all faults at once, each with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, u := range []struct{ key, value string }{
		{"peer_url", c.PeerURL}, {"peer_controller", c.PeerController}, {"controller", c.Controller},
	} {
		if u.value == "" {
			continue
		}
		if p, err := url.Parse(u.value); err != nil || (p.Scheme != "http" && p.Scheme != "https") || p.Host == "" {
			fault("%s: %q is not http://host:port", u.key, link.Redact(u.value))
		}
	}
	for _, a := range []struct{ key, value string }{{"resolver", c.Resolver}, {"peer_resolver", c.PeerResolver}} {
		if _, _, err := net.SplitHostPort(a.value); a.value != "" && err != nil {
			fault("%s: %q is not host:port", a.key, a.value)
		}
	}
	if (c.Resolver == "") != (c.PeerResolver == "") {
		fault("resolver: resolver and peer_resolver need each other")
	}
	if c.Interval < 0 || c.Interval > 0 && c.Interval < time.Minute {
		fault("interval: must be 0 or at least 1m")
	}
	if c.Samples < 1 || c.Samples > 10_000 {
		fault("samples: must be from 1 to 10000")
	}
	if c.Timeout <= 0 {
		fault("timeout: must be positive")
	}
	if c.BayesTolerance < 0 {
		fault("bayes_tolerance: must not be negative")
	}
	for _, command := range []struct {
		key  string
		argv []string
	}{{"configdump", c.Configdump}, {"peer_configdump", c.PeerConfigdump}} {
		if len(command.argv) > 0 && command.argv[0] == "" {
			fault("%s: must begin with the name of a program", command.key)
		}
	}
	if len(c.Configdump) > 0 && len(c.PeerConfigdump) == 0 {
		fault("peer_configdump: is missing; configdump needs it")
	}
	if c.MaxClockOffset <= 0 {
		fault("max_clock_offset: must be positive")
	}
	return errors.Join(errs...)
}

// peerController is the other site's controller.
func (c Config) peerController() string {
	if c.PeerController != "" {
		return c.PeerController
	}
	u, err := url.Parse(c.PeerURL)
	if err != nil {
		return ""
	}
	u.Host = net.JoinHostPort(u.Hostname(), "11334")
	return u.String()
}

// controller is this site's.
func (c Config) controller() string {
	if c.Controller != "" {
		return c.Controller
	}
	return "http://127.0.0.1:11334"
}

// configdump is the command that prints this site's configuration.
func (c Config) configdump() []string {
	if len(c.Configdump) > 0 {
		return c.Configdump
	}
	return []string{"rspamadm", "configdump", "-j"}
}
