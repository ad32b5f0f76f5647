package imapsync

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// What Pass and Open return besides errors of the stores.
var (
	// ErrBusy: another runner works on this account (lock file, or a lease on the servers).
	ErrBusy = errors.New("another runner is at work on this account")
	// ErrNoHold: there is no hold with this id.
	ErrNoHold = errors.New("no such hold")
	// ErrState: the file of the base cannot be read; move it away to pair again by content.
	ErrState = errors.New("base is damaged")
)

// Sides are the two stores of an account.
type Sides struct{ A, B Store }

// Deps is what an Account needs besides its configuration. Every field may be zero.
type Deps struct {
	Logger *slog.Logger
	Now    func() time.Time
}

// Status is what the base knows without asking any server.
type Status struct {
	LastPass   time.Time `json:"last_pass"`  // end of the last pass that reached both sides
	LastClean  time.Time `json:"last_clean"` // end of the last pass that left both sides equal
	LastError  string    `json:"last_error,omitempty"`
	Messages   int       `json:"messages"` // pairs
	Folders    int       `json:"folders"`
	Generation uint64    `json:"generation"`
	Pending    int       `json:"pending"`   // intents without a confirmation
	Refused    int       `json:"refused"`   // messages a server does not take
	Conflicts  uint64    `json:"conflicts"` // decided so far
	Holds      []Hold    `json:"holds,omitempty"`
}

// Passer is what runs an account; *Account implements it.
type Passer interface {
	// Pass makes both sides converge once. The error is nil when both sides were
	// reached and the base was saved: Report.Clean says whether they are equal.
	// ErrBusy: nothing was done. Anything else: a store failed; what was done is
	// saved, the next pass goes on from there.
	Pass(ctx context.Context, sides Sides, opt PassOptions) (Report, error)
	// Status reads the base.
	Status() (Status, error)
	// Holds lists what waits.
	Holds() ([]Hold, error)
	// Approve lets the next pass delete; Reject lets it put the messages back. An
	// empty id means all.
	Approve(id string) error
	Reject(id string) error
}
