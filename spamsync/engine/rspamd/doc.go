// Package rspamd asks Rspamd for a verdict: one POST to /checkv2 with the whole
// envelope in its headers and the message streamed as its body.
//
// Invariants:
//
//   - An answer that is not understood, late, too long or not 200 is an error,
//     never a verdict; an unknown action is an error too.
//   - "discard" is not obeyed: the message is quarantined, because what was
//     answered 250 is never dropped.
//   - What the answer says goes into replies and headers only as one line of
//     printable text, or as a folded field.
//
// What Rspamd asks of a mail server beyond the header (other recipients, another
// sender, another body) is left undone: the recipients have their answers.
//
// Example:
//
//	filter, err := rspamd.New(rspamd.Options{URLs: []string{"http://127.0.0.1:11333"}, Timeout: 30 * time.Second, Hostname: "mx2.example.com"})
//	verdict, err := filter.Check(ctx, envelope, body)
package rspamd
