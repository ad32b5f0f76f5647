// Package journal keeps on disk what happened to a Redis server: it follows the
// server as a replica that takes no data set, and writes the stream of commands,
// byte by byte, to a segment log. Redis keeps the same in its backlog, but in
// memory, and only so much.
//
// Invariants:
//
//   - What was acknowledged to the server is synced here.
//   - A run is an unbroken piece of one history. Where the server went on after a
//     restart from an older place, the new run says so; where bytes are missing, the
//     journal has a gap, and Open never reads across one.
//   - It is bounded by size and age: the oldest segments go first.
//   - A journal that cannot write says so and stops following; it never hinders
//     the server.
//
// For example:
//
//	j, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 512 << 20, MaxAge: 168 * time.Hour}, ...)
//	go func() { done <- j.Run(ctx, stream.Options{Addr: "127.0.0.1:6379"}) }()
//	it, err := j.Open(ctx, fork, stream.Point{}) // errors.Is(err, stream.ErrNotCovered): a *GapError
package journal
