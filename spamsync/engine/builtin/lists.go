package builtin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/spamsync/message"
)

const (
	// maxListDomains bounds the domains of one message that lists are asked for.
	maxListDomains = 20
	// maxQuestions bounds the DNS questions of one message at the same time.
	maxQuestions = 32
)

// zone is one configured list.
type zone struct {
	ZoneConfig
	codes []netip.Prefix
}

func zones(list []ZoneConfig) ([]zone, error) {
	var out []zone
	for _, z := range list {
		codes, err := parseNetworks(z.Codes)
		if err != nil {
			return nil, err
		}
		z.Zone = strings.Trim(strings.ToLower(z.Zone), ".")
		out = append(out, zone{z, codes})
	}
	return out, nil
}

// answerKind is what a list's answer means.
type answerKind uint8

const (
	notListed answerKind = iota
	listed
	// listError: the list does not serve us, or something else answers in its name.
	listError
)

// meaning judges the answers of a zone. 127.255.255.x are error codes (refused
// resolver, too many questions, misspelt zone); anything outside 127.0.0.0/8 is no
// answer of a list at all, but of a parked domain or a resolver that invents.
func (z zone) meaning(answers []net.IPAddr) (answerKind, string) {
	kind, code := notListed, ""
	for _, a := range answers {
		addr, ok := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		if !ok || !addr.Is4() {
			continue
		}
		b := addr.As4()
		switch {
		case b[0] != 127 || b[1] == 255 && b[2] == 255:
			return listError, addr.String()
		case len(z.codes) == 0 || contains(z.codes, addr):
			kind, code = listed, addr.String()
		}
	}
	return kind, code
}

// reversed is the name under which a list has an address (RFC 5782, section 2.1).
func reversed(addr netip.Addr) string {
	addr = addr.Unmap()
	if addr.Is4() {
		b := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d", b[3], b[2], b[1], b[0])
	}
	b := addr.As16()
	digits := hex.EncodeToString(b[:])
	out := make([]byte, 0, 64)
	for i := len(digits) - 1; i >= 0; i-- {
		out = append(out, digits[i])
		if i > 0 {
			out = append(out, '.')
		}
	}
	return string(out)
}

// lists asks the configured lists.
type lists struct {
	dnsbl, uribl []zone
	resolver     auth.Resolver
	alarms       smtp.Alarms
	logger       *slog.Logger
	metrics      *metrics

	mu     sync.Mutex
	broken map[string]bool
}

// hit is a listing.
type hit struct {
	symbol, why string
}

// question is one name in one zone.
type question struct {
	zone  zone
	name  string
	about string
}

// questions are what to ask about a message: in a fixed order, so that the first
// hit of a symbol is always the same one.
func (l *lists) questions(addr netip.Addr, askAddr bool, m *message.Message) []question {
	var out []question
	if askAddr && addr.IsValid() {
		for _, z := range l.dnsbl {
			out = append(out, question{z, reversed(addr) + "." + z.Zone, addr.Unmap().String()})
		}
	}
	if len(l.uribl) == 0 {
		return out
	}
	seen := make(map[string]bool)
	for _, u := range m.URLs {
		name, about := "", ""
		if a, err := netip.ParseAddr(strings.Trim(u.Host, "[]")); err == nil {
			name, about = reversed(a), a.String()
		} else {
			name = auth.OrganizationalDomain(u.Host)
			about = name
		}
		if name == "" || seen[name] || !strings.Contains(name, ".") || len(name) > 200 || strings.ContainsAny(name, " \t%/") {
			continue
		}
		seen[name] = true
		for _, z := range l.uribl {
			out = append(out, question{z, name + "." + z.Zone, about})
		}
		if len(seen) >= maxListDomains {
			break
		}
	}
	return out
}

// ask answers all questions in parallel; ctx bounds them.
func (l *lists) ask(ctx context.Context, qs []question) []hit {
	answers := make([]*hit, len(qs))
	var g errgroup.Group
	g.SetLimit(maxQuestions)
	for i, q := range qs {
		g.Go(func() error {
			answers[i] = l.one(ctx, q)
			return nil
		})
	}
	_ = g.Wait() // no question fails: what has no answer is no hit
	var out []hit
	for _, a := range answers {
		if a != nil {
			out = append(out, *a)
		}
	}
	return out
}

func (l *lists) one(ctx context.Context, q question) *hit {
	ips, err := l.resolver.LookupIPAddr(ctx, q.name)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			l.health(q.zone.Zone, "")
		}
		return nil
	}
	kind, code := q.zone.meaning(ips)
	switch kind {
	case listed:
		l.health(q.zone.Zone, "")
		return &hit{q.zone.Symbol, q.about + " in " + q.zone.Zone + " is " + code}
	case listError:
		l.metrics.listErrors.WithLabelValues(q.zone.Zone).Inc()
		l.health(q.zone.Zone, code)
	case notListed:
		l.health(q.zone.Zone, "")
	}
	return nil
}

// health raises an alarm when a list answers with an error code, and clears it
// when it answers properly again.
func (l *lists) health(zone, code string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken[zone] == (code != "") {
		return
	}
	l.broken[zone] = code != ""
	if code == "" {
		l.logger.Info("block list answers again", "zone", zone)
		if l.alarms != nil {
			l.alarms.Clear("dnsbl:" + zone)
		}
		return
	}
	l.logger.Warn("block list answers with an error", "zone", zone, "code", code)
	if l.alarms != nil {
		l.alarms.Raise("dnsbl:"+zone, "The block list "+zone+" answers "+strconv.Quote(code)+
			": it does not serve this resolver, or is not there any more. Its hits do not count.")
	}
}
