package dsn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
	"understudy/smtp/queue"
)

// delaySweep is how often the queue is looked at for messages that wait.
const delaySweep = time.Minute

// maxNoticesBytes bounds the file of those who were told.
const maxNoticesBytes = 64 << 20

// Waiting is what Delays needs of the queue; *queue.Spool is one.
type Waiting interface {
	// List returns the selected messages.
	List(ctx context.Context, sel queue.Selection) ([]queue.Summary, error)
	// Message opens one; the caller closes the bytes.
	Message(ctx context.Context, id string) (*smtp.Envelope, []queue.RecipientStatus, io.ReadCloser, error)
	// GivesUp is when a message will have had its lifetime.
	GivesUp(env *smtp.Envelope) time.Time
}

// Delays tells senders, once a message, that it waits. Whom it has told, or may
// not tell, it keeps in a file, so that a restart tells nobody twice.
type Delays struct {
	Writer *Writer
	Queue  Waiting
	// After is the age at which a message counts as delayed.
	After time.Duration
	// File keeps the ids of the messages whose senders have been dealt with.
	File string
	FS   durable.FS
	Log  *slog.Logger

	done []string // sorted
}

// Run sweeps until ctx ends. While the file cannot be read nobody is told: without
// it senders would be told again, and accepting mail must not depend on it.
func (d *Delays) Run(ctx context.Context) error {
	if err := d.load(); err != nil {
		d.Log.Error("no delay notices: mend or remove the file, and restart", "file", d.File, "err", err)
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(delaySweep)
	defer tick.Stop()
	for {
		if err := d.sweep(ctx); err != nil && ctx.Err() == nil {
			d.Log.Warn("delay notices not written", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep deals with every message that has waited long enough and was not dealt
// with, and forgets those that have left the queue.
func (d *Delays) sweep(ctx context.Context) error {
	waiting, err := d.Queue.List(ctx, queue.Selection{
		MinAge: d.After, States: []queue.State{queue.Queued, queue.Active},
	})
	if err != nil {
		return fmt.Errorf("list waiting messages: %w", err)
	}
	before := d.done
	var still []string
	for _, m := range waiting {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, known := slices.BinarySearch(before, m.ID)
		if known || d.tell(ctx, m.ID) {
			still = append(still, m.ID)
		}
	}
	slices.Sort(still)
	if slices.Equal(still, before) {
		return nil
	}
	d.done = still
	return d.save()
}

// tell writes one notice. True: this message has been dealt with.
func (d *Delays) tell(ctx context.Context, id string) bool {
	env, recipients, body, err := d.Queue.Message(ctx, id)
	if err != nil {
		return false // gone or damaged
	}
	defer body.Close() //nolint:errcheck // only read from
	var pending []queue.RecipientStatus
	for _, rc := range recipients {
		if rc.State == queue.RecipientPending {
			pending = append(pending, rc)
		}
	}
	err = d.Writer.Delay(ctx, env, pending, d.Queue.GivesUp(env), body)
	switch {
	case err == nil:
		d.Log.Info("sender told of a delay", "queue_id", id, "from", env.Sender)
		return true
	case errors.Is(err, ErrUnauthenticated), errors.Is(err, ErrUnwanted):
		return true // and may not be told
	default:
		d.Log.Info("sender not told of a delay yet", "queue_id", id, "err", err)
		return false
	}
}

func (d *Delays) load() error {
	data, err := durable.ReadFile(d.FS, d.File, maxNoticesBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read who was told of delays: %w", err)
	}
	if err := json.Unmarshal(data, &d.done); err != nil {
		return fmt.Errorf("read who was told of delays in %s: %w", d.File, err)
	}
	slices.Sort(d.done)
	return nil
}

func (d *Delays) save() error {
	data, err := json.Marshal(d.done)
	if err != nil {
		return fmt.Errorf("encode who was told of delays: %w", err)
	}
	if err := durable.WriteFile(d.FS, d.File, 0o600, data); err != nil {
		return fmt.Errorf("keep who was told of delays: %w", err)
	}
	return nil
}
