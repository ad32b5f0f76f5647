package dnsfailover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// retryJobs is how long after a failure a change of view is acted on again.
const retryJobs = 5 * time.Second

// jobs acts on changes of the view, one after the other.
type jobs struct {
	c *Controller

	mu       sync.Mutex
	view     View // the last one told
	queue    []job
	ready    chan struct{}
	finished string // role and epoch that all was done for
	overtake func() // ends what the last view still publishes; nil: nothing
}

// job is a view to act on, or something to do when all before it was done.
type job struct {
	view    View
	barrier func(context.Context)
}

func newJobs(c *Controller, v View) *jobs {
	j := &jobs{c: c, view: v, ready: make(chan struct{}, 1), finished: c.saved.Done}
	if v.Active != "" { // known without a register
		j.queue = append(j.queue, job{view: v})
		j.wake()
	}
	return j
}

func same(a, b View) bool { return a.Active == b.Active && a.Epoch == b.Epoch && a.Role == b.Role }

// changed adds a job where the view differs from the last one.
func (j *jobs) changed(v View) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if same(j.view, v) {
		return
	}
	j.c.log.Info("view changed", "role", v.Role.String(), "active", string(v.Active), "epoch", v.Epoch)
	j.c.history.add("view", fmt.Sprintf("%s; active is %s, epoch %d", v.Role, v.Active, v.Epoch))
	j.view = v
	j.queue = append(j.queue, job{view: v})
	if j.overtake != nil {
		j.overtake()
	}
	j.wake()
}

// whileCurrent is a context that ends when the view changes: what stops work must
// not wait for a host that does not answer.
func (j *jobs) whileCurrent(ctx context.Context, v View) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.overtake = cancel
	if !same(j.view, v) {
		cancel()
	}
	return ctx, cancel
}

// barrier adds something to do once all changes so far have been acted on.
func (j *jobs) barrier(do func(context.Context)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = append(j.queue, job{barrier: do})
	j.wake()
}

func (j *jobs) wake() {
	select {
	case j.ready <- struct{}{}:
	default:
	}
}

// next takes the next job; of several views in a row only the last matters.
func (j *jobs) next() (job, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.queue) > 0 {
		first := j.queue[0]
		j.queue = j.queue[1:]
		if first.barrier == nil && len(j.queue) > 0 && j.queue[0].barrier == nil {
			continue
		}
		return first, true
	}
	return job{}, false
}

func (j *jobs) run(ctx context.Context) {
	var again View
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	retry.Stop()
	lost := time.NewTimer(j.c.cfg.Timing.Permit)
	defer lost.Stop()
	act := func(v View) {
		if err := j.act(ctx, v); err != nil && ctx.Err() == nil {
			j.c.log.Error("a change of view was not acted on in full", "role", v.Role.String(), "epoch", v.Epoch, "err", err)
			again = v
			retry.Reset(retryJobs)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
			j.mu.Lock()
			current := same(j.view, again)
			j.mu.Unlock()
			if current {
				act(again)
			}
		case <-lost.C:
			// This site was active before its restart and has not learned who is.
			if v := j.c.feed.Load(); v.Role == Fenced && v.Active == "" && strings.HasPrefix(j.finished, Active.String()) {
				act(v)
			}
		case <-j.ready:
			for {
				job, ok := j.next()
				if !ok {
					break
				}
				switch {
				case job.barrier != nil:
					job.barrier(ctx)
				case job.view.Active != "": // else it is not known yet who is active
					act(job.view)
				}
			}
		}
	}
}

// key names what is done once: the same role in the same epoch needs nothing
// again, after a restart either.
func key(v View) string { return v.Role.String() + " " + strconv.FormatUint(v.Epoch, 10) }

