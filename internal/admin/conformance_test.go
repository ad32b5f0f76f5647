package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/smtp/queue"
)

// world is an implementation of this package's interfaces to the spool, with a
// way to put mail in.
type world struct {
	Queue
	Archive
	Rules
	add func(t *testing.T, sender, rcpt, body string) (id string)
}

// TestQueueConformance holds the real spool and the fake to the same promises.
func TestQueueConformance(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) world{"fake": fakeWorld, "spool": spoolWorld} {
		for what, check := range map[string]func(*testing.T, world){
			"select": checkSelect, "change": checkChange, "events": checkEvents, "rules": checkRules, "archive": checkArchive,
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				check(t, open(t))
			})
		}
	}
}

func fakeWorld(*testing.T) world {
	f := &Fake{}
	n := 0
	return world{Queue: f, Archive: f, Rules: f, add: func(_ *testing.T, sender, rcpt, body string) string {
		n++
		id := fmt.Sprintf("F%04d", n)
		f.Add(queue.Summary{ID: id, Sender: sender, Recipients: []queue.RecipientStatus{{Address: rcpt}}}, []byte(body))
		return id
	}}
}

func spoolWorld(t *testing.T) world {
	t.Helper()
	cfg := queue.DefaultConfig()
	cfg.Dir, cfg.AllowBodyAccess, cfg.ReserveBytes = t.TempDir(), true, 0
	cfg.SegmentBytes, cfg.SpillBytes, cfg.MemoryBytes = 1<<20, 64<<10, 1<<20
	s, err := queue.Open(cfg, queue.Deps{NextHop: func() string { return "smtp://mx1.example.net:25" }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("spool: %v", err)
		}
	})
	return world{Queue: s, Archive: s, Rules: s, add: func(t *testing.T, sender, rcpt, body string) string {
		t.Helper()
		d, err := s.Create(t.Context(), int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(d, body); err != nil {
			t.Fatal(err)
		}
		env := &smtp.Envelope{
			Received: time.Now(), Sender: sender, Recipients: []smtp.Recipient{{Address: rcpt}},
			Client: smtp.Client{Addr: netip.MustParseAddrPort("192.0.2.9:25")},
		}
		if err := d.Commit(t.Context(), env, nil); err != nil {
			t.Fatal(err)
		}
		return d.ID()
	}}
}

