// Package auth answers who sent a message, by the methods that a receiver can
// check: SPF (RFC 7208) for the envelope sender, DKIM (RFC 6376) for the bytes,
// and the alignment of domains (RFC 7489, section 3.1) that ties both to a name.
//
// Invariants:
//
//   - A DNS failure is "unknown", an error that may be tried again; it is never
//     a pass and never a fail.
//   - Every look-up ends with its context.
//
// The question the queue asks before it writes to anybody:
//
//	ev, err := v.EnvelopeSender(ctx, auth.Sender{Addr: ip, HELO: helo, MailFrom: from}, message)
//	if err == nil && ev.Pass() { ... }
package auth
