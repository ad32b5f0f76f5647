// Package stream reads what a Redis server tells its replicas: the commands that
// changed it, each with the exact bytes it occupies in the server's history.
//
// A history is named by a replication id, and a place in it by an offset: the
// number of bytes before it (INFO's master_repl_offset, and one less than what
// PSYNC and second_repl_offset count). A Point is both. A server that was promoted
// goes on counting under a new id, so a point of the old id is a point of the new
// one up to the fork.
//
// Invariants:
//
//   - No byte is lost between the reply to PSYNC and the first command: one buffer
//     serves both.
//   - Offsets count every byte: PING, SELECT, MULTI, EXEC and bare newlines too.
//   - A Conn never receives a data set: a server that can only offer a full
//     resynchronisation gets its connection closed, and the caller a
//     FullResyncError with the point where the server is now.
//   - Lengths come from outside: nothing is allocated before its bytes arrived,
//     and a command beyond the limit ends the reading with ErrProtocol.
//
// For example:
//
//	c, err := stream.Dial(ctx, stream.Options{Addr: "127.0.0.1:6379"})
//	reached, err := c.Psync(ctx, fork) // errors.Is(err, stream.ErrNotCovered): ask the journal
//	for {
//		cmd, err := c.Next(ctx)
//		...
//		err = c.Ack(cmd.End)
//	}
package stream
