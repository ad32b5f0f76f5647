// Package smtp is the MX front: it decides, inside the SMTP session, which mail
// this site takes responsibility for.
//
// It holds the session policy (which domains, which recipients, which limits),
// the words every later stage speaks (Envelope, Verdict, Delivery, Result) and
// the interfaces it consumes: Recipients, Filter and Queue. Bytes on the wire
// belong to smtp/wire, storage to smtp/queue, delivery to smtp/relay.
//
// Invariants:
//
//   - 250 to end-of-data is sent only after Draft.Commit returned nil, which
//     promises that the message is on disk and synced.
//   - What can be refused is refused in the session; nothing is bounced later
//     to a stranger.
//   - An error nobody gave a code to is 451 4.3.0, never 5xx: unknown is not
//     "no".
//
// A Front is the backend of a strict server:
//
//	front, err := smtp.NewFront(cfg, smtp.Deps{Hostname: name, Domains: ours, Recipients: people, Queue: spool, Logger: log})
//	server, err := wire.NewServer(wireConfig, name, tlsConfig, front, log)
//	err = server.Serve(ctx, listener)
package smtp
