// Package queue is the spool: it keeps what the MX front has answered 250 for,
// decides when each recipient is tried again, and never loses a message.
//
// Spool implements smtp.Queue for the front, hands due messages to the relay
// (Take), and lets operators look and act (List, Show, Apply, Export ...).
//
// Invariants:
//
//   - Commit returns nil only after the message, its envelope and its first state
//     are synced: one record in the log, or a synced spill file and a record that
//     points to it.
//   - A message leaves the queue only when every recipient was delivered, when an
//     operator removes it, or by refused_expiry where that is configured. Age alone
//     holds it and raises an alarm.
//   - Results of deliveries are on disk within 50 ms. A crash before that repeats a
//     delivery; nothing ever loses one.
//   - A segment or spill file is removed only after the record that makes it
//     superfluous is synced.
//   - The bytes of messages that have left the queue leave the disk within
//     erase_after, also on a quiet machine.
//   - A message on loan is not lent twice; a crash ends every loan.
//
// DESIGN.md has the format on disk, the rules and the trade-offs.
//
//	spool, err := queue.Open(cfg, queue.Deps{Logger: log, Alarms: alarms})
//	...
//	go func() { ended <- spool.Run(ctx) }()
//	list, err := spool.Take(ctx, "", 16) // the relay: waits for due messages
//	for _, d := range list {
//		d.Done(deliver(d))
//	}
package queue
