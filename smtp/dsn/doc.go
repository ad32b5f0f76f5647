// Package dsn writes delivery status notifications (RFC 3464), rarely.
//
// A backup MX that tells strangers their mail failed is a spam cannon: the
// envelope sender of junk is forged. So a notification is written only where the
// sender is authenticated (SPF pass for MAIL FROM, or an aligned DKIM signature),
// never to the null sender, and only if NOTIFY asks for it or is absent
// (RFC 3461, section 4.1). Everything else stays in the queue as refused, with an
// alarm, until an operator decides.
//
// Writer implements queue.Bouncer. Watcher uses it for refused messages by
// itself, and writes delay notices where those are switched on.
package dsn
