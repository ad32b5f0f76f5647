package arbitertest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"understudy/dnsfailover"
)

// Zone is a register and records in memory: what a primary name server holds.
type Zone struct {
	mu       sync.Mutex
	register dnsfailover.Register
	records  map[dnsfailover.RRKey]dnsfailover.RRSet
	down     error
	writes   int
}

// NewZone returns a zone without a register and without records.
func NewZone() *Zone { return &Zone{records: map[dnsfailover.RRKey]dnsfailover.RRSet{}} }

// Edit sets a record as an operator would; no values delete it.
func (z *Zone) Edit(set dnsfailover.RRSet) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[set.RRKey] = set
}

// Put sets the register as an operator would; the zero value deletes it.
func (z *Zone) Put(r dnsfailover.Register) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.register = r
}

// Register is what the zone holds.
func (z *Zone) Register() dnsfailover.Register {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.register
}

// Values are the present values of a record.
func (z *Zone) Values(k dnsfailover.RRKey) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.records[k].Values)
}

// Writes counts the changes that took place.
func (z *Zone) Writes() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.writes
}

// Down makes every request of every client fail with err, nil ends that.
func (z *Zone) Down(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.down = err
}

// Client is one site's way to the zone.
type Client struct {
	zone *Zone

	mu         sync.Mutex
	err        error
	loseAnswer int
}

var (
	_ dnsfailover.Arbiter   = (*Client)(nil)
	_ dnsfailover.Publisher = (*Client)(nil)
)

// Client returns a new way to the zone.
func (z *Zone) Client() *Client { return &Client{zone: z} }

// Fail makes every request of this client fail with err, nil ends that.
func (c *Client) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// LoseAnswers makes the next n changes take place and answer ErrUnknownOutcome.
func (c *Client) LoseAnswers(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loseAnswer = n
}

func (c *Client) broken(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", dnsfailover.ErrUnreachable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Read implements dnsfailover.Arbiter.
func (c *Client) Read(ctx context.Context) (dnsfailover.Register, error) {
	if err := c.broken(ctx); err != nil {
		return dnsfailover.Register{}, err
	}
	c.zone.mu.Lock()
	defer c.zone.mu.Unlock()
	switch {
	case c.zone.down != nil:
		return dnsfailover.Register{}, c.zone.down
	case c.zone.register.IsZero():
		return dnsfailover.Register{}, dnsfailover.ErrMissing
	}
	return c.zone.register, nil
}

// CompareAndSwap implements dnsfailover.Arbiter.
func (c *Client) CompareAndSwap(ctx context.Context, old, new dnsfailover.Register, changes []dnsfailover.RRChange) error {
	if err := c.broken(ctx); err != nil {
		return err
	}
	if err := new.Validate(); err != nil {
		return err
	}
	if err := c.zone.swap(old, new, changes); err != nil {
		return err
	}
	return c.answer()
}

// answer loses it where LoseAnswers said so.
func (c *Client) answer() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loseAnswer > 0 {
		c.loseAnswer--
		return dnsfailover.ErrUnknownOutcome
	}
	return nil
}

func (z *Zone) swap(old, new dnsfailover.Register, changes []dnsfailover.RRChange) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.down != nil {
		return z.down
	}
	if z.register != old {
		return dnsfailover.ErrConflict
	}
	if err := z.guard(changes, false); err != nil {
		return err
	}
	z.register = new
	z.apply(changes)
	return nil
}

// guard checks the present values; done also accepts those that are there already.
func (z *Zone) guard(changes []dnsfailover.RRChange, done bool) error {
	var found []dnsfailover.RRSet
	for _, ch := range changes {
		have := z.records[ch.RRKey].Values
		if len(ch.New) == 0 {
			return fmt.Errorf("%w: %s would be deleted", dnsfailover.ErrRefused, ch.RRKey)
		}
		if !slices.Equal(have, ch.Old) && (!done || !slices.Equal(have, ch.New)) {
			set := z.records[ch.RRKey]
			set.RRKey = ch.RRKey
			found = append(found, set)
		}
	}
	if found != nil {
		return &dnsfailover.ForeignError{Found: found}
	}
	return nil
}

func (z *Zone) apply(changes []dnsfailover.RRChange) {
	z.writes++
	for _, ch := range changes {
		z.records[ch.RRKey] = dnsfailover.RRSet{RRKey: ch.RRKey, TTL: ch.TTL, Values: slices.Clone(ch.New)}
	}
}

// Records implements dnsfailover.Arbiter.
func (c *Client) Records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	if err := c.broken(ctx); err != nil {
		return nil, err
	}
	c.zone.mu.Lock()
	defer c.zone.mu.Unlock()
	if c.zone.down != nil {
		return nil, c.zone.down
	}
	out := make([]dnsfailover.RRSet, len(keys))
	for i, k := range keys {
		set := c.zone.records[k]
		out[i] = dnsfailover.RRSet{RRKey: k, TTL: set.TTL, Values: slices.Clone(set.Values)}
	}
	return out, nil
}

// Apply implements dnsfailover.Publisher.
func (c *Client) Apply(ctx context.Context, _ uint64, changes []dnsfailover.RRChange) error {
	if err := c.broken(ctx); err != nil {
		return err
	}
	if err := c.zone.change(changes); err != nil {
		return err
	}
	return c.answer()
}

func (z *Zone) change(changes []dnsfailover.RRChange) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.down != nil {
		return z.down
	}
	if err := z.guard(changes, true); err != nil {
		return err
	}
	z.apply(changes)
	return nil
}
