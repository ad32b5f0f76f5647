package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/smtp"
)

func TestSelections(t *testing.T) {
	t.Parallel()
	r := start(t, testConfig(t.TempDir()), Deps{NextHop: func() string { return "smtp://mx1.example.net:25" }})
	old := envelope("Alice@x.example", "one@y.example", "two@Z.example")
	old.Received = time.Now().Add(-3 * time.Hour)
	a := r.put(old, "small")
	b := r.put(envelope("", "three@y.example"), strings.Repeat("large", 5000))
	c := r.put(envelope("bob@w.example", "four@z.example"), "to go elsewhere")
	r.apply(Requeue, Selection{IDs: []string{c}}, ApplyOptions{To: "smtp://other:25"})
	d := r.take() // a: oldest
	d.Done([]smtp.Result{result(0, smtp.Deferred, "Mailbox Busy"), result(1, smtp.Delivered, "ok")})
	r.apply(Hold, Selection{IDs: []string{b}}, ApplyOptions{})
	for name, x := range map[string]struct {
		sel  Selection
		want []string
	}{
		"all": {Selection{}, []string{a, b, c}}, "limit": {Selection{Limit: 2}, []string{a, b}},
		"ids":    {Selection{IDs: []string{c, strings.ToLower(a), "nonsense"}}, []string{a, c}},
		"sender": {Selection{Sender: "alice@X.example"}, []string{a}}, "sender glob": {Selection{Sender: "*@?.example"}, []string{a, c}},
		"null sender": {Selection{Sender: "<>"}, []string{b}}, "recipient": {Selection{Recipient: "TWO@z.example"}, []string{a}},
		"domain": {Selection{Domain: "z.EXAMPLE"}, []string{a, c}}, "min age": {Selection{MinAge: time.Hour}, []string{a}},
		"max age": {Selection{MaxAge: time.Hour}, []string{b, c}}, "min size": {Selection{MinBytes: 1000}, []string{b}},
		"max size": {Selection{MaxBytes: 1000}, []string{a, c}}, "next hop": {Selection{NextHop: "OTHER"}, []string{c}},
		"view's hop": {Selection{NextHop: "mx1"}, []string{a, b}}, "error": {Selection{Error: "mailbox busy"}, []string{a}},
		"error by code": {Selection{Error: "450"}, []string{a}}, "states": {Selection{States: []State{Held, Refused}}, []string{b}},
		"both": {Selection{Domain: "*.example", Sender: "bob@*"}, []string{c}}, "none": {Selection{Domain: "q"}, nil},
	} {
		list, err := r.List(t.Context(), x.sel)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range list {
			got = append(got, m.ID)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	r := start(t, cfg, Deps{})
	put := func() string { return r.put(envelope("s@x.example", "a@y.example"), "body") }
	refused := put()
	r.take().Done([]smtp.Result{result(0, smtp.Refused, "no")})
	held, queued := put(), put()
	r.apply(Hold, Selection{IDs: []string{held}}, ApplyOptions{Reason: "look"})
	state := func(id string) State {
		d, err := r.Show(t.Context(), id)
		if err != nil {
			return "gone"
		}
		return d.State
	}
	for _, x := range []struct {
		action Action
		opt    ApplyOptions
		id     string
		done   bool
		after  State
	}{
		{Hold, ApplyOptions{}, refused, false, Refused},
		{Hold, ApplyOptions{DryRun: true}, queued, true, Queued},
		{Hold, ApplyOptions{}, queued, true, Held},
		{Hold, ApplyOptions{}, queued, true, Held}, // idempotent
		{Flush, ApplyOptions{}, queued, false, Held},
		{Release, ApplyOptions{}, queued, true, Queued},
		{Release, ApplyOptions{}, queued, false, Queued},
		{Flush, ApplyOptions{}, queued, true, Queued},
		{Release, ApplyOptions{}, refused, true, Queued},
		{Requeue, ApplyOptions{To: "smtp://b:25"}, held, true, Queued},
		{Delete, ApplyOptions{DryRun: true}, held, true, Queued},
		{Delete, ApplyOptions{}, held, true, "gone"},
		{Delete, ApplyOptions{}, held, false, "gone"},
	} {
		c := r.apply(x.action, Selection{IDs: []string{x.id}}, x.opt)
		if (c.Count == 1) != x.done || len(c.IDs) != c.Count || (len(c.Skipped) == 1) == x.done {
			t.Errorf("%s %+v: %+v, want done %v", x.action, x.opt, c, x.done)
		}
		if got := state(x.id); got != x.after {
			t.Errorf("after %s %+v it is %s, want %s", x.action, x.opt, got, x.after)
		}
	}
	if got := r.Routes(); len(got) != 1 {
		t.Errorf("routes %q after the last message of one was deleted", got)
	}
	if c := r.apply(Delete, Selection{}, ApplyOptions{}); c.Count != 2 || c.Skipped != nil {
		t.Errorf("delete all: %+v", c)
	}
	if _, err := r.Apply(t.Context(), "explode", Selection{}, ApplyOptions{}); err == nil {
		t.Error("an unknown action was done")
	}
	if _, err := r.Apply(t.Context(), Bounce, Selection{}, ApplyOptions{}); err == nil {
		t.Error("bounced without a bouncer")
	}
}

func TestActionsDuringALoan(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	r := start(t, cfg, Deps{})
	id := r.put(envelope("s@x.example", "a@y.example", "b@y.example"), "body")
	d := r.take()
	r.apply(Hold, Selection{IDs: []string{id}}, ApplyOptions{Reason: "now"})
	d.Done([]smtp.Result{result(0, smtp.Delivered, "ok"), result(1, smtp.Deferred, "busy")})
	if got := r.show(id); got.State != Held || got.Recipients[0].State != RecipientDelivered {
		t.Errorf("held while on loan: %+v", got.Summary)
	}
	r.apply(Release, Selection{IDs: []string{id}}, ApplyOptions{})
	d = r.take()
	r.apply(Delete, Selection{IDs: []string{id}}, ApplyOptions{})
	d.Done([]smtp.Result{result(1, smtp.Deferred, "busy")})
	d.Done(nil) // once
	if list, err := r.List(t.Context(), Selection{}); err != nil || len(list) != 0 {
		t.Errorf("deleted while on loan: %v, %v", list, err)
	}
	st, err := r.Stats(t.Context())
	if err != nil || st.Messages != 0 || st.Bytes != 0 || st.Recipients != 0 {
		t.Errorf("stats of an empty queue: %+v, %v", st, err)
	}
}

// bouncer is a fake Bouncer.
type bouncer struct {
	refuse string
	got    []string
}

func (b *bouncer) Bounce(_ context.Context, env *smtp.Envelope, rcpts []RecipientStatus, body io.Reader) error {
	text, err := io.ReadAll(body)
	if env.Sender == b.refuse {
		return errors.New("sender is not authenticated")
	}
	b.got = append(b.got, fmt.Sprintf("%s %d %s %d", env.Sender, len(rcpts), rcpts[0].Address, len(text)))
	return err
}

func TestBounce(t *testing.T) {
	t.Parallel()
	b := &bouncer{refuse: "stranger@x.example"}
	r := start(t, testConfig(t.TempDir()), Deps{Bouncer: b})
	good := r.put(envelope("s@x.example", "a@y.example", "b@y.example"), "body")
	r.take().Done([]smtp.Result{result(0, smtp.Delivered, "ok"), result(1, smtp.Refused, "no")})
	bad := r.put(envelope("stranger@x.example", "a@y.example"), "body")
	c := r.apply(Bounce, Selection{}, ApplyOptions{DryRun: true})
	if c.Count != 2 || len(b.got) != 0 {
		t.Errorf("dry run: %+v, bounced %v", c, b.got)
	}
	c = r.apply(Bounce, Selection{}, ApplyOptions{})
	if c.Count != 1 || c.IDs[0] != good || !strings.Contains(c.Skipped[bad], "not authenticated") {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(b.got, []string{"s@x.example 1 b@y.example 20"}) {
		t.Errorf("bounced %q", b.got)
	}
	if got := r.show(bad); got.State != Queued {
		t.Errorf("what the bouncer refused is %s", got.State)
	}
	r.take().Done(nil)
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	r := start(t, testConfig(t.TempDir()), Deps{Registerer: prometheus.NewRegistry()})
	events, stop := r.Subscribe(t.Context())
	id := r.put(envelope("s@x.example", "a@y.example", "b@y.example"), "body")
	r.take().Done([]smtp.Result{result(0, smtp.Deferred, "busy"), result(1, smtp.Refused, "no")})
	r.Expedite("")
	r.take().Done([]smtp.Result{result(0, smtp.Delivered, "ok")})
	r.apply(Release, Selection{IDs: []string{id}}, ApplyOptions{})
	r.apply(Hold, Selection{IDs: []string{id}}, ApplyOptions{Reason: "why"})
	r.apply(Delete, Selection{IDs: []string{id}}, ApplyOptions{})
	for _, want := range []Kind{
		EventQueued, EventDeferred, EventRefused, EventDelivered, EventReleased, EventHeld, EventDeleted,
	} {
		select {
		case e := <-events:
			if e.Kind != want || e.ID != id || e.Sender != "s@x.example" {
				t.Errorf("event %+v, want %s", e, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no event %s", want)
		}
	}
	// A reader that does not read loses events and is told.
	for range watchBuffer + 5 {
		r.watchers.send(Event{Kind: EventQueued})
	}
	for range watchBuffer {
		<-events
	}
	r.watchers.send(Event{Kind: EventQueued})
	if e := <-events; e.Dropped != 5 {
		t.Errorf("%d dropped, want 5", e.Dropped)
	}
	stop()
	stop()
	if _, open := <-events; open {
		t.Error("the channel is open after stop")
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, _ = r.Subscribe(ctx)
	cancel()
	if _, open := <-events; open {
		t.Error("the channel is open after its context ended")
	}
	events, _ = r.Subscribe(t.Context())
	r.stop()
	if _, open := <-events; open {
		t.Error("the channel is open after the spool was closed")
	}
}

func TestBodyAccessIsGuarded(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	cfg.AllowBodyAccess = false
	r := start(t, cfg, Deps{})
	id := r.put(envelope("s@x.example", "a@y.example"), "body")
	if _, err := r.Body(t.Context(), id); !errors.Is(err, ErrBodyAccess) {
		t.Errorf("Body: %v", err)
	}
}

func TestExportImport(t *testing.T) {
	t.Parallel()
	r := start(t, testConfig(t.TempDir()), Deps{})
	bodies := map[string]string{}
	put := func(body string, rcpts ...string) string {
		id := r.put(envelope("s@x.example", rcpts...), body)
		bodies[id] = "Received: test\r\n" + body
		return id
	}
	partly := put("one", "a@y.example", "b@y.example", "c@y.example")
	r.take().Done([]smtp.Result{result(0, smtp.Delivered, "ok"), result(1, smtp.Deferred, "busy"), result(2, smtp.Refused, "no")})
	held := put(strings.Repeat("big", 60_000), "a@y.example")
	r.apply(Hold, Selection{IDs: []string{held}}, ApplyOptions{Reason: "look"})
	moved := put("three", "a@y.example")
	r.apply(Requeue, Selection{IDs: []string{moved}}, ApplyOptions{To: "smtp://b:25"})
	before, err := r.List(t.Context(), Selection{})
	if err != nil {
		t.Fatal(err)
	}
	var tape bytes.Buffer
	if n, err := r.Export(t.Context(), &tape, Selection{}); err != nil || n != 3 {
		t.Fatalf("exported %d, %v", n, err)
	}
	same := func(r *running, change Change) {
		t.Helper()
		for i, id := range change.IDs {
			a, b := r.show(id), before[i]
			if a.State != b.State || a.Reason != b.Reason || a.NextHop != b.NextHop || a.Attempts != b.Attempts ||
				a.LastError != b.LastError || !a.Received.Equal(b.Received) || a.SizeBytes != b.SizeBytes || a.Envelope.ID != id {
				t.Errorf("imported %+v\nexported %+v", a.Summary, b)
			}
			for j := range a.Recipients {
				x, y := a.Recipients[j], b.Recipients[j]
				if x.State != y.State || x.Text != y.Text || x.Attempts != y.Attempts || !x.At.Equal(y.At) {
					t.Errorf("imported %+v\nexported %+v", x, y)
				}
			}
			if got := r.body(id); got != bodies[b.ID] {
				t.Errorf("%s has %d bytes, want %d", id, len(got), len(bodies[b.ID]))
			}
		}
	}
	// Into another spool, where the ids are free, and once more, where they are taken.
	cfg := testConfig(t.TempDir())
	other := start(t, cfg, Deps{})
	first, err := other.Import(t.Context(), bytes.NewReader(tape.Bytes()))
	if err != nil || !slices.Equal(first.IDs, []string{partly, held, moved}) {
		t.Fatalf("%+v, %v", first, err)
	}
	same(other, first)
	if h := other.show(partly).History; len(h) != 3 || h[2].Status != "refused" || h[2].Recipient != "c@y.example" {
		t.Errorf("history %+v", h)
	}
	second, err := other.Import(t.Context(), bytes.NewReader(tape.Bytes()))
	if err != nil || second.Count != 3 || slices.Contains(second.IDs, partly) {
		t.Fatalf("%+v, %v", second, err)
	}
	same(other, second)
	// Deleted and imported again under its old id, it stays over a restart.
	other.apply(Delete, Selection{}, ApplyOptions{})
	if third, err := other.Import(t.Context(), bytes.NewReader(tape.Bytes())); err != nil || third.IDs[0] != partly {
		t.Fatalf("%+v, %v", third, err)
	}
	other.stop()
	other = start(t, cfg, Deps{})
	same(other, first)

	for name, bad := range map[string][]byte{
		"cut": tape.Bytes()[:tape.Len()/2], "not a tar": []byte(strings.Repeat("x", 2000)),
		"altered": bytes.Replace(tape.Bytes(), []byte(`"version":1`), []byte(`"version":9`), 1),
	} {
		if c, err := other.Import(t.Context(), bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: imported %+v", name, c)
		}
	}
}

// TestHundredThousand holds the operations to the promise of a second each. The
// bound is generous: the machine may be busy.
func TestHundredThousand(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores 100,000 messages")
	}
	n, bound := 100_000, 10*time.Second
	cfg := testConfig(t.TempDir())
	cfg.SegmentBytes = 64 << 20
	r := start(t, cfg, Deps{})
	r.fill(t, n)
	ctx := t.Context()
	timed := func(what string, want int, do func() (int, error)) {
		t.Helper()
		begin := time.Now()
		got, err := do()
		took := time.Since(begin)
		t.Logf("%-28s %7d messages in %v", what, got, took.Round(time.Millisecond))
		if err != nil || got != want || took > bound {
			t.Errorf("%s: %d of %d messages in %v: %v", what, got, want, took, err)
		}
	}
	list := func(sel Selection) func() (int, error) {
		return func() (int, error) {
			l, err := r.List(ctx, sel)
			return len(l), err
		}
	}
	apply := func(a Action, sel Selection, opt ApplyOptions) func() (int, error) {
		return func() (int, error) {
			c, err := r.Apply(ctx, a, sel, opt)
			return c.Count, err
		}
	}
	timed("list", n, list(Selection{}))
	timed("list by recipient", n/1000, list(Selection{Recipient: "user7@*"}))
	timed("list by domain", n/20, list(Selection{Domain: "domain3.example"}))
	timed("stats", n, func() (int, error) {
		st, err := r.Stats(ctx)
		if len(st.Domains) != 20 || st.Total.Total != n {
			err = fmt.Errorf("%d domains, total %d, %w", len(st.Domains), st.Total.Total, err)
		}
		return st.Messages, err
	})
	timed("hold", n, apply(Hold, Selection{}, ApplyOptions{}))
	timed("release", n, apply(Release, Selection{}, ApplyOptions{}))
	timed("flush", n, apply(Flush, Selection{}, ApplyOptions{}))
	timed("requeue to another hop", n, apply(Requeue, Selection{}, ApplyOptions{To: "smtp://b:25"}))
	timed("delete by domain", n/20, apply(Delete, Selection{Domain: "domain3.example"}, ApplyOptions{}))
	timed("expedite", 0, func() (int, error) { r.Expedite("smtp://b:25"); return 0, nil })
	var tape bytes.Buffer
	const some = 20_000
	timed("export", some, func() (int, error) { return r.Export(ctx, &tape, Selection{Limit: some}) })
	r.stop()
	timed("open", n-n/20, func() (int, error) {
		r = start(t, cfg, Deps{})
		return len(r.messages), nil
	})
	timed("delete", n-n/20, apply(Delete, Selection{}, ApplyOptions{}))
	timed("import", some, func() (int, error) {
		c, err := r.Import(ctx, &tape)
		return c.Count, err
	})
}
