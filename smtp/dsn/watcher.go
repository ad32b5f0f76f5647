package dsn

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"understudy/smtp/queue"
)

// Spool is what the Watcher needs of the queue; *queue.Spool is one.
type Spool interface {
	// List returns the selected messages.
	List(ctx context.Context, sel queue.Selection) ([]queue.Summary, error)
	// Show returns all about one message, or queue.ErrNotFound.
	Show(ctx context.Context, id string) (queue.Detail, error)
	// Apply does action to the selected messages.
	Apply(ctx context.Context, action queue.Action, sel queue.Selection, opt queue.ApplyOptions) (queue.Change, error)
	// Subscribe returns what happens from now on.
	Subscribe(ctx context.Context) (<-chan queue.Event, func())
}

// Watcher bounces refused messages by itself, where that is allowed: their
// senders are told and the messages leave the queue. What may not be bounced
// stays, and is asked about again a few times, for DNS may have been away.
type Watcher struct {
	Spool Spool
	Log   *slog.Logger
	// Settle is how long it waits after a refusal for others of the same message;
	// 0 is 1 s.
	Settle time.Duration

	tries map[string]try // messages that could not be bounced
}

// try is how often a message was asked about, and when to ask again.
type try struct {
	n    int
	next time.Time
}

// retries are the waits between the questions about one message; after the last
// one it is an operator's.
func retries() []time.Duration {
	return []time.Duration{10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}
}

// Run watches until ctx ends. Errors of single messages are logged, for the
// message stays where it is.
func (w *Watcher) Run(ctx context.Context) error {
	settle := w.Settle
	if settle <= 0 {
		settle = time.Second
	}
	w.tries = map[string]try{}
	events, stop := w.Spool.Subscribe(ctx)
	defer stop()
	timer := time.NewTimer(settle) // what was refused before the start
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-events:
			if !ok {
				return nil
			}
			if ev.Kind == queue.EventRefused || ev.Dropped > 0 {
				timer.Reset(settle)
			}
		case <-timer.C:
			if err := w.sweep(ctx); err != nil && ctx.Err() == nil {
				w.Log.Warn("refused messages not looked at", "err", err)
			}
			timer.Reset(retries()[0])
		}
	}
}

// sweep asks about every refused message whose time has come.
func (w *Watcher) sweep(ctx context.Context) error {
	refused, err := w.Spool.List(ctx, queue.Selection{States: []queue.State{queue.Refused}})
	if err != nil {
		return fmt.Errorf("list refused messages: %w", err)
	}
	now := time.Now()
	still := make(map[string]try, len(w.tries))
	for _, m := range refused {
		t := w.tries[m.ID]
		if m.Sender != "" && !now.Before(t.next) && t.n <= len(retries()) {
			if w.bounce(ctx, m.ID) {
				continue
			}
			if t.n < len(retries()) {
				t.next = now.Add(retries()[t.n])
			}
			t.n++
		}
		still[m.ID] = t
	}
	w.tries = still
	return ctx.Err()
}

// bounce returns whether the message has left the queue.
func (w *Watcher) bounce(ctx context.Context, id string) bool {
	d, err := w.Spool.Show(ctx, id)
	if err != nil || d.Envelope == nil {
		return false // gone, or damaged: an operator's
	}
	// An operator's bounce may remove what nobody wants to hear about; on its own
	// the daemon removes nothing silently.
	if len(wanted(failed, d.Envelope, d.Recipients)) == 0 {
		return false
	}
	ch, err := w.Spool.Apply(ctx, queue.Bounce,
		queue.Selection{IDs: []string{id}, States: []queue.State{queue.Refused}},
		queue.ApplyOptions{Reason: "refused by the next hop"})
	if err != nil {
		w.Log.Warn("refused message not returned to its sender", "queue_id", id, "err", err)
		return false
	}
	if why := ch.Skipped[id]; why != "" {
		w.Log.Info("refused message is kept", "queue_id", id, "reason", why)
		return false
	}
	return ch.Count > 0
}
