package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stsPolicy is a policy of RFC 8461, section 3.2.
type stsPolicy struct {
	mode   string // enforce, testing or none
	mx     []string
	maxAge time.Duration
}

// Bounds of RFC 8461: section 3.2 for the age, 3.3 for size and time.
const (
	stsMaxAge   = 31557600 * time.Second
	stsMaxBytes = 64 << 10
	stsTimeout  = time.Minute
	// stsCheck is how often the TXT record is looked at, stsRetry how long a
	// policy that could not be fetched is left alone.
	stsCheck = 10 * time.Minute
	stsRetry = 5 * time.Minute
	// stsRenew is how often a policy that has not changed is fetched again, so that
	// nobody can wait for its end (RFC 8461, section 10.2).
	stsRenew = 24 * time.Hour
)

var errSTS = errors.New("not a policy")

// parseSTS reads a policy: RFC 8461, section 3.2. Unknown fields are skipped.
func parseSTS(text string) (stsPolicy, error) {
	var p stsPolicy
	seen := map[string]bool{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), " \t\r")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return p, fmt.Errorf("%w: line %q", errSTS, clipText(line))
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if seen[key] && key != "mx" {
			continue // the first counts
		}
		seen[key] = true
		switch key {
		case "version":
			if value != "STSv1" {
				return p, fmt.Errorf("%w: version %q", errSTS, clipText(value))
			}
		case "mode":
			p.mode = value
		case "mx":
			p.mx = append(p.mx, strings.ToLower(value))
		case "max_age":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return p, fmt.Errorf("%w: max_age %q", errSTS, clipText(value))
			}
			p.maxAge = min(time.Duration(n)*time.Second, stsMaxAge)
		}
	}
	if err := sc.Err(); err != nil {
		return p, fmt.Errorf("%w: %w", errSTS, err)
	}
	switch {
	case !seen["version"] || !seen["max_age"]:
		return p, fmt.Errorf("%w: version or max_age is missing", errSTS)
	case p.mode != "enforce" && p.mode != "testing" && p.mode != "none":
		return p, fmt.Errorf("%w: mode %q", errSTS, clipText(p.mode))
	case p.mode != "none" && len(p.mx) == 0:
		return p, fmt.Errorf("%w: no mx", errSTS)
	}
	return p, nil
}

func clipText(s string) string { return s[:min(len(s), 60)] }

// allows says whether host is one of the policy's: RFC 8461, section 4.1. A
// wildcard stands for exactly one label.
func (p stsPolicy) allows(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, m := range p.mx {
		if m == host {
			return true
		}
		if rest, ok := strings.CutPrefix(m, "*."); ok {
			if _, parent, found := strings.Cut(host, "."); found && parent == rest {
				return true
			}
		}
	}
	return false
}

// stsRecordID is the id of the one valid TXT record; empty is no policy
// (RFC 8461, section 3.1).
func stsRecordID(records []string) string {
	id, n := "", 0
	for _, r := range records {
		fields := strings.Split(r, ";")
		if strings.TrimSpace(fields[0]) != "v=STSv1" {
			continue
		}
		n++
		for _, f := range fields[1:] {
			if v, ok := strings.CutPrefix(strings.TrimSpace(f), "id="); ok {
				id = v
			}
		}
	}
	if n != 1 {
		return ""
	}
	return id
}

// stsCache keeps policies in memory for as long as they say.
type stsCache struct {
	resolver Resolver
	http     *http.Client

	mu       sync.Mutex
	policies map[string]*stsEntry
}

type stsEntry struct {
	policy  stsPolicy
	id      string
	expires time.Time
	next    time.Time // when to look again
	renew   time.Time // when to fetch again what has not changed
}

func newSTSCache(r Resolver, client *http.Client, roots *x509.CertPool) *stsCache {
	if client == nil {
		client = &http.Client{
			Timeout: stsTimeout,
			Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
			},
			// RFC 8461, section 3.3: redirects must not be followed.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &stsCache{resolver: r, http: client, policies: map[string]*stsEntry{}}
}

// policy returns the policy of a domain; mode "none" where it has none. A
// policy that is cached stays in force while the web server or the DNS cannot
// be reached: that is what protects it against whoever cuts them off.
func (c *stsCache) policy(ctx context.Context, domain string) (stsPolicy, error) {
	c.mu.Lock()
	defer c.mu.Unlock() // one domain or two: nobody is held up for long
	now := time.Now()
	e := c.policies[domain]
	if e != nil && now.Before(e.next) && now.Before(e.expires) {
		return e.policy, nil
	}
	if e == nil || !now.Before(e.expires) {
		e = &stsEntry{policy: stsPolicy{mode: "none"}}
	}
	records, err := c.resolver.TXT(ctx, "_mta-sts."+domain)
	id := stsRecordID(records)
	switch {
	case err != nil || id == "" || id == e.id && now.Before(e.renew):
		e.next = now.Add(stsCheck)
		if e.id == "" {
			e.expires = e.next
		}
	default:
		var p stsPolicy
		if p, err = c.fetch(ctx, domain); err == nil {
			e = &stsEntry{
				policy: p, id: id, expires: now.Add(p.maxAge), next: now.Add(stsCheck),
				renew: now.Add(min(p.maxAge/2, stsRenew)),
			}
		} else {
			e.next = now.Add(stsRetry)
			if e.id == "" {
				e.expires = e.next
			}
		}
	}
	c.policies[domain] = e
	return e.policy, err
}

func (c *stsCache) fetch(ctx context.Context, domain string) (stsPolicy, error) {
	ctx, cancel := context.WithTimeout(ctx, stsTimeout)
	defer cancel()
	url := "https://mta-sts." + domain + "/.well-known/mta-sts.txt"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return stsPolicy{}, fmt.Errorf("fetch MTA-STS policy of %s: %w", domain, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return stsPolicy{}, fmt.Errorf("fetch MTA-STS policy of %s: %w", domain, err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode != http.StatusOK {
		return stsPolicy{}, fmt.Errorf("fetch MTA-STS policy of %s: %s", domain, res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, stsMaxBytes+1))
	if err == nil && len(text) > stsMaxBytes {
		err = fmt.Errorf("%w: longer than %d bytes", errSTS, stsMaxBytes)
	}
	if err != nil {
		return stsPolicy{}, fmt.Errorf("fetch MTA-STS policy of %s: %w", domain, err)
	}
	p, err := parseSTS(string(text))
	if err != nil {
		return stsPolicy{}, fmt.Errorf("read MTA-STS policy of %s: %w", domain, err)
	}
	return p, nil
}
