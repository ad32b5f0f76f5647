package dsn

import (
	"fmt"
	"strings"
)

// Config is the section "dsn".
type Config struct {
	// Write switches the Watcher on; operators may bounce either way.
	Write bool `key:"write" default:"true" doc:"Return what the next hop refused to its sender, where SPF or an aligned DKIM signature vouches for that sender; everything else is kept as refused."`
	// Route is where notifications go.
	Route string `key:"route" doc:"Where notifications go: empty for the usual next hop, mx for the MX hosts of the sender's domain, or a next hop as smtp://relay.example.com:25."`
}

// Validate returns all faults, each with its key.
func (c Config) Validate() error {
	switch {
	case c.Route == "", c.Route == "mx", strings.HasPrefix(c.Route, "smtp://"):
		return nil
	}
	return fmt.Errorf("dsn.route: %q is neither mx nor a next hop like smtp://relay.example.com:25", c.Route)
}
