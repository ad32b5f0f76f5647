// Package admin is how operators reach a running daemon: an HTTP API on a unix
// socket (Server, Client and the wire types between them) and a small web
// listener for monitoring (/metrics, /healthz, /readyz).
//
// It knows nothing about how mail is kept or carried. What it shows and changes
// it reaches through the small interfaces declared here: Queue, Importer, Rules,
// Hops, Recipients and Status. A part that is nil is answered "not_configured".
//
// Invariants:
//
//   - Who may open the socket may operate the queue; the socket's owner, group
//     and mode are the whole access control. It is bound under another name and
//     renamed into place, so it never exists with the wrong mode.
//   - Bodies are another matter: nothing that shows the content of a message
//     works until queue.allow_body_access is set, whoever asks.
//   - Every change and every access to a body writes one log line "audit" with
//     the kernel's word (SO_PEERCRED) on who asked, what, and how many messages.
//   - A request is decoded strictly: an unknown field, a second value, a body
//     over its bound or a wrong type is refused before anything is done.
//   - A change of more than one named message says so: an empty selection is an
//     error unless "all" is set.
//   - An answer that was cut short is recognisable: an array lacks its bracket, a
//     stream of lines lacks its last line ("end" or "error"), a tar its trailer.
//
// For example, to hold everything for one domain:
//
//	c := admin.NewClient("/run/understudy/admin.sock")
//	change, err := c.Apply(ctx, admin.ApplyRequest{
//		Action:    "hold",
//		Selection: admin.Selection{Domain: "example.com"},
//		Reason:    "legal asked",
//	})
package admin
