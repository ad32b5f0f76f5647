package config

import (
	"understudy/spamsync/engine"
	"understudy/spamsync/engine/builtin"
	"understudy/spamsync/learn"
	"understudy/spamsync/parity"
)

// Spam is the section "spam": what judges mail, and what it remembers together
// with the other site. Without it mail is not judged.
type Spam struct {
	// Engine is the engine's own part of the section.
	Engine engine.Config `key:",inline"`
	// Builtin is the engine that needs no server.
	Builtin builtin.Config `key:"builtin"`
	// Redis is where the shared state is.
	Redis Redis `key:"redis"`
	// Learn is the queue of messages to learn.
	Learn learn.Config `key:"learn"`
	// Parity compares both sites.
	Parity parity.Config `key:"parity"`
}

// On says whether this site judges mail.
func (s Spam) On() bool { return s.Engine.Engine != engine.None || len(s.Engine.Clamd.Address) > 0 }

// UsesBuiltin says whether the builtin engine judges, or stands in.
func (s Spam) UsesBuiltin() bool {
	return s.Engine.Engine == engine.Builtin || s.Engine.Engine != engine.None && s.Engine.OnFailure == engine.UseBuiltin
}

// EngineURL is where the engine that can be compared is.
func (s Spam) EngineURL() string {
	if len(s.Engine.URL) > 0 {
		return s.Engine.URL[0]
	}
	return "http://127.0.0.1:11333"
}

// Learners names what learns: the engine, and the builtin one where it stands in.
func (s Spam) Learners() []string {
	switch s.Learn.Engine {
	case learn.None:
		return nil
	case learn.Auto:
	default:
		return []string{s.Learn.Engine}
	}
	var out []string
	switch s.Engine.Engine {
	case engine.Rspamd:
		out = append(out, learn.Rspamd)
	case engine.Spamd:
		out = append(out, learn.Spamd)
	}
	if s.UsesBuiltin() {
		out = append(out, learn.Builtin)
	}
	return out
}

// Peer is the name of the other site; empty where it has none.
func (c *Config) Peer() string {
	for _, s := range c.Sites {
		if s != c.Site {
			return s
		}
	}
	return ""
}

// checkParity holds what comparing by schedule needs: it depends on the engine.
func (c *Config) checkParity(report reporter) {
	s := c.Spam
	if s.Parity.Interval <= 0 {
		return
	}
	switch s.Engine.Engine {
	case engine.Rspamd:
		if s.Parity.PeerURL == "" {
			report("spam.parity.peer_url", "is missing; interval needs it")
		}
	case engine.Builtin:
		if s.Redis.Address == "" || s.Redis.Peer == "" {
			report("spam.parity.interval", "needs spam.redis.address and spam.redis.peer to compare the builtin filter")
		}
	case engine.None:
		report("spam.parity.interval", "needs an engine that can be compared")
	default:
		report("spam.parity.interval", "the engine "+s.Engine.Engine+" cannot be compared, only rspamd and builtin can")
	}
}
