package daemon

import (
	"context"
	"fmt"
	"time"

	"understudy/internal/config"
	"understudy/smtp"
	"understudy/spamsync/engine"
)

// stopSpam bounds how long learning and comparing may take to end.
const stopSpam = 5 * time.Second

// spam is everything around judging mail.
type spam struct {
	cfg config.Spam
	set *engine.Set
}

// buildSpam makes the filter that the front asks; nil where mail is not judged.
func (d *Daemon) buildSpam(cfg config.Config) (smtp.Filter, error) {
	if cfg.Spam.Engine.Engine == engine.None && len(cfg.Spam.Engine.Clamd.Address) == 0 {
		return nil, nil
	}
	set, err := engine.New(cfg.Spam.Engine, engine.Deps{
		Hostname: cfg.SMTP.Hostname, Alarms: d.alarms, Logger: d.log, Registerer: d.registry,
	})
	if err != nil {
		return nil, fmt.Errorf("spam: %w", err)
	}
	d.spam = &spam{cfg: cfg.Spam, set: set}
	return set.Filter(), nil
}

// line is what the status says about it.
func (s *spam) line() string {
	e := s.cfg.Engine
	text := e.Engine
	if len(e.Clamd.Address) > 0 {
		text += " and clamd"
	}
	return text + ", on failure " + e.OnFailure
}

// startSpam starts what learns and compares, and has connections to the engines
// closed when mail is no longer judged.
func (d *Daemon) startSpam(run func(string, time.Duration, func(context.Context) error), undo *stack) {
	if d.spam == nil {
		return
	}
	undo.push("filters", stopSpam, func(context.Context) error { return d.spam.set.Close() })
}

// parts has one line for every part that the status shows no more of.
func (d *Daemon) parts() map[string]string {
	out := make(map[string]string)
	if d.spam != nil {
		out["spam"] = d.spam.line()
	}
	return out
}
