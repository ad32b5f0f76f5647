package engine

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
	"understudy/spamsync/engine/clamd"
	"understudy/spamsync/engine/milter"
	"understudy/spamsync/engine/rspamd"
	"understudy/spamsync/engine/spamd"
)

// Deps is what a Set needs from others.
type Deps struct {
	// Hostname is this machine's name in headers, and towards the engines.
	Hostname string
	// Builtin is the builtin engine; nil where it is neither the engine nor its
	// stand-in.
	Builtin smtp.Filter
	Alarms  smtp.Alarms
	Logger  *slog.Logger
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// Set is the filters that a configuration names. It starts nothing.
type Set struct {
	filter  smtp.Filter
	engine  smtp.Filter
	closers []func() error
}

// New builds the filters. It dials nothing, but reads the verdict key.
func New(cfg Config, deps Deps) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Hostname == "" || deps.Alarms == nil || deps.Logger == nil {
		return nil, errors.New("filters need hostname, alarms and logger")
	}
	s := &Set{}
	metrics := NewMetrics(deps.Registerer)
	guard := func(name, onFailure string, f smtp.Filter, c Config) (smtp.Filter, error) {
		return NewGuarded(Guard{
			Name: name, Engine: f, Timeout: c.Timeout, OnFailure: onFailure, Fallback: deps.Builtin,
			Breaker: c.Breaker, Alarms: deps.Alarms, Logger: deps.Logger, Metrics: metrics,
		})
	}
	var chain smtp.Chain
	engine, err := s.open(cfg, deps)
	if err != nil {
		return nil, err
	}
	if engine != nil {
		s.engine = engine
		guarded, err := guard(cfg.Engine, cfg.OnFailure, engine, cfg)
		if err != nil {
			return nil, err
		}
		chain = append(chain, guarded)
	}
	if len(cfg.Clamd.Address) > 0 {
		f, err := clamd.New(clamd.Options{
			Addresses: cfg.Clamd.Address, Timeout: cfg.Clamd.Timeout, Rest: cfg.Breaker.CoolDown,
			MaxBytes: cfg.Clamd.MaxMessageBytes, AcceptOversize: cfg.Clamd.Oversize == Accept,
		})
		if err != nil {
			return nil, err
		}
		c := cfg
		c.Timeout = cfg.Clamd.Timeout
		guarded, err := guard("clamd", cfg.Clamd.OnFailure, f, c)
		if err != nil {
			return nil, err
		}
		chain = append(chain, guarded)
	}
	if len(chain) == 0 {
		return s, nil
	}
	stamp := &Stamp{Next: chain, Hostname: deps.Hostname, Config: cfg.Headers}
	s.filter = stamp
	if cfg.VerdictKeyFile != "" {
		if stamp.Key, err = ReadKey(cfg.VerdictKeyFile); err != nil {
			return nil, err
		}
		s.filter = &Trusted{Next: stamp, Key: stamp.Key, MaxAge: cfg.VerdictMaxAge, Logger: deps.Logger, Metrics: metrics}
	}
	return s, nil
}

// open makes the engine itself; nil where there is none.
func (s *Set) open(cfg Config, deps Deps) (smtp.Filter, error) {
	switch cfg.Engine {
	case Rspamd:
		f, err := rspamd.New(rspamd.Options{
			URLs: cfg.servers(), Timeout: cfg.Timeout, Rest: cfg.Breaker.CoolDown, Hostname: deps.Hostname,
			PasswordFile: cfg.Rspamd.PasswordFile, Settings: cfg.Rspamd.Settings, AllRules: cfg.Rspamd.AllRules,
		})
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, f.Close)
		return f, nil
	case Spamd:
		return spamd.New(spamd.Options{
			Addresses: cfg.servers(), Timeout: cfg.Timeout, Rest: cfg.Breaker.CoolDown, Hostname: deps.Hostname,
			Command: cfg.Spamd.Command, User: cfg.Spamd.User, MaxBytes: cfg.Spamd.MaxMessageBytes, RejectScore: cfg.Spamd.RejectScore,
		})
	case Milter:
		return milter.New(milter.Options{
			Addresses: cfg.servers(), Timeout: cfg.Timeout, Hostname: deps.Hostname, Daemon: cfg.Milter.DaemonName,
		})
	case Builtin:
		if deps.Builtin == nil {
			return nil, errors.New("no builtin engine was given")
		}
		return deps.Builtin, nil
	case None:
		return nil, nil
	}
	return nil, fmt.Errorf("unknown engine %q", cfg.Engine)
}

// Filter is what the front asks: everything around the engine included. It is nil
// where mail is not filtered.
func (s *Set) Filter() smtp.Filter { return s.filter }

// Engine is the engine alone, without guard, headers or clamd: for questions about
// the engine itself. It is nil where there is none.
func (s *Set) Engine() smtp.Filter { return s.engine }

// Close ends idle connections to the engines.
func (s *Set) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
