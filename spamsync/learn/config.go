package learn

import (
	"errors"
	"fmt"
	"time"
)

// What is taught.
const (
	// Auto is the engine that judges, and the builtin one too where it stands in.
	Auto    = "auto"
	Rspamd  = "rspamd"
	Spamd   = "spamd"
	Builtin = "builtin"
	// None takes no messages.
	None = "none"
)

// segmentBytes is the size of one file of the queue.
const segmentBytes = 16 << 20

// Config is the section spam.learn.
type Config struct {
	Engine          string        `key:"engine" default:"auto" enum:"auto,rspamd,spamd,builtin,none" doc:"What learns: auto is the engine that judges, and the builtin one too where it stands in; none takes no messages."`
	URL             string        `key:"url" doc:"Where it learns: the controller of Rspamd, http://127.0.0.1:11334 by default, or spamd as host:port, by default the first of spam.url."`
	PasswordFile    string        `key:"password_file" doc:"File with the password of Rspamd's controller."`
	Timeout         time.Duration `key:"timeout" default:"1m" doc:"Longest time the engine may take to learn one message."`
	RetryMax        time.Duration `key:"retry_max" default:"1m" doc:"Longest pause between attempts while the engine, or the Redis it writes to, is away."`
	Lifetime        time.Duration `key:"lifetime" default:"168h" doc:"A message that the engine has refused to learn for so long is dropped. Waiting for an engine that is away does not count."`
	MaxMessageBytes int64         `key:"max_message" default:"4MiB" doc:"Longer messages are not learned."`
	MaxQueueBytes   int64         `key:"max_queue" default:"256MiB" doc:"Messages that may wait; beyond, no more are taken."`
	Remember        int           `key:"remember" default:"200000" doc:"How many learned messages are remembered, so that none is learned twice."`
}

// DefaultConfig returns the defaults that the tags name.
func DefaultConfig() Config {
	return Config{
		Engine: Auto, Timeout: time.Minute, RetryMax: time.Minute, Lifetime: 168 * time.Hour,
		MaxMessageBytes: 4 << 20, MaxQueueBytes: 256 << 20, Remember: 200_000,
	}
}

// Validate reports all faults at once, each with its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Engine {
	case Auto, Rspamd, Spamd, Builtin, None:
	default:
		fault("engine: %q is none of auto, rspamd, spamd, builtin and none", c.Engine)
	}
	if c.Timeout <= 0 {
		fault("timeout: must be positive")
	}
	if c.RetryMax < time.Second {
		fault("retry_max: must be at least 1s")
	}
	if c.Lifetime <= 0 {
		fault("lifetime: must be positive")
	}
	if c.MaxMessageBytes < 1 || c.MaxMessageBytes > segmentBytes/2 {
		fault("max_message: must be from 1B to %dMiB", segmentBytes/2>>20)
	}
	if c.MaxQueueBytes < c.MaxMessageBytes {
		fault("max_queue: must be at least max_message")
	}
	if c.Remember < 1 {
		fault("remember: must be at least 1")
	}
	return errors.Join(errs...)
}
