package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"understudy/smtp/queue"
)

// The rhythm of a flush that is waited for.
const (
	flushTick  = time.Second     // looks at hops, sends progress
	flushRetry = 5 * time.Second // flushes again what was deferred
	flushStep  = 500             // messages made due at once
	// flushGrace is how long an unreachable next hop may take to come up: who
	// flushes has often just started it.
	flushGrace = 10 * time.Second
)

// flushMessages flushes the selected messages and streams what comes of each.
func (s *Server) flushMessages(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Queue == nil {
		return notConfigured("a queue")
	}
	var req FlushRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := checkSelection(req.Selection); err != nil {
		return err
	}
	if req.Timeout < 0 {
		return badRequest("timeout is negative")
	}
	if req.Retry && req.Timeout == 0 {
		return badRequest("retry needs a timeout")
	}
	f := &flushRun{s: s, req: req, t: newFlushTracker(req.Retry)}
	return f.run(r.Context(), w)
}

// flushRun is one flush that somebody waits for.
type flushRun struct {
	s   *Server
	req FlushRequest
	t   *flushTracker
	out *stream
	// events are those since before the messages were chosen.
	events *pump
	// began is when the messages were chosen: later answers are this flush's.
	began   time.Time
	resumed []string
	skipped []FlushMessage

	mu      sync.Mutex
	removed map[string]bool // by operators, since the flush began
}

// wasRemoved says whether an operator deleted or bounced the message meanwhile.
func (f *flushRun) wasRemoved(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.removed[id]
}

// followFlush makes f known to removals while it runs; the returned function ends
// that.
func (s *Server) followFlush(f *flushRun) func() {
	f.removed = map[string]bool{}
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.flushes[f] = struct{}{}
	return func() {
		s.flushMu.Lock()
		defer s.flushMu.Unlock()
		delete(s.flushes, f)
	}
}

// noteRemoved tells running flushes what an operator has removed: a flush that
// lost events must not take that for delivered.
func (s *Server) noteRemoved(ids []string) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	for f := range s.flushes {
		f.mu.Lock()
		for _, id := range ids {
			f.removed[id] = true
		}
		f.mu.Unlock()
	}
}

// run is the whole flush. Events are subscribed to before anything is touched, so
// that no outcome is missed.
func (f *flushRun) run(ctx context.Context, w http.ResponseWriter) error {
	defer f.s.followFlush(f)()
	events, cancel := f.s.deps.Queue.Subscribe(ctx)
	f.events = newPump()
	var pumping sync.WaitGroup
	pumping.Go(func() { f.events.run(events) })
	defer pumping.Wait()
	defer cancel()
	if err := f.start(ctx); err != nil {
		return err
	}
	f.out = newStream(w, "application/x-ndjson")
	err := f.out.line(FlushLine{Start: &FlushStart{Total: f.t.total, Bytes: f.t.bytes, Resumed: f.resumed}})
	if err == nil {
		err = f.report(f.skipped)
	}
	if err != nil {
		return err
	}
	timedOut, err := f.follow(ctx)
	if err != nil {
		f.out.fail(func(e *Error) any { return FlushLine{Error: e} }, err)
		return err
	}
	end := FlushSummary{
		Total: f.t.total, Outcomes: f.t.outcomes, TimedOut: timedOut,
		Seconds: time.Since(f.began).Seconds(),
	}
	if err := f.out.line(FlushLine{End: &end}); err != nil {
		return err
	}
	return f.out.flush()
}

