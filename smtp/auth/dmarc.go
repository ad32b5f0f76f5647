package auth

import (
	"context"
	"errors"
	"hash/fnv"
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"
)

// DMARCPolicy is what a domain asks of receivers.
type DMARCPolicy string

// The policies (RFC 7489, section 6.3). The zero value: there is no record.
const (
	PolicyNone       DMARCPolicy = "none"
	PolicyQuarantine DMARCPolicy = "quarantine"
	PolicyReject     DMARCPolicy = "reject"
)

// DMARCRecord is a policy record.
type DMARCRecord struct {
	// Policy and Subdomain are p= and sp=; Subdomain is Policy where it is absent.
	Policy, Subdomain DMARCPolicy
	// StrictDKIM and StrictSPF are adkim=s and aspf=s.
	StrictDKIM, StrictSPF bool
	// Percent is pct=, 100 where it is absent.
	Percent int
}

// DMARCResult is the evaluation of a message.
type DMARCResult struct {
	// Result is pass, fail, none (no record), temperror, or permerror (no single
	// From domain; several records are "none").
	Result Result
	// Domain is the From domain, Organization the registered domain above it.
	Domain, Organization string
	// Policy is what the owner asks for messages that fail: p=, or sp= where the
	// record is the organization's and the From domain below it.
	Policy DMARCPolicy
	// Percent is pct=: the share of failing messages it is asked for.
	Percent int
	// By is "dkim" or "spf" where it passed, With the domain that did.
	By, With string
	// Reason says why not.
	Reason string
}

