// Package spamd asks SpamAssassin's spamd for a verdict, by the SPAMC protocol.
//
// SpamAssassin knows the envelope only from the header. So the message is sent
// with lines in front that say what our own trace line will say: who connected,
// from where, and who the sender and the recipients are.
//
// Invariants:
//
//   - Without a whole answer with "Spam: True" or "Spam: False" and numbers there
//     is no verdict.
//   - SpamAssassin never defers; it rejects only from RejectScore on.
//
// Example:
//
//	filter, err := spamd.New(spamd.Options{Addresses: []string{"127.0.0.1:783"}, Timeout: time.Minute, Hostname: "mx2.example.com"})
//	verdict, err := filter.Check(ctx, envelope, body)
package spamd
