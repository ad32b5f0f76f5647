// Package rfc2136 keeps the register, and changes records, in a zone of a name
// server that takes DNS UPDATE (RFC 2136) signed with TSIG (RFC 8945): Knot,
// BIND, PowerDNS and others.
//
// The register is one TXT record. A compare-and-swap is one UPDATE whose
// prerequisites are the exact present value of the register and of every record
// that moves (RFC 2136, section 2.4.2), so that the server itself lets exactly
// one of two sites win, and register and records change together or not at all.
//
// Invariants:
//
//   - An unsigned answer is no answer: whoever is on the way could have written
//     it. At most it explains, in an error, why there is none. A negative answer
//     counts as "nothing was changed" only when its signature is right.
//   - Questions go to one server, over TCP, signed; an answer that is not
//     authoritative is none.
//   - Every request is signed anew, with its own time and its own exchange state.
//   - A lost answer to a change is settled by reading: the new value's nonce is
//     there, or the old one is still there and the same change is sent once more.
//     What cannot be settled is ErrUnknownOutcome, never success or failure.
//   - Record sets are only ever replaced. No name and no type is deleted.
//
// Example:
//
//	arbiter, err := rfc2136.New(rfc2136.Config{
//		Server: "192.0.2.53:53", Zone: "svc.example.net",
//		TSIG: rfc2136.TSIG{Name: "site-b", Algorithm: "hmac-sha256", SecretFile: "/etc/understudy/tsig"},
//	}, rfc2136.Deps{})
//	now, err := arbiter.Read(ctx)
package rfc2136
