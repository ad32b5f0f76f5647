package config

import (
	"understudy/spamsync"
	"understudy/spamsync/engine"
)

// Spam is the section "spam": what judges mail, and what it remembers together
// with the other site. Without it mail is not judged.
type Spam struct {
	// Engine is the engine's own part of the section.
	Engine engine.Config `key:",inline"`
	// Redis is where the shared state is.
	Redis spamsync.RedisConfig `key:"redis"`
}
