package dnsfailover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// read reads the register for the machine.
func (c *Controller) read(ctx context.Context) ReadDone {
	sent := c.clock.Now()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Request)
	defer cancel()
	reg, err := c.deps.Arbiter.Read(ctx)
	c.metrics.request("read", err)
	c.keyAlarms(err)
	switch {
	case err == nil:
		return ReadDone{Sent: sent, Register: reg, Outcome: OK}
	case errors.Is(err, ErrMissing):
		return ReadDone{Sent: sent, Outcome: Absent, Reason: err.Error()}
	}
	return ReadDone{Sent: sent, Reason: err.Error()}
}

// keyAlarms tells a wrong key and a wrong clock apart from a register that
// cannot be reached.
func (c *Controller) keyAlarms(err error) {
	if c.deps.Alarms == nil {
		return
	}
	for key, is := range map[string]error{"failover_clock": ErrBadTime, "failover_key": ErrBadKey} {
		if errors.Is(err, is) {
			c.deps.Alarms.Raise(key, err.Error())
		} else if err == nil {
			c.deps.Alarms.Clear(key)
		}
	}
}

// swapRegister changes the register for the machine, with the records of its
// zone where the role moves.
func (c *Controller) swapRegister(ctx context.Context, s Swap) SwapDone {
	done := SwapDone{Sent: c.clock.Now(), Swap: s}
	var changes []RRChange
	if s.Records && c.deps.RegisterZone != "" {
		steps, err := c.planZone(ctx, c.deps.Arbiter.Records, c.deps.RegisterZone, s.New.Holder, c.cfg.Timing.Request)
		if err != nil {
			done.Reason = err.Error()
			return done
		}
		var foreign []RRSet
		if changes, foreign = Changes(steps); len(foreign) > 0 {
			done.Outcome, done.Reason = Foreign, foreignText(foreign)
			return done
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Request)
	defer cancel()
	err := c.deps.Arbiter.CompareAndSwap(ctx, s.Old, s.New, changes)
	c.metrics.request("swap", err)
	c.keyAlarms(err)
	switch {
	case err == nil:
		done.Outcome = OK
		for _, ch := range changes {
			c.history.add("record", ch.String())
		}
	case errors.Is(err, ErrConflict):
		done.Outcome = Conflict
	case errors.Is(err, ErrForeign):
		done.Outcome = Foreign
	}
	if err != nil {
		done.Reason = err.Error()
		c.log.Warn("the register was not changed", "kind", string(s.Kind), "err", err)
	}
	return done
}

func foreignText(list []RRSet) string {
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = fmt.Sprintf("%s holds %s", s.RRKey, strings.Join(s.Values, ", "))
	}
	return strings.Join(names, "; ")
}

// inZone says whether a name is in a zone.
func inZone(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// zoneOf is the zone a managed record belongs to: the longest that fits.
func (c *Controller) zoneOf(name string) string {
	best := ""
	if z := c.deps.RegisterZone; z != "" && inZone(name, z) {
		best = z
	}
	for _, z := range c.deps.Zones {
		if inZone(name, z.Name) && len(z.Name) > len(best) {
			best = z.Name
		}
	}
	return best
}

// checkZones wants every record to be in a zone that somebody changes.
func (c *Controller) checkZones() error {
	var errs []error
	for _, m := range c.records {
		if c.zoneOf(m.Name) == "" {
			errs = append(errs, fmt.Errorf("records: %s is in no zone that can be changed", m.RRKey))
		}
	}
	return errors.Join(errs...)
}

// planZone plans the records of one zone while holder is active; limit is for
// reading them.
func (c *Controller) planZone(ctx context.Context, read func(context.Context, []RRKey) ([]RRSet, error), zone string, holder Site, limit time.Duration) ([]Step, error) {
	var keys []RRKey
	for _, m := range c.records {
		if c.zoneOf(m.Name) == zone {
			keys = append(keys, m.RRKey)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	present, err := read(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read records of %s: %w", zone, err)
	}
	return Plan(PlanInput{
		Records: c.records, Sites: c.deps.Sites, Active: holder, Present: present, Adopted: c.adopted(),
	}), nil
}
