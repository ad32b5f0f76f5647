package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"understudy/spamsync/engine/link"
	"understudy/spamsync/engine/rspamd"
)

// The engines.
const (
	Rspamd  = "rspamd"
	Spamd   = "spamd"
	Milter  = "milter"
	Builtin = "builtin"
	None    = "none"
)

// What is done while an engine gives no verdict.
const (
	// Tempfail answers 451: the sender tries again.
	Tempfail = "tempfail"
	// Accept takes the message without a verdict.
	Accept = "accept"
	// UseBuiltin asks the builtin engine instead.
	UseBuiltin = "builtin"
)

// The styles of the header fields that tell the verdict.
const (
	StyleRspamd       = "rspamd"
	StyleSpamAssassin = "spamassassin"
	StyleNone         = "none"
)

// Config is this package's part of the section spam.
type Config struct {
	// Engine judges every message before it is accepted.
	Engine string `key:"engine" default:"none" enum:"rspamd,spamd,milter,builtin,none" doc:"What judges mail: rspamd, spamd (SpamAssassin), milter (a chain of milters), builtin, or none. Both sites should use the same."`
	// URL holds where the engine is.
	URL []string `key:"url" single:"true" doc:"Where the engine is. rspamd: http://host:11333 or unix:///path; spamd and milter: host:port or /path. Of several, rspamd and spamd use the first that answers; milters are all asked, in order. By default the engine's usual port on this machine."`
	// Timeout bounds one judgement.
	Timeout time.Duration `key:"timeout" default:"30s" doc:"Longest time one message may take to be judged by the engine; then on_failure applies."`
	// OnFailure is what is done without a verdict.
	OnFailure string `key:"on_failure" default:"tempfail" enum:"builtin,tempfail,accept" doc:"While the engine gives no verdict: builtin (judge with the builtin engine), tempfail (451) or accept."`
	// VerdictKeyFile holds the key that both sites share.
	VerdictKeyFile string `key:"verdict_key_file" secret:"true" doc:"File with a secret of at least 16 bytes that both sites share: with it a verdict is sealed in a header field, and the other site trusts it instead of judging again."`
	// VerdictMaxAge is how old a sealed verdict may be.
	VerdictMaxAge time.Duration `key:"verdict_max_age" default:"744h" doc:"A sealed verdict older than this is not trusted; it should be above the lifetime of the queue."`

	Breaker BreakerConfig `key:"breaker"`
	Headers HeaderConfig  `key:"headers"`
	Rspamd  RspamdConfig  `key:"rspamd"`
	Spamd   SpamdConfig   `key:"spamd"`
	Milter  MilterConfig  `key:"milter"`
	Clamd   ClamdConfig   `key:"clamd"`
}

// BreakerConfig says when an engine that fails is left alone.
type BreakerConfig struct {
	Failures int           `key:"failures" default:"5" doc:"After so many failures in a row an engine is left alone; 0 asks it always."`
	CoolDown time.Duration `key:"cool_down" default:"30s" doc:"How long an engine is left alone; then one message tries it."`
}

// HeaderConfig says what the header of an accepted message tells of its verdict.
type HeaderConfig struct {
	Style        string `key:"style" default:"rspamd" enum:"rspamd,spamassassin,none" doc:"Header fields for accepted mail: rspamd (X-Spam, X-Spamd-Result), spamassassin (X-Spam-Flag, X-Spam-Level, X-Spam-Status) or none. Choose what the primary writes."`
	RemoveForged bool   `key:"remove_forged" default:"true" doc:"Remove X-Spam, X-Rspamd and the like from incoming mail, and Authentication-Results that claim to be ours."`
}

// RspamdConfig is the section spam.rspamd.
type RspamdConfig struct {
	PasswordFile string `key:"password_file" secret:"true" doc:"File with the password for Rspamd workers that want one."`
	Settings     string `key:"settings" doc:"Id of the settings that Rspamd shall apply."`
	AllRules     bool   `key:"all_rules" default:"false" doc:"Have Rspamd evaluate every rule, also where the verdict is certain."`
}

// SpamdConfig is the section spam.spamd.
type SpamdConfig struct {
	Command         string  `key:"command" default:"symbols" enum:"check,symbols,headers" doc:"What SpamAssassin is asked for: check (the score), symbols (and the tests that hit) or headers (and its own X-Spam fields)."`
	User            string  `key:"user" doc:"User whose SpamAssassin preferences apply; empty is spamd's own."`
	MaxMessageBytes int64   `key:"max_message" default:"512KiB" doc:"Longer messages are not judged by SpamAssassin; 0 is no limit."`
	RejectScore     float64 `key:"reject_score" default:"0" doc:"Score from which mail is rejected; 0 rejects nothing, spam is only marked."`
}