// ids lists what sel selects.
func (w world) ids(t *testing.T, sel Selection) []string {
	t.Helper()
	list, err := w.List(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, m := range list {
		out = append(out, m.ID)
	}
	return out
}

func checkSelect(t *testing.T, w world) {
	t.Helper()
	if got := w.ids(t, Selection{}); len(got) != 0 {
		t.Errorf("empty queue: %v", got)
	}
	a := w.add(t, "ann@example.org", "jane@example.com", "Subject: a\r\n\r\nA\r\n")
	b := w.add(t, "", "joe@example.net", "Subject: b\r\n\r\nB\r\n"+strings.Repeat("x", 5000)+"\r\n")
	c := w.add(t, "Bob@Example.ORG", "Jane@sub.example.com", "Subject: c\r\n\r\nC\r\n")
	for _, tt := range []struct {
		name string
		sel  Selection
		want []string
	}{
		{"all, oldest first", Selection{}, []string{a, b, c}},
		{"ids", Selection{IDs: []string{c, a}}, []string{a, c}},
		{"unknown id", Selection{IDs: []string{"X9"}}, []string{}},
		{"sender", Selection{Sender: "bob@example.org"}, []string{c}},
		{"sender pattern", Selection{Sender: "*@example.org"}, []string{a, c}},
		{"null sender", Selection{Sender: "<>"}, []string{b}},
		{"recipient pattern", Selection{Recipient: "JANE@*"}, []string{a, c}},
		{"domain", Selection{Domain: "example.com"}, []string{a}},
		{"domain pattern", Selection{Domain: "*.example.com"}, []string{c}},
		{"size", Selection{MinBytes: 4096}, []string{b}},
		{"small", Selection{MaxBytes: 4096}, []string{a, c}},
		{"old", Selection{MinAge: time.Hour}, []string{}},
		{"young", Selection{MaxAge: time.Hour}, []string{a, b, c}},
		{"limit", Selection{Limit: 2}, []string{a, b}},
		{"state", Selection{States: []queue.State{queue.Queued}}, []string{a, b, c}},
		{"other state", Selection{States: []queue.State{queue.Held, queue.Refused}}, []string{}},
		{"error", Selection{Error: "busy"}, []string{}},
		{"all must match", Selection{Sender: "*@example.org", Domain: "example.com"}, []string{a}},
	} {
		if diff := cmp.Diff(tt.want, w.ids(t, tt.sel)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	d, err := w.Show(t.Context(), a)
	if err != nil || d.ID != a || d.Envelope == nil || d.Envelope.Sender != "ann@example.org" || d.SizeBytes == 0 {
		t.Errorf("show: %+v, %v", d, err)
	}
	if _, err := w.Show(t.Context(), "X9"); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("show of nothing: %v", err)
	}
	if _, err := w.Body(t.Context(), "X9"); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("body of nothing: %v", err)
	}
	body, err := w.Body(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil || body.Close() != nil || !bytes.HasPrefix(data, []byte("Subject: b\r\n\r\nB\r\nxxx")) || len(data) != 5019 {
		t.Errorf("body of %d bytes, %v", len(data), err)
	}
	st, err := w.Stats(t.Context())
	if err != nil || st.Messages != 3 || st.Recipients != 3 || st.States[queue.Queued].Messages != 3 || len(st.Total.Ages) != len(st.AgeBounds)+1 || st.Total.Total != 3 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.List(canceled, Selection{}); !errors.Is(err, context.Canceled) {
		t.Errorf("list for a caller that left: %v", err)
	}
}

func checkChange(t *testing.T, w world) {
	t.Helper()
	a := w.add(t, "ann@example.org", "jane@example.com", "A\r\n")
	b := w.add(t, "ann@example.org", "joe@example.com", "B\r\n")
	apply := func(action queue.Action, sel Selection, opt queue.ApplyOptions) queue.Change {
		t.Helper()
		ch, err := w.Apply(t.Context(), action, sel, opt)
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		if ch.Count != len(ch.IDs) {
			t.Errorf("%s: count %d, ids %v", action, ch.Count, ch.IDs)
		}
		return ch
	}
	held := Selection{States: []queue.State{queue.Held}}
	if ch := apply(queue.Hold, Selection{}, queue.ApplyOptions{DryRun: true}); ch.Count != 2 || len(w.ids(t, held)) != 0 {
		t.Errorf("dry run: %+v, held %v", ch, w.ids(t, held))
	}
	for range 2 { // twice is the same
		ch := apply(queue.Hold, Selection{IDs: []string{a, "X9"}}, queue.ApplyOptions{Reason: "legal"})
		if !slices.Equal(ch.IDs, []string{a}) || len(ch.Skipped) != 1 || ch.Skipped["X9"] == "" {
			t.Errorf("hold: %+v", ch)
		}
	}
	d, err := w.Show(t.Context(), a)
	if err != nil || d.State != queue.Held || !strings.Contains(d.Reason, "legal") {
		t.Errorf("held: %+v, %v", d.Summary, err)
	}
	if ch := apply(queue.Flush, Selection{IDs: []string{a, b}}, queue.ApplyOptions{}); !slices.Equal(ch.IDs, []string{b}) || ch.Skipped[a] == "" {
		t.Errorf("flush of a held message: %+v", ch)
	}
	if ch := apply(queue.Release, Selection{IDs: []string{a}}, queue.ApplyOptions{}); ch.Count != 1 || len(w.ids(t, held)) != 0 {
		t.Errorf("release: %+v", ch)
	}
	if ch := apply(queue.Requeue, Selection{IDs: []string{a}}, queue.ApplyOptions{To: "smtp://mx3.example.net:25"}); ch.Count != 1 {
		t.Errorf("requeue: %+v", ch)
	}
	if d, err := w.Show(t.Context(), a); err != nil || d.NextHop != "smtp://mx3.example.net:25" {
		t.Errorf("requeued: %+v, %v", d.Summary, err)
	}
	if ch := apply(queue.Delete, Selection{Domain: "example.com"}, queue.ApplyOptions{}); ch.Count != 2 || len(w.ids(t, Selection{})) != 0 {
		t.Errorf("delete: %+v", ch)
	}
	if ch := apply(queue.Delete, Selection{}, queue.ApplyOptions{}); ch.Count != 0 || ch.IDs == nil {
		t.Errorf("delete of nothing: %+v; ids must be a list", ch)
	}
	if _, err := w.Apply(t.Context(), "eat", Selection{}, queue.ApplyOptions{}); err == nil {
		t.Error("an unknown action is done")
	}
}

func checkEvents(t *testing.T, w world) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, stop := w.Subscribe(ctx)
	id := w.add(t, "ann@example.org", "jane@example.com", "A\r\n")
	for _, a := range []queue.Action{queue.Hold, queue.Release, queue.Flush, queue.Requeue, queue.Delete} {
		if _, err := w.Apply(ctx, a, Selection{IDs: []string{id}}, queue.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := []queue.Kind{queue.EventQueued, queue.EventHeld, queue.EventReleased, queue.EventFlushed, queue.EventRequeued, queue.EventDeleted}
	for _, k := range want {
		select {
		case ev := <-events:
			if ev.Kind != k || ev.ID != id || ev.Time.IsZero() {
				t.Errorf("event %+v, want %s of %s", ev, k, id)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no event %s", k)
		}
	}
	stop()
	if _, open := <-events; open {
		t.Error("the channel is open after the end of the subscription")
	}
	stop() // twice does no harm
	other, stopOther := w.Subscribe(ctx)
	defer stopOther()
	cancel()
	select {
	case _, open := <-other:
		if open {
			t.Error("an event after the end of the context")
		}
	case <-time.After(10 * time.Second):
		t.Error("the channel outlives the context")
	}
}

func checkRules(t *testing.T, w world) {
	t.Helper()
	if got := w.HoldRules(); len(got) != 0 {
		t.Errorf("rules at first: %v", got)
	}
	rules := []queue.HoldRule{{Domain: "example.com", Reason: "migration"}, {Sender: "*@example.org"}}
	if err := w.SetHoldRules(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	got := w.HoldRules()
	for i := range got {
		got[i].Since = time.Time{}
	}
	if diff := cmp.Diff(rules, got); diff != "" {
		t.Error(diff)
	}
	if err := w.SetHoldRules(t.Context(), nil); err != nil || len(w.HoldRules()) != 0 {
		t.Errorf("rules removed: %v, %v", w.HoldRules(), err)
	}
}

func checkArchive(t *testing.T, w world) {
	t.Helper()
	bodies := map[string]string{}
	for i := range 3 {
		body := fmt.Sprintf("Subject: %d\r\n\r\n.\r\n\xff%d no newline", i, i)
		bodies[w.add(t, "ann@example.org", "jane@example.com", body)] = body
	}
	var tar bytes.Buffer
	if n, err := w.Export(t.Context(), &tar, Selection{}); err != nil || n != 3 {
		t.Fatalf("exported %d, %v", n, err)
	}
	if _, err := w.Apply(t.Context(), queue.Delete, Selection{}, queue.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	whole := tar.Bytes()
	if _, err := w.Import(t.Context(), bytes.NewReader(whole[:len(whole)/2])); err == nil {
		t.Error("half an archive is imported without an error")
	}
	if _, err := w.Apply(t.Context(), queue.Delete, Selection{}, queue.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	ch, err := w.Import(t.Context(), bytes.NewReader(whole))
	if err != nil || ch.Count != 3 {
		t.Fatalf("import: %+v, %v", ch, err)
	}
	got := map[string]string{}
	for _, id := range w.ids(t, Selection{}) {
		r, err := w.Body(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || r.Close() != nil {
			t.Error(err)
		}
		got[id] = string(data)
	}
	if len(got) != 3 {
		t.Fatalf("%d messages after the import", len(got))
	}
	for id, body := range bodies {
		if have, ok := got[id]; ok && have != body {
			t.Errorf("%s is %q, was %q", id, have, body)
		} else if !ok && !slices.Contains(slices.Collect(maps.Values(got)), body) {
			t.Errorf("the body of %s is lost", id)
		}
	}
}
