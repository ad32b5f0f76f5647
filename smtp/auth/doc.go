// Package auth answers who sent a message, by the methods that a receiver can
// check: SPF (RFC 7208) for the envelope sender, DKIM (RFC 6376) for the bytes,
// DMARC (RFC 7489) for the name a reader sees, and ARC (RFC 8617) for what servers
// on the way vouch for. Results formats it all (RFC 8601).
//
// Invariants:
//
//   - A DNS failure is "unknown", an error that may be tried again; it is never
//     a pass and never a fail.
//   - Every look-up ends with its context.
//   - What a message makes us compute is bounded: signatures, signed names,
//     fields, header and key sizes.
//
// The question the queue asks before it writes to anybody:
//
//	ev, err := v.EnvelopeSender(ctx, auth.Sender{Addr: ip, HELO: helo, MailFrom: from}, message)
//	if err == nil && ev.Pass() { ... }
package auth
