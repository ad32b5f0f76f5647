package dnsfailover

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config is the section "failover", without its register and probes.
type Config struct {
	// Mode is what this site may do by itself; "" means that there is no failover.
	Mode Mode `key:"mode" enum:"observe,automatic,manual" reload:"true" doc:"What this site does by itself: observe decides, says so and moves nothing; automatic moves; manual moves only by an operator's order. From or to observe needs a restart."`
	// Timing of the protocol.
	Timing Timing `key:"timing"`
	// Records are the managed records.
	Records []Record `key:"records" doc:"Records that follow the active site."`
	// Steady is how long the standby's own probes must have succeeded before a
	// switchover to it.
	Steady time.Duration `key:"steady" default:"10m" doc:"How long the standby's own probes must have succeeded before a switchover to it."`
	// Hooks are what else is done on a change.
	Hooks Hooks `key:"hooks"`
}

// Publish is which sites' values a record holds.
type Publish string

// The policies.
const (
	// PublishActive holds only the active site's values.
	PublishActive Publish = "active"
	// PublishBoth holds both sites' values, always.
	PublishBoth Publish = "both"
	// PreferActive gives the active site's mail exchanger the better preference.
	PreferActive Publish = "prefer-active"
	// Equal gives both the same, Fixed prefers the first of sites, always.
	Equal      Publish = "equal"
	FixedOrder Publish = "fixed"
)

// Record is one managed record set.
type Record struct {
	Name string `key:"name" doc:"Name of the record, as webmail.example.net."`
	Type string `key:"type" enum:"A,AAAA,MX" doc:"Type of the record."`
	// A and B are the values of the first and of the second of sites.
	A   []string      `key:"a" single:"true" doc:"Values while the first of sites is active: addresses, or names of mail exchangers."`
	B   []string      `key:"b" single:"true" doc:"Values while the second of sites is active."`
	TTL time.Duration `key:"ttl" default:"60s" doc:"Time to live of the record, always the same."`
	// Publish is active for addresses and prefer-active for MX by default.
	Publish Publish `key:"publish" enum:"active,both,prefer-active,equal,fixed" doc:"Which values are published: active or both for addresses, prefer-active, equal or fixed for MX; by default active and prefer-active."`
}

// Hooks is the section "failover.hooks".
type Hooks struct {
	OnPromote []string `key:"on_promote" doc:"Hooks that run when this site becomes active, in order; files in the hooks directory."`
	OnDemote  []string `key:"on_demote" doc:"Hooks that run before this site hands the role over, and when it finds that it lost it."`
	OnFence   []string `key:"on_fence" doc:"Hooks that run when this site's permit runs out; timeout times their number must fit into the wait of a claim."`
	// Gates must exit 0 before a switchover.
	Gates   []string      `key:"gates" doc:"Hooks that must succeed at the standby before a switchover, as a check of a database's replication lag."`
	Timeout time.Duration `key:"timeout" default:"10s" doc:"How long each hook may run."`
}

// The bounds of TTLs: below, resolvers do as they like; above, clients stay too
// long with a site that is gone.
const (
	leastTTL = 5 * time.Second
	mostTTL  = 24 * time.Hour
	slowTTL  = 5 * time.Minute
)

// On says whether there is a failover section.
func (c Config) On() bool { return c.Mode != "" }

// Validate says what makes the section unfit.
func (c Config) Validate() error {
	if !c.On() {
		return nil
	}
	errs := []error{c.Timing.Validate()}
	if _, err := NewRecords(c.Records); err != nil {
		errs = append(errs, err)
	}
	if c.Hooks.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("hooks.timeout: %s is not a time", c.Hooks.Timeout))
	}
	if n := time.Duration(len(c.Hooks.OnFence)); n > 0 && c.Hooks.Timeout > c.Timing.FenceTime()/n {
		errs = append(errs, fmt.Errorf("hooks.on_fence: %d x hooks.timeout (%s) may outlast the wait of a claim: at most %s together, or timing.wait of at least %s",
			n, c.Hooks.Timeout, c.Timing.FenceTime().Truncate(10*time.Millisecond), c.Timing.stretched(c.Timing.Permit-c.Timing.StopAllowance+n*c.Hooks.Timeout)))
	}
	return errors.Join(errs...)
}

// Managed is a record set in canonical form.
type Managed struct {
	RRKey
	TTL     time.Duration
	Publish Publish
	values  [2][]string // of each site: addresses, or names of mail exchangers
}

// NewRecords reads the records, or says what is wrong with each.
func NewRecords(list []Record) ([]Managed, error) {
	var errs []error
	out := make([]Managed, 0, len(list))
	seen := map[RRKey]bool{}
	for i, r := range list {
		m, err := newManaged(r)
		if err == nil && seen[m.RRKey] {
			err = fmt.Errorf("%s is there twice", m.RRKey)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("records[%d]: %w", i, err))
			continue
		}
		seen[m.RRKey] = true
		out = append(out, m)
	}
	return out, errors.Join(errs...)
}

func newManaged(r Record) (Managed, error) {
	m := Managed{RRKey: RRKey{Name: CanonicalName(r.Name), Type: r.Type}, TTL: r.TTL, Publish: r.Publish}
	mx := r.Type == "MX"
	if m.Publish == "" {
		m.Publish = PublishActive
		if mx {
			m.Publish = PreferActive
		}
	}
	switch {
	case len(r.Name) < 3 || !strings.Contains(strings.Trim(r.Name, "."), "."):
		return m, fmt.Errorf("%q is not a name below a zone", r.Name)
	case r.Type != "A" && r.Type != "AAAA" && r.Type != "MX":
		return m, fmt.Errorf("type %q is not managed; A, AAAA and MX are", r.Type)
	case mx && (m.Publish == PublishActive || m.Publish == PublishBoth):
		return m, fmt.Errorf("an MX record always names both sites: publish is prefer-active, equal or fixed, not %q", m.Publish)
	case !mx && m.Publish != PublishActive && m.Publish != PublishBoth:
		return m, fmt.Errorf("publish of an address is active or both, not %q", m.Publish)
	case len(r.A) == 0 || len(r.B) == 0:
		return m, errors.New("needs at least one value for each site: a record must never become empty")
	case m.TTL < leastTTL || m.TTL > mostTTL || m.TTL%time.Second != 0:
		return m, fmt.Errorf("ttl %s is not between %s and %s in whole seconds", m.TTL, leastTTL, mostTTL)
	}
	for i, list := range [][]string{r.A, r.B} {
		for _, v := range list {
			var c string
			var err error
			if mx {
				if strings.ContainsAny(v, " \t") || !strings.Contains(v, ".") {
					err = fmt.Errorf("%w: %q is no name of a mail exchanger", ErrRecord, v)
				}
				c = CanonicalName(v)
			} else {
				c, err = Canonical(r.Type, v)
			}
			if err != nil {
				return m, err
			}
			m.values[i] = append(m.values[i], c)
		}
		slices.Sort(m.values[i])
		m.values[i] = slices.Compact(m.values[i])
	}
	if slices.Equal(m.values[0], m.values[1]) {
		return m, errors.New("both sites have the same values: there is nothing to move")
	}
	return m, nil
}