// MilterConfig is the section spam.milter.
type MilterConfig struct {
	DaemonName string `key:"daemon_name" doc:"The macro {daemon_name} that milters are told; by default the hostname, as with Postfix."`
}

// ClamdConfig is the section spam.clamd.
type ClamdConfig struct {
	Address         []string      `key:"address" single:"true" doc:"Where clamd (ClamAV) is, host:port or /path, beside any engine; of several, the first that answers. Empty: mail is not scanned for malware."`
	Timeout         time.Duration `key:"timeout" default:"30s" doc:"Longest time clamd may take for one message."`
	MaxMessageBytes int64         `key:"max_message" default:"25MiB" doc:"Longer messages are not sent to clamd; keep it at or below its StreamMaxLength. 0 sends all."`
	Oversize        string        `key:"oversize" default:"accept" enum:"accept,tempfail" doc:"What becomes of messages too long for clamd: accept or tempfail."`
	OnFailure       string        `key:"on_failure" default:"tempfail" enum:"tempfail,accept" doc:"While clamd gives no verdict: tempfail (451) or accept."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{
		Engine: None, Timeout: 30 * time.Second, OnFailure: Tempfail, VerdictMaxAge: 744 * time.Hour,
		Breaker: BreakerConfig{Failures: 5, CoolDown: 30 * time.Second},
		Headers: HeaderConfig{Style: StyleRspamd, RemoveForged: true},
		Spamd:   SpamdConfig{Command: "symbols", MaxMessageBytes: 512 << 10},
		Clamd:   ClamdConfig{Timeout: 30 * time.Second, MaxMessageBytes: 25 << 20, Oversize: Accept, OnFailure: Tempfail},
	}
}

// servers returns URL, or where the engine usually is.
func (c Config) servers() []string {
	if len(c.URL) > 0 {
		return c.URL
	}
	switch c.Engine {
	case Rspamd:
		return []string{"http://127.0.0.1:11333"}
	case Spamd:
		return []string{"127.0.0.1:783"}
	case Milter:
		return []string{"127.0.0.1:11332"}
	}
	return nil
}

// Validate reports all faults at once, each with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	one := func(key, value string, of ...string) {
		if !slices.Contains(of, value) {
			fault("%s: %q is none of %q", key, value, of)
		}
	}
	positive := func(key string, d time.Duration) {
		if d <= 0 {
			fault("%s: must be positive", key)
		}
	}
	one("engine", c.Engine, Rspamd, Spamd, Milter, Builtin, None)
	one("on_failure", c.OnFailure, UseBuiltin, Tempfail, Accept)
	one("headers.style", c.Headers.Style, StyleRspamd, StyleSpamAssassin, StyleNone)
	one("spamd.command", c.Spamd.Command, "check", "symbols", "headers")
	one("clamd.oversize", c.Clamd.Oversize, Accept, Tempfail)
	one("clamd.on_failure", c.Clamd.OnFailure, Accept, Tempfail)
	positive("timeout", c.Timeout)
	positive("verdict_max_age", c.VerdictMaxAge)
	positive("clamd.timeout", c.Clamd.Timeout)
	positive("breaker.cool_down", c.Breaker.CoolDown)
	if c.Breaker.Failures < 0 {
		fault("breaker.failures: must not be negative")
	}
	if c.Spamd.MaxMessageBytes < 0 || c.Clamd.MaxMessageBytes < 0 {
		fault("max_message: must not be negative")
	}
	if c.Spamd.RejectScore < 0 {
		fault("spamd.reject_score: must not be negative")
	}
	if len(c.URL) > 0 && (c.Engine == Builtin || c.Engine == None) {
		fault("url: engine %s asks no server", c.Engine)
	}
	if c.Engine == Builtin && c.OnFailure == UseBuiltin {
		fault("on_failure: the builtin engine cannot stand in for itself")
	}
	for _, u := range c.URL {
		err := error(nil)
		switch c.Engine {
		case Rspamd:
			err = rspamd.CheckURL(u)
		case Spamd, Milter:
			_, _, err = link.Parse(u)
		}
		if err != nil {
			fault("url: %w", err)
		}
	}
	for _, a := range c.Clamd.Address {
		if _, _, err := link.Parse(a); err != nil {
			fault("clamd.address: %w", err)
		}
	}
	return errors.Join(errs...)
}