// act does all that follows from a view, whatever of it fails.
func (j *jobs) act(ctx context.Context, v View) error {
	var errs []error
	actors := slices.Clone(j.c.deps.Actors)
	if v.Role != Active {
		slices.Reverse(actors)
	}
	list, done := j.c.cfg.Hooks.OnDemote, j.finished == key(v)
	switch v.Role {
	case Active:
		list = j.c.cfg.Hooks.OnPromote
	case Fenced:
		list = j.c.cfg.Hooks.OnFence
	case Standby:
		// A standby that never acted in this epoch or before has nothing to stop.
		done = done || j.finished == ""
	}
	if j.c.Snapshot().Mode == Observe {
		done = true
	}
	// What stops runs hooks first; what starts runs them when all else is there.
	if v.Role != Active && !done {
		errs = append(errs, j.hooks(ctx, v, list))
	}
	for _, a := range actors {
		actx, cancel := context.WithTimeout(ctx, a.Limit)
		if err := a.Do(actx, v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.Name, err))
		}
		cancel()
	}
	if v.Role == Active {
		if !done {
			errs = append(errs, j.hooks(ctx, v, list))
		}
		if j.c.Snapshot().Mode != Observe {
			pctx, done := j.whileCurrent(ctx, v)
			errs = append(errs, j.c.publishZones(pctx, v))
			done()
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		j.alarm(err.Error())
		return err
	}
	j.alarm("")
	if j.finished != key(v) {
		j.finished = key(v)
		if err := j.c.save(func(s *savedState) { s.Done = key(v) }); err != nil {
			return err
		}
	}
	return nil
}

func (j *jobs) alarm(text string) {
	if j.c.deps.Alarms == nil {
		return
	}
	if text == "" {
		j.c.deps.Alarms.Clear("failover_action")
		return
	}
	j.c.deps.Alarms.Raise("failover_action", "what follows from the change of role was not done in full: "+text)
}

// hooks runs hooks in order, all of them whatever each returns.
func (j *jobs) hooks(ctx context.Context, v View, list []string) error {
	if len(list) > 0 && j.c.deps.Hook == nil {
		return errors.New("there is nothing that runs hooks")
	}
	var errs []error
	for _, name := range list {
		began := time.Now()
		err := j.c.deps.Hook(ctx, name, j.c.hookEnv(v), j.c.cfg.Hooks.Timeout)
		if err != nil {
			errs = append(errs, fmt.Errorf("hook %s: %w", name, err))
		}
		j.c.history.add("hook", fmt.Sprintf("%s took %s: %s", name, time.Since(began).Round(time.Millisecond), result(err)))
	}
	return errors.Join(errs...)
}

func result(err error) string {
	if err != nil {
		return err.Error()
	}
	return "done"
}

// hookEnv is what a hook may know; the epoch lets it refuse to be late.
func (c *Controller) hookEnv(v View) map[string]string {
	return map[string]string{
		"SITE": string(c.deps.Site), "PEER": string(c.peer), "ACTIVE": string(v.Active),
		"ROLE": v.Role.String(), "EPOCH": strconv.FormatUint(v.Epoch, 10),
	}
}

// zoneLimit bounds one step with a zone that is not the register's. Its publisher
// has limits of its own for each call.
const zoneLimit = 2 * time.Minute

// publishZones moves the records outside the register's zone.
func (c *Controller) publishZones(ctx context.Context, v View) error {
	var errs []error
	for _, z := range c.deps.Zones {
		steps, err := c.planZone(ctx, z.Publisher.Records, z.Name, v.Active, zoneLimit)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		changes, foreign := Changes(steps)
		if len(foreign) > 0 {
			errs = append(errs, fmt.Errorf("%w: %s; see adopt", ErrForeign, foreignText(foreign)))
		}
		if len(changes) == 0 {
			continue
		}
		actx, cancel := context.WithTimeout(ctx, zoneLimit)
		err = z.Publisher.Apply(actx, v.Epoch, changes)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("change records of %s: %w", z.Name, err))
			continue
		}
		for _, ch := range changes {
			c.history.add("record", ch.String())
		}
	}
	return errors.Join(errs...)
}
