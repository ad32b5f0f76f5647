// Package recipients knows who exists here, also while the primary is dead.
//
// A Directory unites sources: a file, a command's output (also Postfix's own
// maps), SQL, LDAP, a Redis set, and the primary's own SMTP server asked by
// callout. An address exists if any source has it. Each source has an age; the
// last good answer of each is kept in memory and on disk, so that a restart with
// everything dead still knows the recipients and how old that knowledge is.
//
// Invariants:
//
//   - Exact: the sets have no false positives and no false negatives.
//   - Unknown (550) is said only when every source is fresh and whole, or, by
//     when_stale: exact, when every source has been read at least once.
//   - A source that fails, is malformed or has lost many addresses at once never
//     replaces what it said before; it raises an alarm.
//
// Example:
//
//	d, err := recipients.New(cfg, recipients.Deps{Domains: domains, Logger: log, Alarms: alarms, Dir: dir})
//	go d.Run(ctx)
//	answer, err := d.Lookup(ctx, "user+list@example.com")
package recipients
