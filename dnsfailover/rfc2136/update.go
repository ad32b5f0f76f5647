package rfc2136

import (
	"fmt"
	"math"
	"time"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
)

// registerTTL is how long a resolver that asks for the register may keep it.
const registerTTL = 5

// update builds one UPDATE.
type update struct {
	msg *dns.Msg
}

func newUpdate(zone string) update {
	u := update{msg: new(dns.Msg)}
	u.msg.SetUpdate(zone)
	return u
}

// text replaces the one TXT record at name; without old there must be none.
func (u update) text(name, old, new string) {
	record := func(s string) []dns.RR {
		return []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: registerTTL}, Txt: []string{s}}}
	}
	if old == "" {
		u.msg.RRsetNotUsed(record(""))
	} else {
		u.msg.Used(record(old))
	}
	if old == new {
		return
	}
	u.msg.RemoveRRset(record(""))
	u.msg.Insert(record(new))
}

// require adds the prerequisite that the set's present values are exactly these
// (RFC 2136, section 2.4.2), or that there is none.
func (u update) require(k dnsfailover.RRKey, values []string) error {
	rrs, err := rrs(k, 0, values)
	if err != nil {
		return err
	}
	if len(values) > 0 {
		u.msg.Used(rrs)
		return nil
	}
	name := dns.CanonicalName(k.Name)
	u.msg.RRsetNotUsed([]dns.RR{
		&dns.ANY{Hdr: dns.RR_Header{Name: name, Rrtype: dns.StringToType[k.Type]}},
		// RFC 2136, section 3.4.2.2: what is added beside a CNAME is silently left out.
		&dns.ANY{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME}},
	})
	return nil
}

// replace adds the change itself.
func (u update) replace(c dnsfailover.RRChange) error {
	if len(c.New) == 0 {
		return fmt.Errorf("%s would become empty", c.RRKey)
	}
	rrs, err := rrs(c.RRKey, c.TTL, c.New)
	if err != nil {
		return err
	}
	u.msg.RemoveRRset(rrs[:1])
	u.msg.Insert(rrs)
	return nil
}

func rrs(k dnsfailover.RRKey, ttl time.Duration, values []string) ([]dns.RR, error) {
	seconds := ttl / time.Second
	if seconds < 0 || seconds > math.MaxInt32 {
		return nil, fmt.Errorf("%s: TTL %s is out of range", k, ttl)
	}
	var out []dns.RR
	for _, v := range values {
		v, err := dnsfailover.Canonical(k.Type, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", dns.CanonicalName(k.Name), seconds, k.Type, v))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		out = append(out, rr)
	}
	return out, nil
}

// prerequisite says whether a response code means that one was not met (RFC 2136,
// section 2.2).
func prerequisite(rcode int) bool {
	switch rcode {
	case dns.RcodeNXRrset, dns.RcodeYXRrset, dns.RcodeYXDomain, dns.RcodeNameError:
		return true
	}
	return false
}