// start selects, resumes hops and flushes.
func (f *flushRun) start(ctx context.Context) error {
	sel := f.req.Selection
	if len(sel.IDs) == 0 && len(sel.States) == 0 {
		sel.States = []queue.State{queue.Queued, queue.Active}
	}
	list, err := f.s.deps.Queue.List(ctx, sel)
	if err != nil {
		return queueError(err, "")
	}
	f.began = time.Now()
	byID := make(map[string]*queue.Summary, len(list))
	ids := make([]string, 0, len(list))
	for i := range list {
		byID[list[i].ID] = &list[i]
		ids = append(ids, list[i].ID)
		f.t.add(list[i])
	}
	for _, id := range sel.IDs {
		if byID[id] == nil {
			f.skipped = append(f.skipped, f.t.skip(id, "not in the queue, or not selected by the filters"))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if !f.req.KeepPaused {
		if f.resumed, err = f.s.resumeHops(ctx); err != nil {
			return err
		}
	}
	skipped, err := f.apply(ctx, ids)
	f.s.audit(ctx, string(queue.Flush), ids, len(ids), err, auditSelection(f.req.Selection, true))
	if err != nil {
		return queueError(err, "")
	}
	for id, why := range skipped {
		m := byID[id]
		// On loan already: that attempt's outcome counts.
		if m == nil || m.State == queue.Active || m.State == queue.Queued {
			continue
		}
		if it := f.t.open[id]; it != nil {
			f.skipped = append(f.skipped, f.t.finish(it, OutcomeSkipped, why))
		}
	}
	return nil
}

// apply makes messages due, in steps: each message is an event, and the queue keeps
// only so many for a reader.
func (f *flushRun) apply(ctx context.Context, ids []string) (map[string]string, error) {
	skipped := map[string]string{}
	for chunk := range slices.Chunk(ids, flushStep) {
		change, err := f.s.deps.Queue.Apply(ctx, queue.Flush, queue.Selection{IDs: chunk}, queue.ApplyOptions{})
		if err != nil {
			return nil, err
		}
		maps.Copy(skipped, change.Skipped)
	}
	return skipped, nil
}

// resumeHops has every next hop that is paused or down tried at once; it returns
// their names.
func (s *Server) resumeHops(ctx context.Context) ([]string, error) {
	if s.deps.Hops == nil {
		return nil, nil
	}
	hops, err := s.deps.Hops.Hops(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at next hops: %w", err)
	}
	var resumed []string
	for _, h := range hops {
		if h.State != HopPaused && h.State != HopDown {
			continue
		}
		err := s.deps.Hops.Resume(ctx, h.Name)
		s.audit(ctx, "resume_hop", nil, 1, err, slog.String("selection", h.Name))
		if err != nil {
			return resumed, fmt.Errorf("resume next hop %s: %w", h.Name, err)
		}
		resumed = append(resumed, h.Name)
	}
	return resumed, nil
}

// follow reports outcomes until all are final, the time is over (true) or the
// caller has left.
func (f *flushRun) follow(ctx context.Context) (bool, error) {
	tick := time.NewTicker(f.s.flushTick)
	defer tick.Stop()
	var timeout, again <-chan time.Time
	if f.req.Timeout > 0 {
		timer := time.NewTimer(f.req.Timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	if f.req.Retry {
		ticker := time.NewTicker(f.s.flushRetry)
		defer ticker.Stop()
		again = ticker.C
	}
	if err := f.out.flush(); err != nil {
		return false, err
	}
	for len(f.t.open) > 0 {
		select {
		case <-ctx.Done():
			return false, errors.New("stopped waiting: the daemon stops, or the caller left; the flush itself goes on")
		case <-timeout:
			return true, f.report(f.t.giveUp(OutcomeWaiting, nil, func(string) string {
				return fmt.Sprintf("not decided within %v", f.req.Timeout)
			}))
		case <-again:
			if ids := f.t.takeDeferred(); len(ids) > 0 {
				if _, err := f.apply(ctx, ids); err != nil {
					return false, err
				}
			}
		case <-f.events.ready:
			if err := f.takeEvents(); err != nil {
				return false, err
			}
		case <-tick.C:
			if err := f.look(ctx); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// takeEvents reports what the events have decided.
func (f *flushRun) takeEvents() error {
	events, ended := f.events.take()
	for i := range events {
		if m, done := f.t.event(events[i]); done {
			if err := f.report([]FlushMessage{m}); err != nil {
				return err
			}
		}
	}
	if ended && len(f.t.open) > 0 {
		return errors.New("stopped waiting: the daemon stops; the flush itself goes on")
	}
	return f.out.flush()
}

// look compares with the queue and the hops, and says that the flush is alive.
func (f *flushRun) look(ctx context.Context) error {
	list, err := f.s.deps.Queue.List(ctx, queue.Selection{IDs: f.t.ids()})
	if err != nil {
		return err
	}
	// What happened before the listing is told by events first.
	if err := f.takeEvents(); err != nil {
		return err
	}
	if err := f.report(f.t.resync(list, f.began, f.wasRemoved)); err != nil {
		return err
	}
	why := ""
	if f.s.deps.Hops != nil {
		hops, err := f.s.deps.Hops.Hops(ctx)
		if err != nil {
			return err
		}
		var ended []FlushMessage
		ended, why = f.unreachable(list, hops)
		if err := f.report(ended); err != nil {
			return err
		}
	}
	if err := f.out.line(FlushLine{Progress: &FlushProgress{Done: f.t.done(), Total: f.t.total, Waiting: why}}); err != nil {
		return err
	}
	return f.out.flush()
}

// unreachable ends the messages whose next hop was tried since the flush began
// and still cannot be reached after a grace: nobody would attempt them. With retry
// they stay open. The reason is for the progress line.
func (f *flushRun) unreachable(list []queue.Summary, hops []Hop) ([]FlushMessage, string) {
	down := map[string]string{}
	why := ""
	for _, h := range hops {
		if (h.State == HopDown || h.State == HopPaused) && h.Checked.After(f.began) {
			down[h.Name] = fmt.Sprintf("next hop %s is %s: %s", h.Name, h.State, h.Reason)
			why = down[h.Name]
		}
	}
	if len(down) == 0 || f.req.Retry || time.Since(f.began) < f.s.flushGrace {
		return nil, why
	}
	texts := map[string]string{}
	for _, m := range list {
		if m.State != queue.Queued {
			continue
		}
		text, all := "", true
		for name := range strings.SplitSeq(m.NextHop, ", ") {
			one, isDown := down[name]
			text, all = one, all && isDown
		}
		if !all && len(down) == len(hops) {
			text, all = why, true // none can be reached, whatever it is called
		}
		if all {
			texts[m.ID] = text
		}
	}
	return f.t.giveUp(OutcomeDeferred,
		func(id string) bool { _, ok := texts[id]; return !ok },
		func(id string) string { return texts[id] }), why
}

// report writes one line for each message.
func (f *flushRun) report(list []FlushMessage) error {
	for i := range list {
		if err := f.out.line(FlushLine{Message: &list[i]}); err != nil {
			return err
		}
	}
	return nil
}
