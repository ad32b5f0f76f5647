// Package tunnel serves clients that arrived at the wrong site. A service has a
// public listener and a local target; the view decides, for every connection, who
// serves it: this site's target, or the other site's through the peer link.
//
// # The way through
//
//	client ── entry ══ peer link (us-tun/1) ══ exit ── target
//
// The entry takes a warm connection, writes one PROXY v2 header with the client's
// address, and passes bytes. The header's own fields name the service, the site
// the client entered at and the number of hops. The exit answers one byte: only an
// active site says yes, so two standbys never send a client in circles. Then it
// writes a PROXY header for its target, which logs the client's real address.
//
// # Invariants
//
//   - Where a connection goes is a pure function of the view (Decide).
//   - A client is never left hanging: it is served, or reset.
//   - What a client may cost is bounded: connections, idle time, stalled writes,
//     memory (1 KiB a direction while idle, 32 KiB borrowed while bytes flow).
//   - A client's own PROXY header is believed from listed networks only.
//
// # Use
//
//	t, err := tunnel.New(cfg, tunnel.Deps{Site: "b", View: view, Link: link})
//	err = t.Listen(ctx)
//	go func() { done <- t.Run(ctx) }()
//	feed.Subscribe(t.ViewChanged)
package tunnel
