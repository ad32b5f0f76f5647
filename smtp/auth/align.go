package auth

import (
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// OrganizationalDomain is the registered domain above (or equal to) domain, by
// the public suffix list (RFC 7489, section 3.2): mail.example.co.uk gives
// example.co.uk. A public suffix itself, an address literal and a single label
// are their own organization: nothing aligns with them but themselves.
func OrganizationalDomain(domain string) string {
	d := canonical(domain)
	org, err := publicsuffix.EffectiveTLDPlusOne(d)
	if err != nil {
		return d
	}
	return org
}

// Aligned reports whether two domains belong together: the same name if strict,
// the same organization otherwise (RFC 7489, section 3.1). An empty domain
// aligns with nothing.
func Aligned(a, b string, strict bool) bool {
	a, b = canonical(a), canonical(b)
	if a == "" || b == "" {
		return false
	}
	if strict {
		return a == b
	}
	return OrganizationalDomain(a) == OrganizationalDomain(b)
}

// canonical is domain in lower-case A-labels without a final dot.
func canonical(domain string) string {
	domain = strings.TrimSuffix(strings.ToLower(domain), ".")
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		return ascii
	}
	return domain
}
