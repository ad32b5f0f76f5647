// Package parity measures whether both sites' filters judge alike.
//
// It compares what a verdict depends on (the fingerprint: version, symbols with
// their scores, actions, maps by content, replication of Redis, DNS, clocks), and
// then the verdicts themselves: both engines judge the same messages.
//
//	fingerprint   version, symbols, actions, maps ...   each difference is named
//	probe         here, peer, here, peer                 for every message
//	again         four more times each                   where here and peer differ
//
// Rspamd is not deterministic: one instance gives different results for the same
// message in a few per cent of cases. So each site is also compared with itself in
// the same run. A message counts as different only where the judgements of one site
// do not overlap with those of the other by more than that noise.
//
// Invariants:
//
//   - The probe changes nothing: no greylisting, no rates, no reputation, no
//     history. What Redis had to replicate meanwhile is counted and reported.
//   - What could not be compared is reported as such, never as equal.
//
// Example:
//
//	c, err := parity.New(cfg, parity.Deps{...})
//	report, err := c.Compare(ctx, parity.Generated(1, 200))
//	if report.Broken() { ... }
package parity
