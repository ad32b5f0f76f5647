// Package durable keeps promises about disks: a file-system seam through which
// crashes can be simulated, one lock per directory, atomic replacement of small
// files, and the segment log that the spool, the Redis journal and the learn
// queue share.
//
// # The log
//
// A log is a directory of append-only segment files. Many goroutines append; one
// writer gathers what arrived during the last sync into a batch, writes it with
// one call, syncs once and releases all waiters (group commit).
//
// Invariants:
//
//   - Append returns nil only after the record is synced, in a segment whose
//     header and directory entry are synced.
//   - A page that was synced is never written again: batches start on 4 KiB
//     boundaries, so a failed or torn write cannot damage an earlier promise.
//   - A failed write or sync poisons its segment; nothing is ever retried on the
//     same pages.
//   - Every record is bound to a random key of its segment and to its position: no
//     payload can pose as a record.
//   - Recovery never changes a segment, and recovering twice gives the same records.
//     It cuts only what no later batch follows; damage in the middle is copied to a
//     side file and reported, and everything after it is kept.
//
// DESIGN.md has the format and the reasons.
//
// # Use
//
//	log, err := durable.OpenLog(durable.LogConfig{Dir: dir, FS: durable.OS(), Name: "spool"})
//	report, err := log.Replay(durable.Pos{}, func(r durable.Record) error { return index(r) })
//	go func() { done <- log.Run(ctx) }()
//	pos, err := log.Append(ctx, 'M', header, body) // nil: it is on disk
package durable