// Applies is the policy for the message that seed stands for: with pct= below 100
// the others get the next milder one (RFC 7489, section 6.6.4). The same seed
// always gives the same answer, so that both sites agree.
func (r DMARCResult) Applies(seed string) DMARCPolicy {
	if r.Result != Fail {
		return PolicyNone
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	if int(h.Sum32()%100) < r.Percent {
		return r.Policy
	}
	if r.Policy == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}

// ParseDMARC reads a record. False: it is none, or must be ignored (RFC 7489,
// section 6.6.3: without a valid p= only one with rua= counts, as p=none). Other
// faulty tags count as absent.
func ParseDMARC(txt string) (DMARCRecord, bool) {
	first, _, _ := strings.Cut(txt, ";")
	name, value, _ := strings.Cut(first, "=")
	if strings.TrimSpace(name) != "v" || strings.TrimSpace(value) != "DMARC1" {
		return DMARCRecord{}, false
	}
	t := make(map[string]string)
	for piece := range strings.SplitSeq(txt, ";") {
		name, value, ok := strings.Cut(piece, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); ok {
			if _, there := t[name]; !there {
				t[name] = strings.ToLower(strings.TrimSpace(value))
			}
		}
	}
	r := DMARCRecord{Percent: 100, StrictDKIM: t["adkim"] == "s", StrictSPF: t["aspf"] == "s"}
	policy, okPolicy := parsePolicy(t["p"])
	sub, okSub := parsePolicy(t["sp"])
	_, hasSub := t["sp"]
	switch {
	case okPolicy && (okSub || !hasSub):
	case t["rua"] != "":
		policy, okSub = PolicyNone, false
	default:
		return DMARCRecord{}, false
	}
	r.Policy, r.Subdomain = policy, policy
	if okSub {
		r.Subdomain = sub
	}
	if n, err := strconv.Atoi(t["pct"]); err == nil && n >= 0 && n <= 100 {
		r.Percent = n
	}
	return r, true
}

func parsePolicy(s string) (DMARCPolicy, bool) {
	switch p := DMARCPolicy(s); p {
	case PolicyNone, PolicyQuarantine, PolicyReject:
		return p, true
	}
	return "", false
}

// FromDomains returns the different domains of the addresses in the values of all
// From fields, in lower-case A-labels. A value that cannot be parsed gives what
// stands behind its last @.
func FromDomains(values []string) []string {
	var out []string
	add := func(address string) {
		i := strings.LastIndexByte(address, '@')
		if i < 0 {
			return
		}
		if d := canonical(strings.Trim(address[i+1:], " \t>")); !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	for _, v := range values {
		if len(v) > maxSignatureBytes {
			v = v[:maxSignatureBytes]
		}
		list, err := mail.ParseAddressList(v)
		if err != nil {
			if i := strings.LastIndexByte(v, '@'); i >= 0 {
				end := strings.IndexAny(v[i:], "> \t,;)\"")
				if end < 0 {
					end = len(v) - i
				}
				add(v[:i+end])
			}
			continue
		}
		for _, a := range list {
			add(a.Address)
		}
	}
	return out
}

// DMARC evaluates a message (RFC 7489, section 6.6): from are the values of its
// From fields, spf and dkim the results for it. Not exactly one From field with
// addresses of one domain is permerror: there is no owner to ask.
func (v *Verifier) DMARC(ctx context.Context, from []string, spf SPFResult, signatures []DKIMResult) DMARCResult {
	domains := FromDomains(from)
	if len(from) != 1 || len(domains) != 1 || !isHostName(domains[0]) {
		return DMARCResult{Result: PermError, Reason: "not exactly one From domain"}
	}
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	r := DMARCResult{Domain: domains[0], Organization: OrganizationalDomain(domains[0])}
	rec, found, err := v.discover(ctx, r.Domain)
	r.Policy = rec.Policy
	if !found && err == nil && r.Organization != r.Domain {
		rec, found, err = v.discover(ctx, r.Organization)
		r.Policy = rec.Subdomain
	}
	switch {
	case err != nil:
		return DMARCResult{Result: TempError, Domain: r.Domain, Organization: r.Organization, Reason: err.Error()}
	case !found:
		r.Result = None
		return r
	}
	r.Percent = rec.Percent
	evaluate(&r, rec, spf, signatures)
	return r
}

// evaluate is the pure part: does anything that passed align?
func evaluate(r *DMARCResult, rec DMARCRecord, spf SPFResult, signatures []DKIMResult) {
	unknown := false
	for _, s := range signatures {
		if !Aligned(s.Domain, r.Domain, rec.StrictDKIM) {
			continue
		}
		switch s.Result {
		case Pass:
			r.Result, r.By, r.With = Pass, "dkim", s.Domain
			return
		case TempError:
			unknown = true
		case None, Fail, SoftFail, Neutral, PermError, Policy:
		}
	}
	if Aligned(spf.Domain, r.Domain, rec.StrictSPF) {
		switch spf.Result {
		case Pass:
			r.Result, r.By, r.With = Pass, "spf", spf.Domain
			return
		case TempError:
			unknown = true
		case None, Fail, SoftFail, Neutral, PermError, Policy:
		}
	}
	if unknown {
		// RFC 7489, section 6.6.2: what DNS did not answer may yet be a pass.
		r.Result, r.Reason = TempError, "an aligned identity could not be checked"
		return
	}
	r.Result, r.Reason = Fail, "nothing that passed is aligned"
}

// discover looks for the one record of a domain.
func (v *Verifier) discover(ctx context.Context, domain string) (DMARCRecord, bool, error) {
	txts, err := v.Resolver.LookupTXT(ctx, "_dmarc."+domain)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound && ctx.Err() == nil {
			return DMARCRecord{}, false, nil
		}
		return DMARCRecord{}, false, err
	}
	var rec DMARCRecord
	found := 0
	for _, txt := range txts {
		if len(txt) > maxKeyBytes {
			continue
		}
		if r, ok := ParseDMARC(txt); ok {
			rec = r
			found++
		}
	}
	if found != 1 {
		return DMARCRecord{}, false, nil // section 6.6.3: several records are none
	}
	return rec, true, nil
}
