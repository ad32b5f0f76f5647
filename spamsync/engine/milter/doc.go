// Package milter asks a chain of milters (Rspamd's proxy, OpenDKIM, ClamAV's
// milter ...) for a verdict, as a mail server does: envelope, macros, header and
// body in, an action and header changes out. Each milter sees the changes of those
// before it.
//
// Invariants:
//
//   - A milter that cannot be asked, or stops in the middle, is an error.
//   - "discard" is quarantine: what was answered 250 is never dropped.
//   - A milter that wants what cannot be done any more (other recipients, another
//     sender, another body) is an error, not half obeyed.
//   - All milters are asked after the end of the message, when the recipients have
//     their answers. A milter that refuses some of the recipients is not obeyed;
//     one that refuses all of them refuses the message.
//
// Example:
//
//	filter, err := milter.New(milter.Options{Addresses: []string{"inet:127.0.0.1:11332", "/run/opendkim.sock"}, Timeout: time.Minute, Hostname: "mx2.example.com"})
//	verdict, err := filter.Check(ctx, envelope, body)
package milter
