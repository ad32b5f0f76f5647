package dnsfailover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrOrder is what an order returns that was not carried out; the text names
// the reasons.
var ErrOrder = errors.New("refused")

// orderLimit bounds the wait for a switchover to be done.
const orderLimit = 30 * time.Second

// OrderQuestion is an operator's order on its way to the site that can obey.
type OrderQuestion struct {
	Command Command `json:"command"`
	To      Site    `json:"to,omitempty"`
	// Force leaves the gates out, not what safety needs.
	Force bool `json:"force,omitempty"`
	// Restore is the epoch of Initialise.
	Restore uint64 `json:"restore,omitempty"`
	// Domain is what the operator typed; whoever takes orders from people checks it.
	Domain string `json:"domain,omitempty"`
}

// OrderResult is what came of it.
type OrderResult struct {
	// Refused are the reasons; none: done, or begun.
	Refused []string `json:"refused,omitempty"`
	// Took is how long a switchover took, to the change of the register.
	Took time.Duration `json:"took_ns,omitempty"`
	// Epoch and Active after it.
	Epoch  uint64 `json:"epoch,omitempty"`
	Active Site   `json:"active,omitempty"`
}

// Err is nil for a result that was not refused.
func (r OrderResult) Err() error {
	if len(r.Refused) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrOrder, strings.Join(r.Refused, "; "))
}

// order gives the machine a command.
func (c *Controller) order(ctx context.Context, o Operator) OrderResult {
	c.history.add("order", strings.TrimSpace(string(o.Command)+" "+string(o.To)))
	actions, err := c.ask(ctx, o)
	if err != nil {
		return OrderResult{Refused: []string{err.Error()}}
	}
	for _, a := range actions {
		if r, ok := a.(Reply); ok && r.Refused != "" {
			c.history.add("refused", r.Refused)
			return OrderResult{Refused: []string{r.Refused}}
		}
	}
	return OrderResult{}
}

// HearOrder answers MethodOrder: an order given at the other site.
func (c *Controller) HearOrder(ctx context.Context, q OrderQuestion) (OrderResult, error) {
	return c.Order(ctx, q), nil
}

// HearGates answers MethodGates: what speaks against this site becoming active.
func (c *Controller) HearGates(ctx context.Context, _ struct{}) (OrderResult, error) {
	return OrderResult{Refused: c.ownGates(ctx)}, nil
}

// ownGates runs the hooks that must succeed here.
func (c *Controller) ownGates(ctx context.Context) []string {
	var out []string
	s := c.Snapshot()
	if good := s.Self.GoodFor; c.deps.Self != nil && good < c.cfg.Steady {
		out = append(out, fmt.Sprintf("%s: its own probes have succeeded for %s only, not for %s", c.deps.Site, good.Round(time.Second), c.cfg.Steady))
	}
	for _, name := range c.cfg.Hooks.Gates {
		if c.deps.Hook == nil {
			return append(out, "there is nothing that runs hooks")
		}
		v := c.feed.Load()
		if err := c.deps.Hook(ctx, name, c.hookEnv(v), c.cfg.Hooks.Timeout); err != nil {
			out = append(out, fmt.Sprintf("%s: gate %s: %v", c.deps.Site, name, err))
		}
	}
	return out
}

// gates are all reasons against a switchover to the peer.
func (c *Controller) gates(ctx context.Context) []string {
	var out []string
	if c.deps.Gates != nil {
		out = append(out, c.deps.Gates(ctx)...)
	}
	if c.deps.Peer != nil {
		var theirs OrderResult
		if err := c.deps.Peer.Call(ctx, MethodGates, struct{}{}, &theirs); err != nil {
			out = append(out, fmt.Sprintf("%s was not asked: %v", c.peer, err))
		}
		out = append(out, theirs.Refused...)
	}
	return out
}

// Order carries out an operator's command at the site that can: a switchover at
// the active one. It returns when that is done, or begun where it takes longer.
// Reasons against it are in the result.
func (c *Controller) Order(ctx context.Context, q OrderQuestion) OrderResult {
	switch q.Command {
	case SwitchOver:
		return c.switchover(ctx, q)
	case MaintenanceOn:
		if c.Snapshot().Role == Active.String() && !q.Force {
			if r := c.switchover(ctx, OrderQuestion{Command: SwitchOver, To: c.peer}); r.Err() != nil {
				return r
			}
		}
	case Acknowledge:
		if c.deps.Peer != nil && !q.Force { // force: it comes from there
			q.Force = true
			_ = c.deps.Peer.Call(ctx, MethodOrder, q, nil) // the peer's quiet ends with ours, or by itself
		}
	case ForceFailover, Pause, Resume, MaintenanceOff, Initialise:
	}
	return c.order(ctx, Operator{Command: q.Command, To: q.To, Restore: q.Restore})
}

