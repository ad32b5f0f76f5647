package auth

import (
	"context"
	"fmt"
	"strings"

	"blitiri.com.ar/go/spf"
)

// SPFResult is the result for one identity (RFC 7208, section 2).
type SPFResult struct {
	Result Result
	// Helo says that the identity is HELO; else it is MAIL FROM.
	Helo bool
	// Domain is the one whose policy was asked.
	Domain string
	// Identity is what was checked: the HELO name or the address.
	Identity string
	// Reason says which mechanism matched, or what failed.
	Reason string
}

// SPF checks both identities of a session. The null sender is checked as
// postmaster@HELO (RFC 7208, section 2.4). At most 10 look-ups that cost and two
// that find nothing are made for each (section 4.6.4); more is permerror.
func (v *Verifier) SPF(ctx context.Context, s Sender) (helo, mailFrom SPFResult) {
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	helo = v.checkSPF(ctx, s, "postmaster@"+s.HELO)
	helo.Helo, helo.Identity = true, s.HELO
	if s.MailFrom == "" {
		mailFrom = helo
		mailFrom.Helo, mailFrom.Identity = false, "postmaster@"+s.HELO
		return helo, mailFrom
	}
	return helo, v.checkSPF(ctx, s, s.MailFrom)
}

func (v *Verifier) checkSPF(ctx context.Context, s Sender, identity string) SPFResult {
	r := SPFResult{Result: None, Identity: identity}
	if i := strings.LastIndexByte(identity, '@'); i >= 0 {
		r.Domain = canonical(identity[i+1:])
	}
	// RFC 7208, section 4.3: not a name with more than one label, no check.
	if !s.Addr.IsValid() || !isHostName(r.Domain) {
		return r
	}
	res, err := spf.CheckHostWithSender(s.Addr.Unmap().AsSlice(), s.HELO, identity, spf.WithContext(ctx), spf.WithResolver(v.Resolver))
	r.Result = Result(res)
	if err != nil {
		r.Reason = err.Error()
	}
	if ctx.Err() != nil && r.Result != Pass {
		// Some failures of a look-up that was cut short look like "no such name".
		r.Result, r.Reason = TempError, context.Cause(ctx).Error()
	}
	return r
}

// isHostName reports whether domain is a name of at least two labels of letters,
// digits, hyphens and underscores.
func isHostName(domain string) bool {
	if len(domain) > 253 || !strings.Contains(domain, ".") {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// ReceivedSPF is the value of a Received-SPF field (RFC 7208, section 9.1).
func (r SPFResult) ReceivedSPF(s Sender, receiver string) string {
	identity := "mailfrom"
	if r.Helo {
		identity = "helo"
	}
	return fmt.Sprintf("%s (%s: %s) client-ip=%s; envelope-from=%s; helo=%s; identity=%s; receiver=%s",
		r.Result, quoteSafe(receiver), spfComment(r.Result, r.Domain), s.Addr.Unmap(), quoted(s.MailFrom), quoted(s.HELO), identity, quoted(receiver))
}

func spfComment(r Result, domain string) string {
	domain = quoteSafe(domain)
	switch r {
	case Pass:
		return "domain of " + domain + " designates the client as permitted sender"
	case Fail, SoftFail:
		return "domain of " + domain + " does not designate the client as permitted sender"
	case Neutral:
		return "domain of " + domain + " says nothing about the client"
	case TempError, PermError:
		return "error in processing the policy of " + domain
	case None, Policy:
	}
	return "no policy of " + domain
}

// quoteSafe leaves what may stand in a comment or quoted string.
func quoteSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`()\"`, r) {
			return '?'
		}
		return r
	}, s)
}

// quoted is s as a quoted string.
func quoted(s string) string { return `"` + quoteSafe(s) + `"` }
