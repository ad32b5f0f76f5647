package smtp

import (
	"context"
	"fmt"
	"strings"
)

// Answer returns what RCPT would be answered for an address, as "550 5.1.1 text",
// leaving aside the limits of single clients. It may be called concurrently.
func (f *Front) Answer(ctx context.Context, to string) string {
	_, r := f.judge(ctx, to)
	if r == nil {
		return "250 2.1.5 accepted"
	}
	return fmt.Sprintf("%d %d.%d.%d %s", r.code, r.enhanced[0], r.enhanced[1], r.enhanced[2], r.reason)
}

// judge decides about one recipient: the metric's word, and nil to take it.
func (f *Front) judge(ctx context.Context, to string) (answer string, r *refusal) {
	a, err := ParseAddress(to)
	if err != nil {
		return "malformed", &refusal{code: 553, enhanced: code(5, 1, 3), reason: "Malformed recipient address"}
	}
	// RFC 5321, section 4.5.1: postmaster, with and without a domain, always.
	postmaster := strings.EqualFold(a.Local, "postmaster")
	switch {
	case a.Domain == "" && postmaster:
		return "accepted", nil
	case a.Domain == "":
		return "malformed", &refusal{code: 550, enhanced: code(5, 1, 3), reason: "Recipient address needs a domain"}
	case !f.deps.Domains.Has(a.Domain):
		return "relay_denied", &refusal{code: 554, enhanced: code(5, 7, 1), reason: "Relay access denied"}
	case postmaster:
		return "accepted", nil
	}
	d, err := f.deps.Recipients.Lookup(ctx, a.String())
	if err != nil {
		t := temporary(err)
		return "failed", &t
	}
	switch d {
	case Exists:
		return "accepted", nil
	case Unknown:
		return "unknown", &refusal{code: 550, enhanced: code(5, 1, 1), reason: "Recipient address rejected: User unknown"}
	case Unsure:
	}
	return "unsure", &refusal{
		code: 450, enhanced: code(4, 1, 1),
		reason: "Recipient address rejected: cannot be verified now, please try later",
	}
}
