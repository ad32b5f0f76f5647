package relay

import (
	"errors"
	"fmt"
	"time"
)

// Config is the part of the configuration that says how mail is carried on.
type Config struct {
	Connections     int           `key:"connections" default:"20" doc:"Connections to one next hop at most."`
	Window          int           `key:"window" default:"16" doc:"Messages on their way on one connection before an answer has to come (1 with LMTP)."`
	Messages        int           `key:"messages_per_connection" default:"1000" doc:"Messages after which a connection is replaced."`
	IdleTimeout     time.Duration `key:"idle_timeout" default:"30s" doc:"How long a connection without work is kept."`
	ConnectTimeout  time.Duration `key:"connect_timeout" default:"30s" doc:"Time for the connection to the next hop to be made."`
	GreetingTimeout time.Duration `key:"greeting_timeout" default:"5m" doc:"Time for each of banner, EHLO and STARTTLS."`
	CommandTimeout  time.Duration `key:"command_timeout" default:"5m" doc:"Time for the answer to a command."`
	ProgressTimeout time.Duration `key:"progress_timeout" default:"3m" doc:"Time for the next hop to take 32 KiB of a message."`
	FinalTimeout    time.Duration `key:"final_timeout" default:"10m" doc:"Time for the answer to a whole message."`
	StopTimeout     time.Duration `key:"stop_timeout" default:"5s" doc:"Time that messages on their way get when the daemon stops."`

	ProbeInterval time.Duration `key:"probe_interval" default:"1s" doc:"How often a next hop that is down is tried."`
	PauseAfter    int           `key:"pause_after" default:"5" doc:"Messages in a row that a next hop refuses for reasons of its own before it is paused."`
	PauseFirst    time.Duration `key:"pause_first" default:"30s" doc:"Wait before a paused next hop is tried with one message; it doubles each time."`
	PauseMax      time.Duration `key:"pause_max" default:"15m" doc:"Longest wait between two tries of a paused next hop."`
	AlarmAfter    time.Duration `key:"alarm_after" default:"5m" doc:"How long a next hop is down before an alarm says so."`

	TLS             string `key:"tls" default:"opportunistic" doc:"TLS towards next hops that do not say it themselves: none, opportunistic, required (any certificate), verified (by name), dane (verified where TLSA records say how, else opportunistic)."`
	Resolver        string `key:"resolver" default:"" doc:"DNS server for mx:// hops, DANE and MTA-STS, as address or address:port; empty is the first of /etc/resolv.conf."`
	ResolverTrusted bool   `key:"resolver_trusted" default:"false" doc:"Believe the resolver's word that an answer was validated (AD) though it is not on this machine; the way to it must be safe."`

	ClientHeader bool `key:"client_header" default:"false" doc:"Tell a next hop that takes neither XCLIENT nor XFORWARD about the original client in a header field X-Understudy-Client."`
	Forward      bool `key:"forward_client" default:"true" doc:"Use XCLIENT or XFORWARD where the next hop offers it."`
}

// DefaultConfig is what the default tags say.
func DefaultConfig() Config {
	return Config{
		Connections: 20, Window: 16, Messages: 1000,
		IdleTimeout: 30 * time.Second, ConnectTimeout: 30 * time.Second, GreetingTimeout: 5 * time.Minute,
		CommandTimeout: 5 * time.Minute, ProgressTimeout: 3 * time.Minute, FinalTimeout: 10 * time.Minute,
		StopTimeout: 5 * time.Second, ProbeInterval: time.Second,
		PauseAfter: 5, PauseFirst: 30 * time.Second, PauseMax: 15 * time.Minute, AlarmAfter: 5 * time.Minute,
		TLS: string(Opportunistic), Forward: true,
	}
}

// Validate reports every fault, each with its key.
func (c Config) Validate() error {
	var errs []error
	within := func(key string, n, low, high int) {
		if n < low || n > high {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", key, n, low, high))
		}
	}
	positive := func(key string, d time.Duration) {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s: %v is not positive", key, d))
		}
	}
	within("connections", c.Connections, 1, 1000)
	within("window", c.Window, 1, 256)
	within("messages_per_connection", c.Messages, 1, 1_000_000)
	within("pause_after", c.PauseAfter, 1, 1000)
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"idle_timeout", c.IdleTimeout},
		{"connect_timeout", c.ConnectTimeout},
		{"greeting_timeout", c.GreetingTimeout},
		{"command_timeout", c.CommandTimeout},
		{"progress_timeout", c.ProgressTimeout},
		{"final_timeout", c.FinalTimeout},
		{"stop_timeout", c.StopTimeout},
		{"probe_interval", c.ProbeInterval},
		{"pause_first", c.PauseFirst},
		{"pause_max", c.PauseMax},
		{"alarm_after", c.AlarmAfter},
	} {
		positive(d.key, d.d)
	}
	if c.Resolver != "" {
		if _, err := resolverAddress(c.Resolver); err != nil {
			errs = append(errs, fmt.Errorf("resolver: %w", err))
		}
	}
	if c.PauseMax < c.PauseFirst {
		errs = append(errs, fmt.Errorf("pause_max: %v is shorter than pause_first, %v", c.PauseMax, c.PauseFirst))
	}
	if p := Policy(c.TLS); !p.valid() || p == Pinned {
		errs = append(errs, fmt.Errorf("tls: %q is none of none, opportunistic, required, verified, dane", c.TLS))
	}
	return errors.Join(errs...)
}
