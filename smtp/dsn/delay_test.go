package dsn

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/smtp/queue"
	"understudy/smtp/queue/queuetest"
)

// waitingQueue holds messages by id.
type waitingQueue struct{ messages map[string]*smtp.Envelope }

func (w *waitingQueue) List(_ context.Context, sel queue.Selection) ([]queue.Summary, error) {
	var out []queue.Summary
	for id, env := range w.messages {
		if time.Since(env.Received) >= sel.MinAge {
			out = append(out, queue.Summary{ID: id, Sender: env.Sender})
		}
	}
	return out, nil
}

func (w *waitingQueue) Message(_ context.Context, id string) (*smtp.Envelope, []queue.RecipientStatus, io.ReadCloser, error) {
	env, ok := w.messages[id]
	if !ok {
		return nil, nil, nil, queue.ErrNotFound
	}
	return env, []queue.RecipientStatus{{Address: env.Recipients[0].Address, State: queue.RecipientPending}}, io.NopCloser(strings.NewReader(original)), nil
}

func (w *waitingQueue) GivesUp(env *smtp.Envelope) time.Time {
	return env.Received.Add(720 * time.Hour)
}

func TestDelaysTellEachSenderOnce(t *testing.T) {
	t.Parallel()
	message := func(age time.Duration, sender string) *smtp.Envelope {
		return &smtp.Envelope{Received: time.Now().Add(-age), Sender: sender, Recipients: []smtp.Recipient{{Address: "x@demo.example"}}}
	}
	w := &waitingQueue{messages: map[string]*smtp.Envelope{
		"old": message(5*time.Hour, "a@sender.example"), "young": message(time.Hour, "b@sender.example"), "null": message(5*time.Hour, ""),
	}}
	notes := queuetest.New()
	d := &Delays{
		Writer: &Writer{Hostname: "mx2.demo.example", Queue: notes, Auth: pass}, Queue: w, After: 4 * time.Hour,
		File: filepath.Join(t.TempDir(), "delays.json"), FS: durable.OS(), Log: slog.New(slog.DiscardHandler),
	}
	sweep := func(want int, when string) {
		t.Helper()
		if err := d.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(notes.Messages()); got != want {
			t.Fatalf("%s: %d notices, want %d", when, got, want)
		}
	}
	sweep(1, "first sweep")
	if to := notes.Messages()[0].Envelope.Recipients[0].Address; to != "a@sender.example" {
		t.Errorf("told %s", to)
	}
	sweep(1, "second sweep")

	restarted := *d
	restarted.done = nil
	d = &restarted
	if err := d.load(); err != nil {
		t.Fatal(err)
	}
	sweep(1, "after a restart")

	w.messages["young"].Received = time.Now().Add(-5 * time.Hour)
	sweep(2, "when the other has become old")

	// DNS away: asked again. Not vouched for: not asked again.
	d.Writer.Auth = verdict{err: auth.ErrUnknown}
	w.messages["third"] = message(5*time.Hour, "c@sender.example")
	sweep(2, "while DNS is away")
	d.Writer.Auth = verdict{}
	sweep(2, "not vouched for")
	d.Writer.Auth = pass
	sweep(2, "dealt with already")

	clear(w.messages)
	sweep(2, "empty queue")
	if len(d.done) != 0 {
		t.Errorf("remembers %v, which have left the queue", d.done)
	}
}

// Notices are a courtesy; a damaged list of those who were told must not end the
// daemon, and not tell them again either.
func TestDelaysWithoutTheirFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "delays.json")
	if err := durable.WriteFile(durable.OS(), file, 0o600, []byte("[\"rot")); err != nil {
		t.Fatal(err)
	}
	notes := queuetest.New()
	d := &Delays{
		Writer: &Writer{Hostname: "mx2.demo.example", Queue: notes, Auth: pass},
		Queue: &waitingQueue{messages: map[string]*smtp.Envelope{"old": {
			Received: time.Now().Add(-5 * time.Hour), Sender: "a@sender.example", Recipients: []smtp.Recipient{{Address: "x@demo.example"}},
		}}},
		After: time.Hour, File: file, FS: durable.OS(), Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := len(notes.Messages()); n != 0 {
		t.Errorf("%d notices", n)
	}
}
