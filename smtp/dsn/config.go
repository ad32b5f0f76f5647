package dsn

import (
	"fmt"
	"strings"
	"time"
)

// Config is the section "dsn".
type Config struct {
	// Write switches the Watcher on; operators may bounce either way.
	Write bool `key:"write" default:"true" doc:"Return what the next hop refused to its sender, where SPF or an aligned DKIM signature vouches for that sender; everything else is kept as refused."`
	// DelayAfter 0 switches delay notices off.
	DelayAfter time.Duration `key:"delay_after" default:"0s" doc:"Tell a sender that SPF or DKIM vouches for once that a message waits, after this time; 0s is never."`
	// Route is where notifications go.
	Route string `key:"route" doc:"Where notifications go: empty for the usual next hop, mx for the MX hosts of the sender's domain, or a next hop as smtp://relay.example.com:25."`
}

// Validate returns all faults, each with its key.
func (c Config) Validate() error {
	switch {
	case c.DelayAfter != 0 && c.DelayAfter < time.Minute:
		return fmt.Errorf("dsn.delay_after: %s is too short, at least 1m", c.DelayAfter)
	case c.Route == "", c.Route == "mx", strings.HasPrefix(c.Route, "smtp://"):
		return nil
	}
	return fmt.Errorf("dsn.route: %q is neither mx nor a next hop like smtp://relay.example.com:25", c.Route)
}
