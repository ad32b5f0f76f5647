// Package probe asks whether a site's services work, as their users would: mail is
// delivered and read again, a page is fetched and looked at, a file is written and
// synced. An open port proves nothing.
//
// Invariants:
//
//   - Every probe ends by its own time limit, however the server behaves: hanging,
//     sending byte by byte, or sending without end.
//   - A failed probe has a reason that an operator understands, naming the probe.
//   - A probe leaves nothing behind but its own message, file or connection, and
//     deletes only the message it wrote itself.
//
// Example:
//
//	set, err := probe.New([]probe.Config{
//		{Kind: "smtp", Address: "mx1.example.net:25", Recipient: "probe@example.com"},
//		{Kind: "http", URL: "https://webmail.example.net/", Expect: "Welcome"},
//	})
//	err = set.Probe(ctx) // "smtp mx1.example.net:25: RCPT: 451 4.3.0 ..."
package probe
