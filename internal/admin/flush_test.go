package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/smtp/queue"
)

func summary(id string, rcpts ...string) queue.Summary {
	m := queue.Summary{ID: id, State: queue.Queued}
	for _, r := range rcpts {
		m.Recipients = append(m.Recipients, queue.RecipientStatus{Address: r, State: queue.RecipientPending})
	}
	return m
}

func TestFlushTrackerEvents(t *testing.T) {
	t.Parallel()
	ev := func(kind queue.Kind, rcpt string) queue.Event {
		return queue.Event{ID: "A", Kind: kind, Recipient: rcpt}
	}
	tests := []struct {
		name   string
		events []queue.Event
		want   Outcome // "" while it is open
	}{
		{"nothing yet", nil, ""},
		{"flushed", []queue.Event{ev(queue.EventFlushed, "")}, ""},
		{"one of two", []queue.Event{ev(queue.EventDelivered, "a@x")}, ""},
		{"both", []queue.Event{ev(queue.EventDelivered, "a@x"), ev(queue.EventDelivered, "B@X")}, OutcomeDelivered},
		{"one deferred", []queue.Event{ev(queue.EventDelivered, "a@x"), ev(queue.EventDeferred, "b@x")}, OutcomeDeferred},
		{"one refused", []queue.Event{ev(queue.EventRefused, "a@x"), ev(queue.EventDelivered, "b@x")}, OutcomeRefused},
		{"refused and deferred", []queue.Event{ev(queue.EventRefused, "a@x"), ev(queue.EventDeferred, "b@x")}, OutcomeDeferred},
		{"the same recipient twice", []queue.Event{ev(queue.EventDeferred, "a@x"), ev(queue.EventDeferred, "a@x")}, ""},
		{"removed before its answers were seen", []queue.Event{ev(queue.EventRemoved, "")}, OutcomeDelivered},
		{"held", []queue.Event{ev(queue.EventHeld, "")}, OutcomeHeld},
		{"deleted", []queue.Event{ev(queue.EventDeleted, "")}, OutcomeDeleted},
		{"bounced", []queue.Event{ev(queue.EventBounced, "")}, OutcomeDeleted},
	}
	for _, tt := range tests {
		tr := newFlushTracker(false)
		tr.add(summary("A", "a@x", "b@x"))
		var got Outcome
		for _, e := range tt.events {
			e2 := e
			e2.ID = "other"
			if _, done := tr.event(e2); done {
				t.Errorf("%s: an event of another message decided", tt.name)
			}
			if m, done := tr.event(e); done {
				got = m.Outcome
			}
		}
		if got != tt.want || (got == "") != (len(tr.open) == 1) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFlushTrackerRetries(t *testing.T) {
	t.Parallel()
	tr := newFlushTracker(true)
	tr.add(summary("A", "a@x", "b@x"))
	tr.event(queue.Event{ID: "A", Kind: queue.EventDelivered, Recipient: "a@x"})
	m, done := tr.event(queue.Event{ID: "A", Kind: queue.EventDeferred, Recipient: "b@x"})
	if !done || m.Final || m.Outcome != OutcomeDeferred || len(m.Recipients) != 2 {
		t.Errorf("deferred with retry: %+v", m)
	}
	if diff := cmp.Diff([]string{"A"}, tr.takeDeferred()); diff != "" {
		t.Error(diff)
	}
	if ids := tr.takeDeferred(); len(ids) != 0 {
		t.Errorf("taken twice: %v", ids)
	}
	m, done = tr.event(queue.Event{ID: "A", Kind: queue.EventDelivered, Recipient: "b@x"})
	if !done || !m.Final || m.Outcome != OutcomeDelivered {
		t.Errorf("second attempt: %+v", m)
	}
}

func TestFlushTrackerResync(t *testing.T) {
	t.Parallel()
	began := time.Now()
	later := began.Add(time.Second)
	at := func(m queue.Summary, when time.Time, st queue.RecipientState) queue.Summary {
		m.Recipients[0].At, m.Recipients[0].State, m.Recipients[0].Code = when, st, 450
		return m
	}
	state := func(m queue.Summary, st queue.State) queue.Summary { m.State = st; return m }
	tests := []struct {
		name    string
		list    []queue.Summary
		removed bool
		want    Outcome
	}{
		{"still waiting", []queue.Summary{summary("A", "a@x")}, false, ""},
		{"being delivered", []queue.Summary{state(summary("A", "a@x"), queue.Active)}, false, ""},
		{"an old answer", []queue.Summary{at(summary("A", "a@x"), began.Add(-time.Hour), queue.RecipientPending)}, false, ""},
		{"deferred unseen", []queue.Summary{at(summary("A", "a@x"), later, queue.RecipientPending)}, false, OutcomeDeferred},
		{"refused unseen", []queue.Summary{state(at(summary("A", "a@x"), later, queue.RecipientRefused), queue.Refused)}, false, OutcomeRefused},
		{"held unseen", []queue.Summary{state(summary("A", "a@x"), queue.Held)}, false, OutcomeHeld},
		{"gone unseen", nil, false, OutcomeDelivered},
		{"deleted unseen", nil, true, OutcomeDeleted},
	}
	for _, tt := range tests {
		tr := newFlushTracker(false)
		tr.add(summary("A", "a@x"))
		var got Outcome
		for look := range 2 { // what is gone is believed the second time
			if look == 1 && tt.list == nil && got != "" {
				t.Errorf("%s: believed at once: the event may still be on its way", tt.name)
			}
			for _, m := range tr.resync(tt.list, began, func(string) bool { return tt.removed }) {
				got = m.Outcome
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// flush runs a flush and gathers its report.
func (r *running) flush(ctx context.Context, req FlushRequest) (msgs map[string]FlushMessage, end FlushSummary, waiting string, err error) {
	msgs = map[string]FlushMessage{}
	err = r.Flush(ctx, req, func(l FlushLine) error {
		switch {
		case l.Message != nil:
			msgs[l.Message.ID] = *l.Message
		case l.Progress != nil && l.Progress.Waiting != "":
			waiting = l.Progress.Waiting
		case l.End != nil:
			end = *l.End
		}
		return nil
	})
	return msgs, end, waiting, err
}

// hurry makes a server's flushes quick.
func hurry(r *running) *running {
	r.srv.flushTick, r.srv.flushRetry, r.srv.flushGrace = 5*time.Millisecond, 10*time.Millisecond, 20*time.Millisecond
	return r
}

func TestFlushDeliversEverything(t *testing.T) {
	t.Parallel()
	const n = 3000
	f := fill(n)
	f.OnFlush = func(id string) { f.Answer(id, smtp.Delivered, 250, "2.0.0", "ok", "mx1") }
	hops := &fakeHops{hops: []Hop{{Name: "smtp://mx1.example.net:25", State: HopPaused}}}
	deps := full(f)
	deps.Hops = hops
	r := hurry(start(t, deps))
	msgs, end, _, err := r.flush(t.Context(), FlushRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !end.Delivered() || end.Total != n || len(msgs) != n {
		t.Errorf("end %+v, %d messages", end, len(msgs))
	}
	if len(hops.resumed) != 1 {
		t.Errorf("the paused hop was resumed %d times", len(hops.resumed))
	}
	// A burst overruns the subscription: what was lost is made good by looking.
	answered := 0
	for _, m := range msgs {
		if len(m.Recipients) == 1 && m.Recipients[0].String() == "250 2.0.0 ok" {
			answered++
		}
	}
	if answered == 0 {
		t.Error("no answer was seen")
	}
}

func TestFlushWithAnUnreachableHop(t *testing.T) {
	t.Parallel()
	deps := full(fill(2))
	hops := &fakeHops{hops: []Hop{{Name: "smtp://mx1.example.net:25", State: HopDown, Reason: "connection refused"}}}
	deps.Hops = hops
	r := hurry(start(t, deps))
	// The probe that Resume begins fails a little later.
	hops.onResume = func(h *Hop) { h.Checked = time.Now().Add(time.Minute) }
	msgs, end, waiting, err := r.flush(t.Context(), FlushRequest{})
	if err != nil || end.Outcomes[OutcomeDeferred] != 2 || end.TimedOut {
		t.Fatalf("end %+v, %v", end, err)
	}
	if !strings.Contains(msgs["M000000"].Text, "connection refused") || !strings.Contains(waiting, "is down") {
		t.Errorf("text %q, waiting %q", msgs["M000000"].Text, waiting)
	}
}

func TestFlushTimeoutAndRetry(t *testing.T) {
	t.Parallel()
	f := fill(2)
	attempts := 0
	f.OnFlush = func(id string) {
		if id == "M000000" {
			return // nobody attempts it
		}
		if attempts++; attempts < 3 {
			f.Answer(id, smtp.Deferred, 450, "4.2.1", "busy", "mx1")
			return
		}
		f.Answer(id, smtp.Delivered, 250, "2.0.0", "ok", "mx1")
	}
	r := hurry(start(t, full(f)))
	msgs, end, _, err := r.flush(t.Context(), FlushRequest{Retry: true, Timeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if !end.TimedOut || msgs["M000000"].Outcome != OutcomeWaiting || msgs["M000001"].Outcome != OutcomeDelivered {
		t.Errorf("end %+v, messages %+v", end, msgs)
	}
}

func TestFlushSkips(t *testing.T) {
	t.Parallel()
	f := fill(1)
	f.Add(queue.Summary{ID: "H1", State: queue.Held}, nil)
	f.OnFlush = func(id string) { f.Answer(id, smtp.Delivered, 250, "2.0.0", "ok", "mx1") }
	r := hurry(start(t, full(f)))
	msgs, end, _, err := r.flush(t.Context(), FlushRequest{Selection: Selection{IDs: []string{"M000000", "H1", "X9"}}})
	if err != nil || end.Total != 3 || end.Outcomes[OutcomeSkipped] != 2 || end.Delivered() {
		t.Errorf("end %+v, %v, %+v", end, err, msgs)
	}
	// Without ids, what is held is not meant.
	if _, end, _, err = r.flush(t.Context(), FlushRequest{}); err != nil || end.Total != 0 || !end.Delivered() {
		t.Errorf("end %+v, %v", end, err)
	}
}

func TestFlushKnowsWhatWasDeleted(t *testing.T) {
	t.Parallel()
	f := fill(2)
	r := start(t, full(f))
	r.srv.flushTick = 5 * time.Millisecond
	err := r.Flush(t.Context(), FlushRequest{}, func(l FlushLine) error {
		switch {
		case l.Start != nil:
			_, err := r.Apply(t.Context(), ApplyRequest{Action: queue.Delete, All: true})
			return err
		case l.End != nil && l.End.Outcomes[OutcomeDeleted] != 2:
			t.Errorf("end: %+v", l.End)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// deafQueue tells nobody what happens.
type deafQueue struct{ *Fake }

func (deafQueue) Subscribe(context.Context) (<-chan queue.Event, func()) {
	ch := make(chan queue.Event)
	return ch, sync.OnceFunc(func() { close(ch) })
}

// Even where every event is lost, the outcomes are right.
func TestFlushWithoutEvents(t *testing.T) {
	t.Parallel()
	f := fill(4)
	f.OnFlush = func(id string) {
		switch id {
		case "M000000":
			f.Answer(id, smtp.Delivered, 250, "2.0.0", "ok", "mx1")
		case "M000001":
			f.Answer(id, smtp.Deferred, 450, "4.2.1", "busy", "mx1")
		case "M000002":
			f.Answer(id, smtp.Refused, 550, "5.1.1", "no", "mx1")
		}
	}
	deps := full(f)
	deps.Queue = deafQueue{f}
	deps.Hops = &fakeHops{hops: []Hop{{Name: "smtp://mx1.example.net:25", State: HopPaused}}}
	r := hurry(start(t, deps))
	msgs := map[string]FlushMessage{}
	err := r.Flush(t.Context(), FlushRequest{KeepPaused: true}, func(l FlushLine) error {
		if l.Start != nil {
			if len(l.Start.Resumed) != 0 {
				t.Errorf("resumed %v although the pause was to be kept", l.Start.Resumed)
			}
			_, err := r.Apply(t.Context(), ApplyRequest{Action: queue.Delete, Selection: Selection{IDs: []string{"M000003"}}})
			return err
		}
		if l.Message != nil {
			msgs[l.Message.ID] = *l.Message
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]Outcome{
		"M000000": OutcomeDelivered, "M000001": OutcomeDeferred, "M000002": OutcomeRefused, "M000003": OutcomeDeleted,
	} {
		if msgs[id].Outcome != want {
			t.Errorf("%s: %+v, want %s", id, msgs[id], want)
		}
	}
	if got := msgs["M000002"].Recipients; len(got) != 1 || got[0].Code != 550 {
		t.Errorf("the peer's words are lost: %+v", got)
	}
}

func TestFlushCallerLeaves(t *testing.T) {
	t.Parallel()
	f := fill(1) // nobody delivers it
	r := hurry(start(t, full(f)))
	ctx, cancel := context.WithCancel(t.Context())
	err := r.Flush(ctx, FlushRequest{}, func(FlushLine) error { cancel(); return nil })
	if err == nil {
		t.Error("a flush that was left ended well")
	}
	eventually(t, "the server lets go", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.watchers) == 0 })
	// And when the daemon stops, the caller is told.
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		done <- r.Flush(context.Background(), FlushRequest{}, func(l FlushLine) error {
			if l.Start != nil {
				close(started)
			}
			return nil
		})
	}()
	<-started
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	var e *Error
	if err := <-done; !errors.As(err, &e) || !strings.Contains(e.Text, "the flush itself goes on") {
		t.Errorf("after the daemon's stop: %v", err)
	}
}

func TestPumpKeepsEverything(t *testing.T) {
	t.Parallel()
	in := make(chan queue.Event)
	p := newPump()
	go p.run(in)
	for i := range 10_000 {
		in <- queue.Event{ID: fmt.Sprint(i)}
	}
	close(in)
	n := 0
	for {
		<-p.ready
		events, ended := p.take()
		for _, ev := range events {
			if ev.ID != fmt.Sprint(n) {
				t.Fatalf("event %s where %d was due", ev.ID, n)
			}
			n++
		}
		if ended {
			break
		}
	}
	if n != 10_000 {
		t.Errorf("%d events", n)
	}
}
