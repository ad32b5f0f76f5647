// Package spamsync is what both sites' filters remember together, and the parts
// of a verdict that follow from it: learned tokens (Classifier), who was deferred
// (Greylist), who behaved well (Reputation) and who sends too much (Ratelimit).
//
// Invariants:
//
//   - The same message and the same state give the same answer, on every machine.
//   - No message is taught twice: its digest is recorded in the transaction that
//     counts its tokens.
//   - No sender is deferred for ever: what the greylist cannot write to the
//     state it keeps here, in memory and in a journal, and honours it.
//   - A failed write is returned; it never blocks longer than configured.
//   - All shared numbers change by deltas only, so that two sites that were
//     apart can be merged.
//
// For example:
//
//	state, closeState, err := spamsync.OpenRedis(cfg)
//	c := spamsync.Classifier{State: state, MinLearns: 200}
//	result, err := c.Classify(ctx, spamsync.Tokenize(msg))
//	if result.Ready && result.Probability > 0.95 { ... }
package spamsync
