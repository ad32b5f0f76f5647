package builtin

import (
	"context"
	"net"
	"strings"
	"sync"

	"understudy/smtp/auth"
)

// maxPrefetch bounds the names that are looked up beforehand.
const maxPrefetch = 32

// prefetched is a resolver for one message: the TXT records that its header refers
// to were asked for at once, at the beginning.
type prefetched struct {
	auth.Resolver
	answers map[string]*txtAnswer
}

type txtAnswer struct {
	ready chan struct{} // closed when the rest is set
	txt   []string
	err   error
}

// LookupTXT implements auth.Resolver. What was asked beforehand is waited for; that
// ends with the time of the DNS questions.
func (p *prefetched) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a := p.answers[strings.ToLower(strings.TrimSuffix(name, "."))]
	if a == nil {
		return p.Resolver.LookupTXT(ctx, name)
	}
	<-a.ready
	return a.txt, a.err
}

// prefetch starts looking up the keys of signatures and the DMARC policy. The
// look-ups end with ctx; nothing waits for one that nobody needs.
func (f *Filter) prefetch(ctx context.Context, j *judgement, wg *sync.WaitGroup) *prefetched {
	p := &prefetched{Resolver: f.resolver, answers: make(map[string]*txtAnswer)}
	var names []string
	for _, field := range []string{"DKIM-Signature", "ARC-Seal", "ARC-Message-Signature"} {
		names = append(names, auth.KeyNames(j.m.Values(field))...)
	}
	if domains := auth.FromDomains(j.m.Values("From")); j.outside && len(domains) == 1 && strings.Contains(domains[0], ".") && !strings.ContainsAny(domains[0], " \t\r\n\x00\"\\") {
		names = append([]string{"_dmarc." + domains[0], "_dmarc." + auth.OrganizationalDomain(domains[0])}, names...)
	}
	for _, name := range names {
		if p.answers[name] != nil || len(p.answers) >= maxPrefetch {
			continue
		}
		a := &txtAnswer{ready: make(chan struct{})}
		p.answers[name] = a
		wg.Go(func() {
			defer close(a.ready)
			a.txt, a.err = f.resolver.LookupTXT(ctx, name)
			if a.err != nil && ctx.Err() != nil {
				a.err = &net.DNSError{Err: a.err.Error(), Name: name, IsTimeout: true, IsTemporary: true}
			}
		})
	}
	return p
}