// switchover hands the role to q.To and waits for it.
func (c *Controller) switchover(ctx context.Context, q OrderQuestion) OrderResult {
	s := c.Snapshot()
	if s.Active == c.peer && q.To == c.deps.Site && s.Mode != Observe {
		// Only the active site can hand over.
		var r OrderResult
		if c.deps.Peer == nil {
			return OrderResult{Refused: []string{"there is no link to " + string(c.peer)}}
		}
		if err := c.deps.Peer.Call(ctx, MethodOrder, q, &r); err != nil {
			return OrderResult{Refused: []string{fmt.Sprintf("%s, the active site, was not reached: %v", c.peer, err)}}
		}
		return r
	}
	if s.Active == c.deps.Site && q.To == c.peer && s.Mode != Observe && !q.Force {
		if reasons := c.gates(ctx); len(reasons) > 0 {
			c.history.add("refused", "switchover: "+strings.Join(reasons, "; "))
			return OrderResult{Refused: reasons}
		}
	}
	if c.deps.Peer != nil {
		// What it said last may be from before its restart.
		if err := c.exchange(ctx); err != nil {
			return OrderResult{Refused: []string{fmt.Sprintf("%s does not say how it is: %v", c.peer, err)}}
		}
	}
	began := time.Now()
	if r := c.order(ctx, Operator{Command: SwitchOver, To: q.To}); r.Err() != nil {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	for {
		now := c.Snapshot()
		if now.Epoch > s.Epoch && now.Active == q.To {
			return OrderResult{Took: time.Since(began), Epoch: now.Epoch, Active: now.Active}
		}
		if now.HandingOver == "" && now.Epoch == s.Epoch && time.Since(began) > time.Second {
			return OrderResult{Refused: []string{"the hand-over was given up; see history"}}
		}
		if ctx.Err() != nil {
			return OrderResult{Refused: []string{"the hand-over is not done yet: " + now.Silent}}
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// DrillStep is one part of a drill.
type DrillStep struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// Drill switches to the other site and back, and times it. Only the active site
// can; after an error the role is where the last step left it.
func (c *Controller) Drill(ctx context.Context) ([]DrillStep, error) {
	var out []DrillStep
	s := c.Snapshot()
	if s.Role != Active.String() {
		return nil, fmt.Errorf("%w: %s is not active; start the drill at %s", ErrOrder, c.deps.Site, s.Active)
	}
	there := c.switchover(ctx, OrderQuestion{Command: SwitchOver, To: c.peer})
	if err := there.Err(); err != nil {
		return out, err
	}
	out = append(out, DrillStep{Name: fmt.Sprintf("role and records to %s", c.peer), Took: there.Took})
	began := time.Now()
	if err := c.until(ctx, func(s Snapshot) bool { return s.Peer.Role == Active.String() && s.Peer.Epoch == there.Epoch }); err != nil {
		return out, fmt.Errorf("%s did not say that it is active: %w", c.peer, err)
	}
	out = append(out, DrillStep{Name: fmt.Sprintf("%s is active", c.peer), Took: time.Since(began)})
	began = time.Now()
	var back OrderResult
	// It was steady a moment ago; the gates are for who has not been active.
	if err := c.deps.Peer.Call(ctx, MethodOrder, OrderQuestion{Command: SwitchOver, To: c.deps.Site, Force: true}, &back); err != nil {
		return out, fmt.Errorf("switch back: %w", err)
	}
	if err := back.Err(); err != nil {
		return out, err
	}
	out = append(out, DrillStep{Name: fmt.Sprintf("role and records to %s", c.deps.Site), Took: time.Since(began)})
	began = time.Now()
	if err := c.until(ctx, func(s Snapshot) bool { return s.Role == Active.String() }); err != nil {
		return out, fmt.Errorf("%s is not active again: %w", c.deps.Site, err)
	}
	return append(out, DrillStep{Name: fmt.Sprintf("%s is active", c.deps.Site), Took: time.Since(began)}), nil
}

// until waits for a condition.
func (c *Controller) until(ctx context.Context, is func(Snapshot) bool) error {
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	for !is(c.Snapshot()) {
		if ctx.Err() != nil {
			return fmt.Errorf("wait: %w", ctx.Err())
		}
		wait(ctx, 20*time.Millisecond)
	}
	return nil
}

// PlanReport is what the records are and should be.
type PlanReport struct {
	Active Site      `json:"active"`
	Epoch  uint64    `json:"epoch"`
	At     time.Time `json:"at"`
	Steps  []Step    `json:"steps"`
	// Error says what could not be read.
	Error string `json:"error,omitempty"`
}

// Plan reads the records and says what making active's values public changes;
// "" is whoever is active.
func (c *Controller) Plan(ctx context.Context, active Site) PlanReport {
	s := c.Snapshot()
	if active == "" {
		active = s.Active
	}
	if active == "" {
		active = c.deps.Primary
	}
	steps, err := c.planAll(ctx, active)
	r := PlanReport{Active: active, Epoch: s.Epoch, At: time.Now(), Steps: steps}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// Apply makes the active site's values public where they are not: after the
// first installation, a new record, or a change of TTL. Only the active site does.
func (c *Controller) Apply(ctx context.Context) ([]RRChange, error) {
	s := c.Snapshot()
	switch {
	case s.Mode == Observe:
		return nil, fmt.Errorf("%w: the mode is observe: nothing moves", ErrOrder)
	case s.Role != Active.String():
		return nil, fmt.Errorf("%w: %s is not active; %s may change the records", ErrOrder, c.deps.Site, s.Active)
	}
	var all []RRChange
	if c.deps.RegisterZone != "" {
		changes, err := c.applyHere(ctx, s)
		if err != nil {
			return all, err
		}
		all = append(all, changes...)
	}
	r := c.Plan(ctx, c.deps.Site)
	rest, _ := Changes(r.Steps)
	if err := c.publishZones(ctx, c.feed.Load()); err != nil {
		return all, err
	}
	return append(all, rest...), nil
}

// applyHere changes the records of the register's zone together with a register
// that names this site again.
func (c *Controller) applyHere(ctx context.Context, s Snapshot) ([]RRChange, error) {
	steps, err := c.planZone(ctx, c.deps.Arbiter.Records, c.deps.RegisterZone, c.deps.Site, c.cfg.Timing.Request)
	if err != nil {
		return nil, err
	}
	changes, foreign := Changes(steps)
	if len(foreign) > 0 {
		return nil, &ForeignError{Found: foreign}
	}
	if len(changes) == 0 {
		return nil, nil
	}
	old, err := ParseRegister(s.Register)
	if err != nil {
		return nil, err
	}
	next := old
	next.Nonce, next.At, next.By, next.Config = NewNonce(), time.Now().Unix(), c.deps.Site, c.says().Config
	if old.State != Held {
		return nil, fmt.Errorf("%w: a claim is open", ErrOrder)
	}
	rctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Request)
	defer cancel()
	if err := c.deps.Arbiter.CompareAndSwap(rctx, old, next, changes); err != nil {
		return nil, fmt.Errorf("change records of %s: %w", c.deps.RegisterZone, err)
	}
	for _, ch := range changes {
		c.history.add("record", ch.String())
	}
	c.tell(ctx, Nudge{})
	return changes, nil
}

// Adopt declares the present values of foreign records to be ours to replace,
// and returns them.
func (c *Controller) Adopt(ctx context.Context) ([]RRSet, error) {
	steps, err := c.planAll(ctx, c.deps.Site)
	if err != nil {
		return nil, err
	}
	_, foreign := Changes(steps)
	if len(foreign) == 0 {
		return nil, nil
	}
	if err := c.save(func(s *savedState) { s.Adopted = append(s.Adopted, foreign...) }); err != nil {
		return nil, err
	}
	c.history.add("adopted", foreignText(foreign))
	c.look(ctx)
	return foreign, nil
}

// History returns the last entries of both sites, oldest first; the error says
// that the other site's could not be had.
func (c *Controller) History(ctx context.Context) ([]Entry, error) {
	out, err := c.history.last(historyLines)
	if err != nil {
		return nil, err
	}
	if c.deps.Peer == nil {
		return out, nil
	}
	var theirs []Entry
	if err := c.deps.Peer.Call(ctx, MethodHistory, struct{}{}, &theirs); err != nil {
		return out, fmt.Errorf("ask %s for its history: %w", c.peer, err)
	}
	return mergeEntries(out, theirs), nil
}

func mergeEntries(a, b []Entry) []Entry {
	out := make([]Entry, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if b[0].At.Before(a[0].At) {
			out, b = append(out, b[0]), b[1:]
		} else {
			out, a = append(out, a[0]), a[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Status is all that is known of who is active, for people.
type Status struct {
	Site     Site   `json:"site"`
	PeerSite Site   `json:"peer_site"`
	Hash     string `json:"config"`
	Snapshot
	// Records as of the last look, at PlanAt; PlanError says what was not read.
	Records   []Step    `json:"records"`
	PlanAt    time.Time `json:"records_at,omitzero"`
	PlanError string    `json:"records_error,omitempty"`
}

// Status returns what is known, without asking anybody.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{
		Site: c.deps.Site, PeerSite: c.peer, Hash: c.says().Config, Snapshot: c.Snapshot(),
		Records: c.steps, PlanAt: c.planAt, PlanError: c.planErr,
	}
}
