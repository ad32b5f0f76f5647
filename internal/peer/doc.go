// Package peer is the link between the two sites: who the other site is, one
// port, and everything that passes between them.
//
// Each site has one ed25519 key. The other site knows it by its pin, the SHA-256
// of the public key, written into its configuration by an operator who carried
// the pairing string across. There is no certificate authority and no expiry: the
// dates in a certificate are ignored, so neither a wrong clock nor a forgotten
// renewal can cut the link.
//
// # Connections
//
// All connections are TLS 1.3 to one port; ALPN names the service (RPC, Tunnel,
// Redis, IMAP, ...). A server answers a new connection with one byte, so that the
// client knows that its key was accepted and that somebody serves the service.
// Either site may dial. A site that cannot be reached itself (behind NAT) keeps
// spare connections open towards the other one, which uses them as if it had
// dialled.
//
// # RPC
//
// On a connection of the service RPC both sides ask and answer: Handle registers
// what this site answers, Call asks the other. One such connection in either
// direction is enough. It also measures the round trip, the difference of the
// clocks, and compares the configurations. The link is up while an RPC connection
// has been heard within Config.Silence.
//
// # Invariants
//
//   - No byte of a service is exchanged before both keys have been checked, also
//     when a session is resumed.
//   - Connections of a key whose pin is taken away are closed at once.
//   - A call's outcome is an answer, ErrDown (it was never sent), or ErrLost (it
//     may have been carried out). A silent peer is unknown, not dead.
//   - Everything has a bound: time for a handshake, bytes of a frame, connections.
//
// # Use
//
//	link, err := peer.New(cfg, peer.Deps{Site: "b", Key: key, Logger: log})
//	peer.HandleJSON(link, "failover.promise", func(ctx context.Context, in Ask) (Promise, error) { ... })
//	err = link.Listen(ctx)
//	go func() { done <- link.Run(ctx) }()
//	err = link.Call(ctx, "failover.promise", Ask{Epoch: 7}, &promise)
//	conn, err := link.Dial(ctx, peer.Redis)
package peer
