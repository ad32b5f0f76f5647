// Package mailpair looks at two mailboxes with eyes that are not the
// synchroniser's: it fills them, reads them and compares them by go-imap's client
// and by bytes written by hand.
//
//	mailpair.Load(ctx, a.Addr, "eva", "INBOX", messages)
//	... a pass ...
//	left, err := mailpair.Read(ctx, a.Addr, "eva")
//	right, err := mailpair.Read(ctx, b.Addr, "eva")
//	for _, line := range mailpair.Diff(left, right) { t.Error(line) }
package mailpair
