package rfc2136

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
)

// rrset asks the primary for a record set and returns what is there: records of
// the type, or a CNAME that stands in its place. Errors: ErrBadTime, ErrBadKey,
// ErrUnreachable.
func (l *link) rrset(ctx context.Context, name string, rrtype uint16) ([]dns.RR, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, rrtype)
	q.RecursionDesired = false
	a, err := l.question(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := l.verdict(a, dnsfailover.ErrUnreachable); err != nil {
		return nil, err
	}
	switch {
	case a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("%w: %s says %s", dnsfailover.ErrUnreachable, l.server, dns.RcodeToString[a.Rcode])
	case !a.Authoritative:
		return nil, fmt.Errorf("%w: %s is not authoritative for %s", dnsfailover.ErrUnreachable, l.server, name)
	case a.Truncated:
		return nil, fmt.Errorf("%w: the answer of %s is truncated", dnsfailover.ErrUnreachable, l.server)
	}
	var out []dns.RR
	for _, rr := range a.Answer {
		h := rr.Header()
		if dns.CanonicalName(h.Name) == name && (h.Rrtype == rrtype || h.Rrtype == dns.TypeCNAME) {
			out = append(out, rr)
		}
	}
	return out, nil
}

// records reads record sets one after the other.
func (l *link) records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	out := make([]dnsfailover.RRSet, len(keys))
	for i, k := range keys {
		rrs, err := l.rrset(ctx, dns.CanonicalName(k.Name), dns.StringToType[k.Type])
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", k, err)
		}
		out[i] = dnsfailover.RRSet{RRKey: k}
		for _, rr := range rrs {
			out[i].TTL = time.Duration(rr.Header().Ttl) * time.Second
			out[i].Values = append(out[i].Values, value(rr))
		}
		slices.Sort(out[i].Values)
	}
	return out, nil
}

// value is a record's data in the form of dnsfailover.Canonical. What stands in a
// record's place (a CNAME) has a form that equals no value.
func value(rr dns.RR) string {
	switch r := rr.(type) {
	case *dns.A:
		if s, err := dnsfailover.Canonical("A", r.A.String()); err == nil {
			return s
		}
	case *dns.AAAA:
		if s, err := dnsfailover.Canonical("AAAA", r.AAAA.String()); err == nil {
			return s
		}
	case *dns.MX:
		if s, err := dnsfailover.Canonical("MX", fmt.Sprintf("%d %s", r.Preference, r.Mx)); err == nil {
			return s
		}
	}
	return fmt.Sprintf("%s %s", dns.TypeToString[rr.Header().Rrtype], rr.String()[len(rr.Header().String()):])
}

// text reads the one character string of the one TXT record at name; ok is false
// where there is none. Errors as rrset, and ErrBadRegister.
func (l *link) text(ctx context.Context, name string) (text string, ok bool, err error) {
	rrs, err := l.rrset(ctx, name, dns.TypeTXT)
	if err != nil || len(rrs) == 0 {
		return "", false, err
	}
	t, isText := rrs[0].(*dns.TXT)
	if !isText || len(rrs) != 1 || len(t.Txt) != 1 {
		return "", false, fmt.Errorf("%w: %s has %d records, want one TXT with one string", dnsfailover.ErrBadRegister, name, len(rrs))
	}
	return t.Txt[0], true, nil
}
