// Package storetest is the conformance suite of imapsync.Store, and Server, an
// account in memory that passes it.
//
//	storetest.Run(t, func(t *testing.T) imapsync.Store { return storetest.NewServer(storetest.Features{}).Store() })
//
// Server also plays what real servers lack or break (Features), lets a test act as
// another mail program (Append, Flag, Move ...), and cuts calls before or after
// their effect (Server.Cut).
package storetest
