package queue

import (
	"errors"
	"time"

	"understudy/smtp"
)

// The errors of this package.
var (
	// ErrNotFound: there is no message with that queue id.
	ErrNotFound = errors.New("no such message in the queue")
	// ErrBodyAccess: reading bodies is off (allow_body_access).
	ErrBodyAccess = errors.New("reading message bodies is off: set queue.allow_body_access")
	// ErrDamaged: the stored bytes of a message do not match their checksum.
	ErrDamaged = errors.New("stored message is damaged")
	// ErrClosed: the spool has been closed.
	ErrClosed = errors.New("spool is closed")
)

// State is where a message stands in the queue.
type State string

// The states of a message.
const (
	// Queued: due, or waiting for its next attempt.
	Queued State = "queued"
	// Active: on loan to the relay.
	Active State = "active"
	// Held: kept until an operator decides (by hand, by a rule, by a filter's
	// verdict, because its lifetime has ended, or because it is damaged; Reason
	// says which).
	Held State = "held"
	// Refused: every open recipient was refused by the next hop.
	Refused State = "refused"
)

// RecipientState is where one recipient stands.
type RecipientState string

// The states of a recipient.
const (
	// RecipientPending: not delivered yet.
	RecipientPending RecipientState = "pending"
	// RecipientDelivered: the next hop took responsibility.
	RecipientDelivered RecipientState = "delivered"
	// RecipientRefused: the next hop said 5xx.
	RecipientRefused RecipientState = "refused"
)

// RecipientStatus is one recipient and the next hop's last words about it.
type RecipientStatus struct {
	Address string         `json:"address"`
	State   RecipientState `json:"state"`
	// Code, Enhanced, Text and Relay are as in smtp.Result; empty before the
	// first attempt.
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
	Relay    string `json:"relay,omitempty"`
	// At is when the last answer came; zero before the first attempt.
	At time.Time `json:"at,omitzero"`
	// Attempts counts the deferrals and the final answer.
	Attempts int `json:"attempts,omitempty"`
	// NextAttempt is when it is due again; zero where no attempt is planned.
	NextAttempt time.Time `json:"next_attempt,omitzero"`
}

// Summary is one line of a listing.
type Summary struct {
	ID         string            `json:"id"`
	Sender     string            `json:"sender"`
	Recipients []RecipientStatus `json:"recipients"`
	// SizeBytes is the length of the stored message, our trace header included.
	SizeBytes int64 `json:"size_bytes"`
	State     State `json:"state"`
	// Reason says why it is held.
	Reason   string    `json:"reason,omitempty"`
	Received time.Time `json:"received"`
	// Attempts is the largest number of attempts any recipient has had.
	Attempts int `json:"attempts"`
	// NextAttempt is when the first pending recipient is due; zero where no
	// attempt is planned (held, refused).
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	// LastError is the last answer that was not a delivery: "450 4.2.1 busy".
	LastError string `json:"last_error,omitempty"`
	// NextHop is where it goes: the hop it was requeued to, or where the view
	// points now.
	NextHop string `json:"next_hop,omitempty"`
}

