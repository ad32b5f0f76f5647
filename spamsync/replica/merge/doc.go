// Package merge brings together what two Redis servers learned apart: it replays
// the commands that one of them (the follower) executed after the fork on the
// other (the home), by the rules of each kind of key.
//
// Invariants:
//
//   - A number afterwards is what it was at the fork plus both sites' changes.
//   - A message that was taught at both sites counts once; where the sites taught it
//     differently, the newer one counts.
//   - Every batch is one transaction on home together with a mark (origin, fork,
//     place). A merge that was interrupted goes on from the mark; one that is
//     repeated changes nothing.
//   - What came to the follower by an earlier merge from home is not sent back.
//   - What is not known is never guessed: it is kept for the operator and counted.
//   - Nothing is deleted that only one site deleted, except what a site unlearned.
//
// For example:
//
//	report, err := merge.Merge(ctx, merge.Options{
//		Home: home, Source: merge.FirstOf(journal, stream.Backlog{Options: follower}),
//		Fork: fork, Origin: "a", Target: "b",
//	})
package merge
