// Package link is how the engines reach their servers: addresses, connections
// that end with their context and read a bounded amount, a list of servers with
// failover, and words of a server made fit for a log line or an SMTP reply.
//
// Invariants:
//
//   - Nothing here waits longer than its context allows.
//   - A server that failed is asked last until its rest is over, so that a hung
//     one costs few messages time.
//
// Example:
//
//	servers, err := link.NewServers([]string{"tcp://127.0.0.1:783", "/run/spamd.sock"}, time.Minute)
//	err = servers.Try(ctx, 10*time.Second, func(ctx context.Context, server string) error {
//		conn, err := link.Dial(ctx, server, 1<<20)
//		...
//	})
package link
