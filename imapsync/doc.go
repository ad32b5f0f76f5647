// Package imapsync makes two mailboxes of one account converge, whatever happens
// on both at the same time.
//
// A pass looks at both sides (Store), compares them with what they had in common
// after the last pass (the base), decides in a pure function (newPlan), and acts.
//
// Invariants:
//
//   - Nothing is deleted on one side that was not seen to be deleted on the other.
//     What is unknown (another UIDVALIDITY, a side that went back in time, a lost
//     base) is paired again by content and refilled, never deleted.
//   - What a pass has not seen confirmed is not written into the base; the next
//     pass decides again from what is really there.
//   - Before mail is appended its intent is synced to disk: after a crash or a lost
//     answer the message is found by content, not stored twice.
//   - A second pass without changes in between does nothing.
//   - Large deletions wait for a person.
//   - Two runners with different bases cannot both act: a generation in a hidden
//     folder on both servers tells the second one that its base is out of date.
//
// Example:
//
//	account, err := imapsync.Open(path, imapsync.DefaultConfig(), imapsync.Deps{Logger: log})
//	...
//	defer account.Close()
//	report, err := account.Pass(ctx, imapsync.Sides{A: left, B: right}, imapsync.PassOptions{})
package imapsync
