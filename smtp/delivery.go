package smtp

import (
	"context"
	"io"
	"time"
)

// Outcome is what became of one recipient in one attempt.
type Outcome uint8

// The outcomes. The zero value is Deferred: a forgotten answer keeps the message.
const (
	// Deferred: not now (4xx, connection lost, anything unknown). It is tried again.
	Deferred Outcome = iota
	// Delivered: the next hop took responsibility with 2xx.
	Delivered
	// Refused: the next hop said 5xx about this recipient. It is kept as refused.
	Refused
)

// Result is the next hop's answer for one recipient.
type Result struct {
	// Recipient is the index into Envelope.Recipients.
	Recipient int `json:"rcpt"`
	// Outcome is how the queue acts on it.
	Outcome Outcome `json:"outcome"`
	// Code, Enhanced and Text are the next hop's own words; Code is 0 where it
	// said nothing (no connection, time-out), and Text then says why.
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
	// Relay names the host asked: "mx1.example.net[192.0.2.1]:25"; "none" where
	// nobody was reached.
	Relay string `json:"relay,omitempty"`
	// TLS describes the protection of that connection; empty is plain text.
	TLS string `json:"tls,omitempty"`
	// At is when the answer came.
	At time.Time `json:"at"`
}

// Delivery is one queued message on loan to the relay: its recipients that are
// due now. Whoever takes it must end it with Done, once, on every path.
type Delivery interface {
	// Envelope is shared and read-only.
	Envelope() *Envelope
	// Pending lists the indices of the recipients to deliver to.
	Pending() []int
	// Open returns the stored bytes, trace header included, and their number.
	// It may be called again for a new attempt within the loan.
	Open(ctx context.Context) (body io.ReadCloser, sizeBytes int64, err error)
	// Done records the results. A pending recipient without a result counts as
	// not attempted: it stays queued and due, without a back-off. Done does not
	// wait for the disk: a crash may repeat a delivery, never lose one.
	Done(results []Result)
}