// Attempt is one answer of a next hop for one recipient.
type Attempt struct {
	At        time.Time `json:"at"`
	Recipient string    `json:"recipient"`
	// Status is "sent", "deferred" or "refused".
	Status   string `json:"status"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
	Relay    string `json:"relay,omitempty"`
	TLS      string `json:"tls,omitempty"`
}

// Detail is everything known about one message besides its bytes.
type Detail struct {
	Summary
	Envelope *smtp.Envelope `json:"envelope"`
	// History lists the attempts, oldest first. It is bounded (the newest 16
	// are kept), and it survives restarts.
	History []Attempt `json:"history,omitempty"`
}

// Selection says which messages are meant. Every field that is set must match;
// the zero value matches every message. Text is compared without case.
type Selection struct {
	// IDs names messages outright.
	IDs []string `json:"ids,omitempty"`
	// Sender, Recipient and Domain are exact, or glob patterns with * and ?.
	// Sender "<>" is the null sender. Domain is that of a recipient.
	Sender    string `json:"sender,omitempty"`
	Recipient string `json:"recipient,omitempty"`
	Domain    string `json:"domain,omitempty"`
	// MinAge and MaxAge bound the time since the message was received.
	MinAge time.Duration `json:"min_age,omitempty"`
	MaxAge time.Duration `json:"max_age,omitempty"`
	// MinBytes and MaxBytes bound the size; MaxBytes 0 is no bound.
	MinBytes int64 `json:"min_bytes,omitempty"`
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// NextHop and Error are parts of Summary.NextHop and of the last error.
	NextHop string  `json:"next_hop,omitempty"`
	Error   string  `json:"error,omitempty"`
	States  []State `json:"states,omitempty"`
	// Limit bounds the number of messages, oldest first; 0 is no bound.
	Limit int `json:"limit,omitempty"`
}

// Action is what an operator does to messages.
type Action string

// The actions. Each is idempotent.
const (
	// Hold keeps the messages from being delivered until Release.
	Hold Action = "hold"
	// Release makes held and refused messages due now.
	Release Action = "release"
	// Flush makes queued messages due now.
	Flush Action = "flush"
	// Delete removes messages for ever; the sender is not told.
	Delete Action = "delete"
	// Requeue makes messages of any state due now as if they had just come in,
	// towards ApplyOptions.To where that is set.
	Requeue Action = "requeue"
	// Bounce gives messages to Deps.Bouncer and removes those it took.
	Bounce Action = "bounce"
)

// ApplyOptions refines an action.
type ApplyOptions struct {
	// DryRun reports what would change, and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
	// To is Requeue's next hop as a URL; empty is where the view points.
	To string `json:"to,omitempty"`
	// Reason is kept with Hold and is written to the log.
	Reason string `json:"reason,omitempty"`
}

// Change says what an action did.
type Change struct {
	// IDs lists the messages that are now as wanted, oldest first.
	IDs   []string `json:"ids"`
	Count int      `json:"count"`
	// Skipped gives a reason for each message that was named by id, or that
	// could not be changed.
	Skipped map[string]string `json:"skipped,omitempty"`
}

// Kind is what happened to a message.
type Kind string

// The kinds of events.
const (
	EventQueued    Kind = "queued"
	EventDelivered Kind = "delivered"
	EventDeferred  Kind = "deferred"
	EventRefused   Kind = "refused"
	EventHeld      Kind = "held"
	EventReleased  Kind = "released"
	EventFlushed   Kind = "flushed"
	EventRequeued  Kind = "requeued"
	EventDeleted   Kind = "deleted"
	EventBounced   Kind = "bounced"
	// EventRemoved: every recipient was delivered, the message has left the queue.
	EventRemoved Kind = "removed"
)

// Event is something that happened to a message, for those who watch.
type Event struct {
	Time      time.Time `json:"time"`
	Kind      Kind      `json:"kind"`
	ID        string    `json:"id"`
	Sender    string    `json:"sender"`
	Recipient string    `json:"recipient,omitempty"`
	SizeBytes int64     `json:"size_bytes,omitempty"`
	Code      int       `json:"code,omitempty"`
	Enhanced  string    `json:"enhanced,omitempty"`
	Text      string    `json:"text,omitempty"`
	Relay     string    `json:"relay,omitempty"`
	// Delay is the time from receipt to the event.
	Delay time.Duration `json:"delay,omitempty"`
	// Dropped is how many events this reader lost just before this one.
	Dropped int `json:"dropped,omitempty"`
}

// Stats is the queue at a glance.
type Stats struct {
	Messages   int   `json:"messages"`
	Bytes      int64 `json:"bytes"`
	Recipients int   `json:"recipients"`
	// States counts messages by state.
	States map[State]StateStats `json:"states"`
	// Oldest is the time of receipt of the oldest message; zero if there is none.
	Oldest time.Time `json:"oldest,omitzero"`
	// AgeBounds are the upper bounds of the columns of Domains; the last column
	// has no bound, so a row has one number more.
	AgeBounds []time.Duration `json:"age_bounds"`
	// Domains counts the open recipients by domain and age, biggest first. Total
	// is the sum of all rows.
	Domains []DomainStats `json:"domains"`
	Total   DomainStats   `json:"total"`
	// DiskBytes is what segments and spill files take; FreeBytes is what the
	// file system has left; ReserveBytes of that are kept.
	DiskBytes    int64 `json:"disk_bytes"`
	FreeBytes    int64 `json:"free_bytes"`
	ReserveBytes int64 `json:"reserve_bytes"`
}

// StateStats counts the messages in one state.
type StateStats struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// DomainStats is one row of the table by domain and age.
type DomainStats struct {
	Domain string `json:"domain"`
	Total  int    `json:"total"`
	Ages   []int  `json:"ages"`
}

// HoldRule holds every new message that it matches.
type HoldRule struct {
	// Sender and Domain are exact or glob, without case; at least one is set.
	// Domain is that of any recipient. Both set must both match.
	Sender string `json:"sender,omitempty"`
	Domain string `json:"domain,omitempty"`
	// Reason is shown with the messages it holds.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}
