package admin

import (
	"context"
	"io"

	"understudy/smtp/queue"
)

// Queue is what operators see and change of the spool; *queue.Spool is the real
// one, Fake the one in memory. All methods may be called concurrently; all but
// Body and Subscribe may be retried.
type Queue interface {
	// List returns the selected messages, oldest first; nothing selected is an
	// empty list.
	List(ctx context.Context, sel queue.Selection) ([]queue.Summary, error)
	// Show returns all about one message, or queue.ErrNotFound.
	Show(ctx context.Context, id string) (queue.Detail, error)
	// Body returns the stored bytes; the caller closes it. queue.ErrNotFound,
	// queue.ErrBodyAccess.
	Body(ctx context.Context, id string) (io.ReadCloser, error)
	// Apply does action to the selected messages. Nil promises that the change is
	// on disk; after an error the Change says what was done before it.
	Apply(ctx context.Context, action queue.Action, sel queue.Selection, opt queue.ApplyOptions) (queue.Change, error)
	// Stats counts the queue.
	Stats(ctx context.Context) (queue.Stats, error)
	// Subscribe returns what happens from now on; a slow reader loses events and
	// is told. The channel is closed when ctx ends or by the returned function.
	Subscribe(ctx context.Context) (<-chan queue.Event, func())
}

// Archive moves messages between spools. Methods may be called concurrently.
type Archive interface {
	// Export writes the selected messages as a tar stream and returns how many.
	// After an error the stream has no trailer.
	Export(ctx context.Context, w io.Writer, sel queue.Selection) (int, error)
	// Import queues the messages of such a stream. After an error Change lists
	// those that were queued before it. Repeating it queues them again.
	Import(ctx context.Context, r io.Reader) (queue.Change, error)
}

// Rules are the persistent hold rules. Methods may be called concurrently.
type Rules interface {
	// HoldRules lists them.
	HoldRules() []queue.HoldRule
	// SetHoldRules replaces them; nil promises that they are on disk.
	SetHoldRules(ctx context.Context, rules []queue.HoldRule) error
}

// Hops are the next hops the relay knows. Methods may be called concurrently and
// retried.
type Hops interface {
	// Hops returns the state of every next hop that has been used.
	Hops(ctx context.Context) ([]Hop, error)
	// Resume ends a hop's pause or back-off: it is tried at once. An unknown name
	// is a NotFound.
	Resume(ctx context.Context, name string) error
}

// Recipients explains who exists here. Methods may be called concurrently and
// retried.
type Recipients interface {
	// Explain says what RCPT would be answered for address, and why.
	Explain(ctx context.Context, address string) (RecipientAnswer, error)
	// Approve believes a source's last result although it is far smaller than the
	// one before. An unknown source is a NotFound; one that waits for no approval
	// is a Conflict.
	Approve(ctx context.Context, source string) error
}

// Status describes the whole daemon. It may be called concurrently and retried.
type Status interface {
	// Status returns the state of this moment.
	Status(ctx context.Context) (StatusReport, error)
}

// Check is one condition of /readyz.
type Check struct {
	// Name is short and stable: "spool", "smtp_listener".
	Name string
	// Ready returns nil where the condition holds. It must answer within a second
	// or when ctx ends, and may be called concurrently.
	Ready func(ctx context.Context) error
}
