// Package wire is IMAP as bytes: the client that the mailbox syncer needs. It
// knows nothing of pairs, plans or state, and speaks go-imap's value types
// (imap.UIDSet, imap.Flag, imap.Cap).
//
// A command is begun by one method call and answered by Wait; what is begun before
// the first Wait travels together:
//
//	c, err := wire.Dial(ctx, wire.Config{Address: "imaps://mx1.example.net"}, wire.Login{User: "eva", Secret: "..."})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	selected := c.Select("INBOX", wire.SelectOptions{ReadOnly: true})
//	fetched := c.Fetch(imap.UIDSet{{Start: 1}}, wire.Items{Flags: true}, func(m *wire.Message) error {
//		return use(m.UID, m.Flags)
//	})
//	box, err := selected.Wait(ctx)
//	_, err = fetched.Wait(ctx)
//
// # What it speaks
//
// IMAP4rev1 (RFC 3501) and what of IMAP4rev2 (RFC 9051) is also an extension:
// STARTTLS and TLS with pinned keys, SASL with an initial response (RFC 4959),
// ENABLE (RFC 5161), ID (RFC 2971), NAMESPACE (RFC 2342), LIST with RETURN
// (SUBSCRIBED SPECIAL-USE STATUS) (RFC 5258, 5819, 6154), CONDSTORE and QRESYNC (RFC
// 7162), ESEARCH (RFC 4731), UIDPLUS (RFC 4315), MOVE (RFC 6851), MULTIAPPEND (RFC
// 3502), LITERAL+ and LITERAL- (RFC 7888), APPENDLIMIT (RFC 7889), IDLE (RFC 2177),
// NOTIFY (RFC 5465), COMPRESS (RFC 4978), OBJECTID (RFC 8474), Dovecot's X-GUID,
// UTF8=ACCEPT (RFC 6855), ACL's MYRIGHTS (RFC 4314) and QUOTA (RFC 9208).
//
// # Invariants
//
//   - A message's body is a stream of known length. Wait fails unless a FETCH that was
//     answered OK delivered every byte that was announced.
//   - Data that nobody asked for never stands in for data that was: a Message says
//     which items the server sent in that response, and the caller merges by UID.
//   - Nothing of a mailbox name, flag or date reaches the server raw: each is encoded
//     here or refused. After BAD to a literal that was sent without asking, the
//     connection is dropped, because the server may read the rest as commands.
//   - Only UIDs are used, and only UID EXPUNGE: there is no EXPUNGE, CLOSE or plain MOVE
//     emulation to be called by mistake.
//   - Every read and write has a deadline and every buffer a bound; what a server says
//     beyond a bound ends the connection with ErrProtocol.
//   - Whatever was said before STARTTLS is forgotten.
//
// # Concurrency
//
// A Client belongs to one goroutine at a time; only Close may come from another. It
// starts none of its own.
package wire
