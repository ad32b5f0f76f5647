// Package accounts knows whose mailboxes are kept equal, and how to log in for
// each of them at either site.
//
// Accounts come from files, a program or a database. A list counts only when it
// is whole: a program that fails after half of it has given none. An account
// that is not in the list is not synchronised; nothing is ever deleted for it.
//
//	list, err := accounts.List(ctx, cfg, []string{"a", "b"})
//	for _, acc := range list { login := acc.At["a"] … }
package accounts
