// Package postfix answers a Postfix that keeps port 25 for itself: which domains
// are ours, who exists here, and where mail goes at the moment.
//
// It speaks two of Postfix's protocols: socketmap tables (socketmap_table(5)) with
// the maps "domains", "recipients" and "route", and policy delegation
// (SMTPD_POLICY_README) at RCPT. Both give the answers that the front of package
// smtp gives, also while the primary is dead.
//
// Invariants:
//
//   - "Not found" and 5xx are said only of an address that certainly does not
//     exist; whatever is unclear is a temporary failure.
//   - Input is bounded; a client that breaks the protocol is cut off, which
//     Postfix answers with 451.
//
// Example, in main.cf:
//
//	relay_domains = socketmap:inet:127.0.0.1:7027:domains
//	relay_recipient_maps = socketmap:inet:127.0.0.1:7027:recipients
//	transport_maps = socketmap:inet:127.0.0.1:7027:route
//	smtpd_recipient_restrictions = ... check_policy_service inet:127.0.0.1:7028
package postfix
