package queue

import (
	"context"
	"errors"
	"io"

	"understudy/smtp"
)

var errUnbuilt = errors.New("not built yet")

// Spool keeps accepted mail.
type Spool struct{}

var _ smtp.Queue = (*Spool)(nil)

// Bouncer writes delivery status notifications.
type Bouncer interface {
	// Bounce tells the sender of env that the recipients (those not delivered) have
	// failed. Nil: the notification is durably queued or must not be written (null
	// sender, NOTIFY=NEVER), and the message may be removed. An error: the message
	// stays. It may be called again for the same message.
	Bounce(ctx context.Context, env *smtp.Envelope, recipients []RecipientStatus, body io.Reader) error
}

// Open opens the spool in cfg.Dir: it takes the directory's lock and recovers.
func Open(cfg Config, deps Deps) (*Spool, error) { return nil, errUnbuilt }

// Run writes the log and keeps the spool in order until ctx ends. It must run
// for Commit, Apply and Take's results to make progress.
func (s *Spool) Run(ctx context.Context) error { return errUnbuilt }

// Close releases a spool that Run never ran for.
func (s *Spool) Close() error { return errUnbuilt }

// Room implements smtp.Queue.
func (s *Spool) Room(sizeBytes int64) error { return errUnbuilt }

// Create implements smtp.Queue.
func (s *Spool) Create(ctx context.Context, sizeHint int64) (smtp.Draft, error) {
	return nil, errUnbuilt
}

// Take waits until a message of route is due and lends out at most limit of
// them, oldest first. Route "" is where the view points; other routes are set by
// Requeue. It returns an empty slice only with ctx's error.
func (s *Spool) Take(ctx context.Context, route string, limit int) ([]smtp.Delivery, error) {
	return nil, errUnbuilt
}

// Expedite makes everything waiting for route due now, oldest first.
func (s *Spool) Expedite(route string) {}

// Routes lists the routes that have mail; "" is always among them, first.
func (s *Spool) Routes() []string { return nil }

// RoutesChanged returns a channel that is closed at the next change of Routes.
func (s *Spool) RoutesChanged() <-chan struct{} { return nil }

// List returns the selected messages, oldest first.
func (s *Spool) List(ctx context.Context, sel Selection) ([]Summary, error) { return nil, errUnbuilt }

// Show returns all about one message. ErrNotFound.
func (s *Spool) Show(ctx context.Context, id string) (Detail, error) { return Detail{}, errUnbuilt }

// Body returns the stored bytes of one message; the access is logged.
// ErrNotFound, ErrBodyAccess.
func (s *Spool) Body(ctx context.Context, id string) (io.ReadCloser, error) { return nil, errUnbuilt }

// Apply does action to the selected messages. Nil promises that the change is on
// disk; after an error Change says what was done before it.
func (s *Spool) Apply(ctx context.Context, action Action, sel Selection, opt ApplyOptions) (Change, error) {
	return Change{}, errUnbuilt
}

// Stats counts the queue.
func (s *Spool) Stats(ctx context.Context) (Stats, error) { return Stats{}, errUnbuilt }

// Subscribe returns what happens from now on. A slow reader loses events and is
// told how many (Event.Dropped). The channel is closed when ctx ends or by the
// returned function.
func (s *Spool) Subscribe(ctx context.Context) (<-chan Event, func()) { return nil, nil }

// HoldRules lists the rules.
func (s *Spool) HoldRules() []HoldRule { return nil }

// SetHoldRules replaces the rules, durably. They apply to new messages.
func (s *Spool) SetHoldRules(ctx context.Context, rules []HoldRule) error { return errUnbuilt }

// Export writes the selected messages as a tar stream: for each ID.json (its
// envelope and state) and ID.eml (its bytes). It returns how many.
func (s *Spool) Export(ctx context.Context, w io.Writer, sel Selection) (int, error) {
	return 0, errUnbuilt
}

// Import queues the messages of an exported stream. An id is kept unless it is
// taken. Change lists the ids they have now.
func (s *Spool) Import(ctx context.Context, r io.Reader) (Change, error) { return Change{}, errUnbuilt }

// Offline reads the spool of a daemon that is not running; it writes nothing.
type Offline struct{}

// OpenOffline reads the spool in dir.
func OpenOffline(dir string) (*Offline, error) { return nil, errUnbuilt }

// Close closes the files.
func (o *Offline) Close() error { return errUnbuilt }

// List returns the selected messages, oldest first.
func (o *Offline) List(ctx context.Context, sel Selection) ([]Summary, error) {
	return nil, errUnbuilt
}

// Show returns all about one message. ErrNotFound.
func (o *Offline) Show(ctx context.Context, id string) (Detail, error) { return Detail{}, errUnbuilt }

// Body returns the stored bytes of one message. ErrNotFound.
func (o *Offline) Body(ctx context.Context, id string) (io.ReadCloser, error) {
	return nil, errUnbuilt
}

// Export is as Spool.Export.
func (o *Offline) Export(ctx context.Context, w io.Writer, sel Selection) (int, error) {
	return 0, errUnbuilt
}
