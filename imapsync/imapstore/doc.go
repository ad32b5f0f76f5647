// Package imapstore is imapsync.Store over IMAP: one side of one account on any
// standard server, by QRESYNC where it is offered, else by CONDSTORE, else by looking at
// everything.
//
//	store := imapstore.New(imapstore.Options{
//		Server: wire.Config{Address: "imaps://mx1.example.net"},
//		Login:  func() (wire.Login, error) { return wire.Login{User: "eva", Secret: secret}, nil },
//		Log:    log,
//	})
//	defer store.Close()
//	listing, err := store.List(ctx)
//
// # Invariants
//
//   - Only a server's clear answer becomes one of imapsync's sentinels; silence, a broken
//     connection, UNAVAILABLE and the like stay unknown.
//   - Nothing is expunged whose copy the server has not confirmed, and only by UID
//     EXPUNGE. Without UIDPLUS a message keeps \Deleted and is reported.
//   - A body goes out only if it has exactly the length that RFC822.SIZE says.
//   - VANISHED is believed only where it agrees with the number of messages; otherwise
//     the UIDs that exist are asked for.
//   - UIDVALIDITY is asked one round trip before anything is moved or expunged, and
//     looked at again when the mailbox opens.
//   - Memory: the metadata of what changed, and at most 4 MiB of small messages that
//     wait for the server's answer, so that one that is refused does not take its
//     batch along. Larger messages pass through a buffer of 32 KiB.
//
// # Fallbacks
//
//   - no QRESYNC: CHANGEDSINCE, and a search for the UIDs that exist
//   - no CONDSTORE: the flags of every message
//   - no MULTIAPPEND: single APPENDs into the open mailbox, pipelined
//   - no LITERAL+: each message waits for the server's go-ahead
//   - no MOVE: COPY, its OK, \Deleted, UID EXPUNGE
//   - no UIDPLUS: new UIDs are reported as unknown, to be found by content
//   - no LIST-STATUS: one STATUS a mailbox, pipelined
//
// # Concurrency
//
// As imapsync.Reader says: one call at a time. A Store starts no goroutine.
package imapstore
