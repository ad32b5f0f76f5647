// Package mailfiles finds messages in files: one message a file, a directory or
// Maildir of such, or an mbox.
//
// Invariants:
//
//   - A message is handed over as it is stored; in an mbox one ">" is taken off
//     quoted "From " lines (the form mboxrd).
//   - Memory is bounded by the longest message that is asked for; of a longer one
//     the beginning is handed over.
//
// Example:
//
//	err := mailfiles.Walk("/var/mail/junk", 4<<20, func(m mailfiles.Mail) error { return learn(m.Raw) })
package mailfiles
