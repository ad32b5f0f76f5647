package dnsfailover

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// probeSelf probes this site's services; after a failure soon again.
func (c *Controller) probeSelf(ctx context.Context) {
	c.probing(ctx, c.deps.Self, func(err error) {
		c.doubted.Store(err != nil)
		c.tell(ctx, probed(true, err))
	}, func() time.Duration { return c.cfg.Timing.Probe }, func() time.Duration {
		if c.doubted.Load() {
			return c.cfg.Timing.Again()
		}
		return c.cfg.Timing.Probe
	})
}

// probePublic probes the other site's services through its public addresses;
// after a failure sooner and for a shorter time, for a dead site is silent.
func (c *Controller) probePublic(ctx context.Context) {
	interval := c.cfg.Timing.Probe
	now := func() time.Duration { return interval }
	c.probing(ctx, c.deps.Public, func(err error) {
		interval = c.cfg.Timing.Probe
		if err != nil {
			interval = c.cfg.Timing.Repeat()
		}
		c.tell(ctx, probed(false, err))
	}, now, now)
}

func probed(self bool, err error) Probed {
	if err != nil {
		return Probed{Self: self, Failed: true, Reason: err.Error()}
	}
	return Probed{Self: self}
}

// probing probes for at most limit, and again an interval after that began.
func (c *Controller) probing(ctx context.Context, p Prober, tell func(error), limit, interval func() time.Duration) {
	if p == nil {
		return
	}
	for ctx.Err() == nil {
		began := time.Now()
		pctx, cancel := context.WithTimeout(ctx, limit())
		err := p.Probe(pctx)
		cancel()
		if ctx.Err() != nil {
			return
		}
		tell(err)
		wait(ctx, interval()-time.Since(began))
	}
}

// wait lets d pass, or ctx end.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(max(d, 10*time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// lookAtRecords compares the records with what they should be, so that somebody
// else's change is known before a move depends on it.
func (c *Controller) lookAtRecords(ctx context.Context) {
	for ctx.Err() == nil {
		c.look(ctx)
		t := time.NewTimer(6 * c.cfg.Timing.Poll)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-c.wake:
		}
		t.Stop()
	}
}

// look plans all records once for whoever is active.
func (c *Controller) look(ctx context.Context) {
	holder := c.Snapshot().Active
	if holder == "" {
		holder = c.deps.Primary
	}
	steps, err := c.planAll(ctx, holder)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	c.steps, c.planAt, c.planErr = steps, time.Now(), ""
	if err != nil {
		c.planErr = err.Error()
	}
	c.mu.Unlock()
	if _, foreign := Changes(steps); err == nil || len(foreign) > 0 {
		c.tell(ctx, Records{Foreign: foreignText(foreign)})
	}
}

// planAll plans the records of every zone; what could be read is in the result
// also if there is an error.
func (c *Controller) planAll(ctx context.Context, holder Site) ([]Step, error) {
	var out []Step
	var errs []error
	if c.deps.RegisterZone != "" {
		steps, err := c.planZone(ctx, c.deps.Arbiter.Records, c.deps.RegisterZone, holder, c.cfg.Timing.Request)
		out, errs = append(out, steps...), append(errs, err)
	}
	for _, z := range c.deps.Zones {
		steps, err := c.planZone(ctx, z.Publisher.Records, z.Name, holder, zoneLimit)
		out, errs = append(out, steps...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// The questions one site asks the other.
const (
	MethodState   = "failover.state"   // PeerState -> PeerState
	MethodPromise = "failover.promise" // PromiseQuestion -> PromiseResult
	MethodNudge   = "failover.nudge"   // nothing -> nothing
	MethodOrder   = "failover.order"   // OrderQuestion -> OrderResult
	MethodGates   = "failover.gates"   // nothing -> OrderResult
	MethodHistory = "failover.history" // nothing -> []Entry
)

// PromiseQuestion asks for a promise not to claim.
type PromiseQuestion struct {
	Epoch uint64 `json:"epoch"`
}

// PromiseResult is the answer.
type PromiseResult struct {
	Given  bool   `json:"given"`
	Reason string `json:"reason,omitempty"`
}

// talk tells the peer how this site is, and takes in how the peer is.
func (c *Controller) talk(ctx context.Context) {
	if c.deps.Peer == nil {
		return
	}
	for ctx.Err() == nil {
		if c.Snapshot().Link {
			if err := c.exchange(ctx); err != nil {
				c.log.Debug("the other site was not told", "err", err)
			}
		}
		wait(ctx, min(c.cfg.Timing.Poll, time.Second))
	}
}

// exchange tells the peer how this site is, and the machine what it answers.
func (c *Controller) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Request)
	defer cancel()
	var theirs PeerState
	if err := c.deps.Peer.Call(ctx, MethodState, c.says(), &theirs); err != nil {
		return fmt.Errorf("ask %s how it is: %w", c.peer, err)
	}
	c.tell(ctx, PeerSays{PeerState: theirs})
	return nil
}

// says is what the peer is told, from the last event.
func (c *Controller) says() PeerState { return *c.saysNow.Load() }

// HearPeer answers MethodState.
func (c *Controller) HearPeer(ctx context.Context, theirs PeerState) (PeerState, error) {
	c.tell(ctx, PeerSays{PeerState: theirs})
	return c.says(), nil
}

// HearPromise answers MethodPromise.
func (c *Controller) HearPromise(ctx context.Context, q PromiseQuestion) (PromiseResult, error) {
	actions, err := c.ask(ctx, PromiseAsked(q))
	if err != nil {
		return PromiseResult{}, err
	}
	for _, a := range actions {
		if ans, ok := a.(PromiseAnswer); ok {
			return PromiseResult(ans), nil
		}
	}
	return PromiseResult{Reason: "no answer"}, nil
}

// HearNudge answers MethodNudge.
func (c *Controller) HearNudge(ctx context.Context, _ struct{}) (struct{}, error) {
	c.tell(ctx, Nudge{})
	return struct{}{}, nil
}

// HearHistory answers MethodHistory.
func (c *Controller) HearHistory(context.Context, struct{}) ([]Entry, error) {
	return c.history.last(historyLines)
}

const historyLines = 200

// askPromise asks the peer not to claim; no answer is no promise.
func (c *Controller) askPromise(ctx context.Context, a AskPromise) PromiseDone {
	done := PromiseDone{Sent: c.clock.Now(), Epoch: a.Epoch}
	if c.deps.Peer == nil {
		return done
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Request)
	defer cancel()
	var res PromiseResult
	if err := c.deps.Peer.Call(ctx, MethodPromise, PromiseQuestion(a), &res); err != nil {
		c.log.Warn("the other site gave no promise", "err", err)
		return done
	}
	if !res.Given {
		c.log.Warn("the other site refused a promise", "reason", res.Reason)
	}
	done.Given = res.Given
	return done
}

// nudge tells the peer to look, and looks at the records here.
func (c *Controller) nudge(ctx context.Context) {
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if c.deps.Peer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Request)
	defer cancel()
	if err := c.deps.Peer.Call(ctx, MethodNudge, struct{}{}, nil); err != nil {
		c.log.Debug("the other site was not nudged", "err", fmt.Errorf("nudge: %w", err))
	}
}
