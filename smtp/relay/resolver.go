package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Resolver answers what next hops need of the DNS. Methods may be called
// concurrently; a name or type that does not exist is an empty answer, not an
// error. secure says that the answer was validated by DNSSEC and that the way
// to whoever did it can be trusted.
type Resolver interface {
	// MX returns the hosts of a domain by preference, without the final dot;
	// "" alone is the null MX of RFC 7505.
	MX(ctx context.Context, domain string) (hosts []string, secure bool, err error)
	// TLSA returns the records of _port._tcp.host.
	TLSA(ctx context.Context, host, port string) (records []*dns.TLSA, secure bool, err error)
	// TXT returns the strings of each record of name, joined.
	TXT(ctx context.Context, name string) ([]string, error)
}

// dnsResolver asks one recursive server.
type dnsResolver struct {
	server  string // host:port; empty is the first of /etc/resolv.conf
	trusted bool
}

const dnsTimeout = 5 * time.Second

// resolverAddress reads "address" or "address:port".
func resolverAddress(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%q is no address, nor address:port", s)
	}
	return a, nil
}

func (r dnsResolver) address() (netip.AddrPort, error) {
	server := r.server
	if server == "" {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("find a resolver: %w", err)
		}
		if len(conf.Servers) == 0 {
			return netip.AddrPort{}, errors.New("find a resolver: none in /etc/resolv.conf")
		}
		server = net.JoinHostPort(conf.Servers[0], conf.Port)
	}
	return resolverAddress(server)
}

// ask sends one question; over TCP where the answer does not fit, and once more
// where a datagram was lost.
func (r dnsResolver) ask(ctx context.Context, name string, qtype uint16) (answers []dns.RR, secure bool, err error) {
	addr, err := r.address()
	if err != nil {
		return nil, false, err
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, true)
	q.AuthenticatedData = true // RFC 6840, section 5.7
	var in *dns.Msg
	for _, network := range []string{"udp", "udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: dnsTimeout}
		in, _, err = c.ExchangeContext(ctx, q, addr.String())
		if err == nil && !in.Truncated {
			break
		}
		if ctx.Err() != nil {
			break
		}
	}
	what := dns.TypeToString[qtype] + " " + name
	if err != nil {
		return nil, false, fmt.Errorf("look up %s: %w", what, err)
	}
	if in.Truncated {
		return nil, false, fmt.Errorf("look up %s: answer is truncated", what)
	}
	// AD is the server's word only: it counts where nobody can forge it on the way.
	secure = in.AuthenticatedData && (r.trusted || addr.Addr().Unmap().IsLoopback())
	switch in.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return in.Answer, secure, nil
	}
	return nil, false, fmt.Errorf("look up %s: %s", what, dns.RcodeToString[in.Rcode])
}

func (r dnsResolver) MX(ctx context.Context, domain string) ([]string, bool, error) {
	answers, secure, err := r.ask(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, false, err
	}
	var records []*dns.MX
	for _, rr := range answers {
		if mx, ok := rr.(*dns.MX); ok {
			records = append(records, mx)
		}
	}
	slices.SortStableFunc(records, func(a, b *dns.MX) int { return int(a.Preference) - int(b.Preference) })
	var hosts []string
	for _, mx := range records {
		hosts = append(hosts, strings.TrimSuffix(mx.Mx, "."))
	}
	return hosts, secure, nil
}

func (r dnsResolver) TLSA(ctx context.Context, host, port string) ([]*dns.TLSA, bool, error) {
	answers, secure, err := r.ask(ctx, "_"+port+"._tcp."+host, dns.TypeTLSA)
	if err != nil {
		return nil, false, err
	}
	var records []*dns.TLSA
	for _, rr := range answers {
		if t, ok := rr.(*dns.TLSA); ok {
			records = append(records, t)
		}
	}
	return records, secure, nil
}

func (r dnsResolver) TXT(ctx context.Context, name string) ([]string, error) {
	answers, _, err := r.ask(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rr := range answers {
		if t, ok := rr.(*dns.TXT); ok {
			out = append(out, strings.Join(t.Txt, ""))
		}
	}
	return out, nil
}
