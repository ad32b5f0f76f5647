// Package dnsfailover answers one question: who is active?
//
// Everything a site does that depends on the answer asks for the View and for
// nothing else: where the spool relays to, which Redis is written, which
// listeners serve locally. Where no failover is configured the View is Fixed:
// the site named primary is active for ever.
//
// Where there is one, the sites agree through a Register that an Arbiter
// compares and swaps. Machine decides, without I/O, clock or goroutine; Plan says
// what the records should be; Controller carries out what both want and publishes
// the View in a Feed.
//
// # Invariants
//
//   - Never two active sites, as long as no two clocks differ in rate by more than
//     Timing says: the comment of Machine has the rules, dnsfailover/sim the proof.
//   - What is not known is never "the other site is dead".
//   - No record is replaced whose present value nobody here wrote, none is emptied.
//   - A role is never taken from the local disk.
//
// # Use
//
//	view := dnsfailover.Fixed("b", "a")
//	view.Role // Standby: site b relays to site a
//
//	c, err := dnsfailover.NewController(cfg, deps)
//	go func() { done <- c.Run(ctx) }()
//	view, changed := c.Feed().Changed()
package dnsfailover
