// Package dnsfailover answers one question: who is active?
//
// Everything a site does that depends on the answer asks for the View and for
// nothing else: where the spool relays to, which Redis is written, which
// listeners serve locally. Where no failover is configured the View is Fixed:
// the site named primary is active for ever.
//
//	view := dnsfailover.Fixed("b", "a")
//	view.Role // Standby: site b relays to site a
package dnsfailover
