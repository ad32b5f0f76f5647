package admin

import (
	"time"

	"understudy/smtp/queue"
)

// APIVersion is the newest protocol version this package speaks, MinAPIVersion
// the oldest.
const (
	APIVersion    = 1
	MinAPIVersion = 1
)

// VersionHeader carries the versions: a request lists those the caller speaks
// ("1, 2"), the answer names the one that was chosen. A request without it is
// taken as APIVersion.
const VersionHeader = "Understudy-Api-Version"

// Selection is queue.Selection on the wire. Durations are nanoseconds.
type Selection = queue.Selection

// ApplyRequest asks for an action on messages.
type ApplyRequest struct {
	Action    queue.Action `json:"action"`
	Selection Selection    `json:"selection"`
	// All must be set where the selection selects nothing in particular.
	All bool `json:"all,omitempty"`
	// KeepPaused lets a flush leave next hops that are paused or down alone; else
	// they are tried at once.
	KeepPaused bool `json:"keep_paused,omitempty"`
	queue.ApplyOptions
}

// ExportRequest asks for messages as a tar stream.
type ExportRequest struct {
	Selection Selection `json:"selection"`
	All       bool      `json:"all,omitempty"`
}

// FlushRequest asks for an attempt at once, and to be told what comes of it.
type FlushRequest struct {
	// Selection is narrowed to messages that are queued or active unless it names
	// ids or states.
	Selection Selection `json:"selection"`
	// KeepPaused leaves next hops that are paused or down alone; else they are
	// tried at once.
	KeepPaused bool `json:"keep_paused,omitempty"`
	// Retry flushes deferred messages again every few seconds until Timeout.
	Retry bool `json:"retry,omitempty"`
	// Timeout ends the wait, not the flush; nanoseconds, 0 is none (not with Retry).
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Outcome is how a message fared in a flush.
type Outcome string

// The outcomes.
const (
	OutcomeDelivered Outcome = "delivered" // to all its open recipients
	OutcomeDeferred  Outcome = "deferred"  // at least one recipient was put off
	OutcomeRefused   Outcome = "refused"   // by the next hop, for at least one recipient
	OutcomeHeld      Outcome = "held"      // by somebody or something, meanwhile
	OutcomeDeleted   Outcome = "deleted"   // or bounced, meanwhile
	OutcomeSkipped   Outcome = "skipped"   // could not be flushed; Text says why
	OutcomeWaiting   Outcome = "waiting"   // not attempted before the time-out
)

// FlushLine is one line of a flush's answer; exactly one field is set.
type FlushLine struct {
	Start    *FlushStart    `json:"start,omitempty"`
	Message  *FlushMessage  `json:"message,omitempty"`
	Progress *FlushProgress `json:"progress,omitempty"`
	End      *FlushSummary  `json:"end,omitempty"`
	Error    *Error         `json:"error,omitempty"`
}

// FlushStart is the first line.
type FlushStart struct {
	Total int   `json:"total"`
	Bytes int64 `json:"bytes"`
	// Resumed names the next hops that had been paused or down.
	Resumed []string `json:"resumed,omitempty"`
}

// FlushMessage is the outcome of one message.
type FlushMessage struct {
	ID        string  `json:"id"`
	Sender    string  `json:"sender"`
	SizeBytes int64   `json:"size_bytes"`
	Outcome   Outcome `json:"outcome"`
	// Final is false where another attempt is made within this flush.
	Final bool `json:"final"`
	// Text says why, where no recipient's answer does.
	Text       string           `json:"text,omitempty"`
	Recipients []FlushRecipient `json:"recipients,omitempty"`
}

// FlushRecipient is the next hop's answer for one recipient.
type FlushRecipient struct {
	Address  string  `json:"address"`
	Outcome  Outcome `json:"outcome"`
	Code     int     `json:"code,omitempty"`
	Enhanced string  `json:"enhanced,omitempty"`
	Text     string  `json:"text,omitempty"`
	Relay    string  `json:"relay,omitempty"`
}

// FlushProgress tells that the flush is alive when no message ended lately.
type FlushProgress struct {
	Done    int    `json:"done"`
	Total   int    `json:"total"`
	Waiting string `json:"waiting,omitempty"` // for what: "next hop x is down: ..."
}

// FlushSummary is the last line.
type FlushSummary struct {
	Total    int             `json:"total"`
	Outcomes map[Outcome]int `json:"outcomes"`
	// TimedOut says that the wait was ended by Timeout.
	TimedOut bool `json:"timed_out,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
}

// Delivered says whether every selected message was delivered.
func (s FlushSummary) Delivered() bool { return s.Outcomes[OutcomeDelivered] == s.Total }

// EventLine is one line of the event stream: an event, or why it ends.
type EventLine struct {
	Event *queue.Event `json:"event,omitempty"`
	Error *Error       `json:"error,omitempty"`
}

// SearchRequest looks into waiting mail.
type SearchRequest struct {
	// Selection's Recipient may be a bare local part.
	Selection Selection `json:"selection"`
	// Subject is a part of the decoded subject, without case.
	Subject string `json:"subject,omitempty"`
	// Text asks for the readable text of the body too.
	Text bool `json:"text,omitempty"`
}

// SearchLine is one line of a search's answer, newest message first; exactly one
// field is set.
type SearchLine struct {
	Hit   *SearchHit `json:"hit,omitempty"`
	End   *SearchEnd `json:"end,omitempty"`
	Error *Error     `json:"error,omitempty"`
}

// SearchHit is one message that matches. The header fields are decoded.
type SearchHit struct {
	queue.Summary
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Date    string `json:"date,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Text is the readable text, at most 64 KiB; Truncated says there was more.
	Text      string `json:"text,omitempty"`
	Truncated bool   `json:"truncated,omitempty"`
	// Problem says why the message could not be read.
	Problem string `json:"problem,omitempty"`
}

// SearchEnd is the last line: how many messages were opened and how many match.
type SearchEnd struct {
	Opened  int `json:"opened"`
	Matches int `json:"matches"`
}

// HopState is how the relay sees a next hop.
type HopState string

// The states of a next hop.
const (
	HopUp      HopState = "up"
	HopDown    HopState = "down"    // not reached; probed
	HopPaused  HopState = "paused"  // it refuses everything by policy; waits for an operator or a probe
	HopUnknown HopState = "unknown" // not used yet
)

// Hop is one next hop.
type Hop struct {
	// Name is stable and names it in Resume: "smtp://mx1.example.net:25".
	Name  string   `json:"name"`
	State HopState `json:"state"`
	// Reason is why it is not up, in the peer's words where there are any.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Checked is when it was last connected to or probed; NextProbe when that is
	// planned again.
	Checked   time.Time `json:"checked,omitzero"`
	NextProbe time.Time `json:"next_probe,omitzero"`
	// Connections are open now, of at most Limit.
	Connections int `json:"connections"`
	Limit       int `json:"limit,omitempty"`
}

// HopRequest names a next hop.
type HopRequest struct {
	Name string `json:"name"`
}

// RecipientRequest names an address.
type RecipientRequest struct {
	Address string `json:"address"`
}

// SourceRequest names a source of recipients.
type SourceRequest struct {
	Source string `json:"source"`
}

// RecipientAnswer says what RCPT is answered for an address, and why.
type RecipientAnswer struct {
	Address string `json:"address"`
	// Disposition is "exists", "unknown" or "unsure".
	Disposition string `json:"disposition"`
	// Reply is what the session would say: "550 5.1.1 ...".
	Reply string `json:"reply,omitempty"`
	// Reason is one sentence.
	Reason string `json:"reason"`
	// Audit says that the answer would only be logged.
	Audit   bool              `json:"audit,omitempty"`
	Sources []RecipientSource `json:"sources,omitempty"`
}

// RecipientSource is one source of recipients, and what it says of the address
// where one was asked about.
type RecipientSource struct {
	Name string `json:"name"`
	// Answer is "exists", "unknown", "unsure" or empty.
	Answer  string `json:"answer,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Entries int    `json:"entries,omitempty"`
	// Loaded is when its content was last known to be right; Stale says that this
	// is too long ago.
	Loaded time.Time `json:"loaded,omitzero"`
	Stale  bool      `json:"stale,omitempty"`
	// Pending says that a far smaller result waits for approval.
	Pending string `json:"pending,omitempty"`
	Error   string `json:"error,omitempty"`
}

// StatusReport is the daemon at a glance.
type StatusReport struct {
	Version string    `json:"version"`
	Site    string    `json:"site"`
	Active  string    `json:"active,omitempty"`
	Role    string    `json:"role,omitempty"`
	Epoch   uint64    `json:"epoch,omitempty"`
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`
	// Stopping says that the daemon finishes what it has begun.
	Stopping  bool              `json:"stopping,omitempty"`
	Listeners []Listener        `json:"listeners,omitempty"`
	Queue     *queue.Stats      `json:"queue,omitempty"`
	Hops      []Hop             `json:"hops,omitempty"`
	Sources   []RecipientSource `json:"recipient_sources,omitempty"`
	Alarms    []Alarm           `json:"alarms"`
	// Parts holds one line for every further part: "spam": "rspamd, in step".
	Parts map[string]string `json:"parts,omitempty"`
}

// Listener is one address the daemon accepts connections on.
type Listener struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Alarm is a condition somebody must look at.
type Alarm struct {
	Key   string    `json:"key"`
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
}
