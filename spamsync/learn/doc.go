// Package learn is the one way by which filters are taught: a durable queue of
// messages that people called spam or ham, and a worker that hands them to the
// configured engine.
//
// Invariants:
//
//   - What Add took is on disk; it is taught however long the engine, or the Redis
//     it writes to, is away or read-only.
//   - A message is taught once: copies have one digest, and what was taught is
//     remembered over restarts. Taught as the other class, the newest wins.
//   - The engine is not asked while its Redis refuses writes: learning into a
//     read-only Redis makes Rspamd's controller crash.
//   - Disk and memory are bounded; a full queue says so.
//
// One gap remains: after a crash between the engine's answer and its record here
// a message is handed over again. Engines know such copies and refuse them.
//
// Example:
//
//	q, err := learn.Open(cfg, learn.Deps{Dir: dir, Teacher: learn.NewRspamd(opt), Home: home, Alarms: alarms, Logger: logger})
//	added, err := q.Add(ctx, spamsync.Spam, message)
//	err = q.Run(ctx)
package learn
