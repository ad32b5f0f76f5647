package auth

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/authres"
)

// TestDMARCAlignment has the examples of RFC 7489, appendix B.1, and what follows
// from them.
func TestDMARCAlignment(t *testing.T) {
	t.Parallel()
	v := &Verifier{Resolver: zone{txt: map[string][]string{"_dmarc.example.com": {"v=DMARC1; p=reject; sp=quarantine"}}}}
	strict := &Verifier{Resolver: zone{txt: map[string][]string{"_dmarc.example.com": {"v=DMARC1; p=reject; adkim=s; aspf=s"}}}}
	spf := func(domain string, r Result) SPFResult { return SPFResult{Result: r, Domain: domain} }
	dkim := func(domain string, r Result) []DKIMResult { return []DKIMResult{{Result: r, Domain: domain}} }
	for _, tc := range []struct {
		name            string
		from            string
		spf             SPFResult
		dkim            []DKIMResult
		relaxed, strict Result
		by              string
	}{
		{"B.1.1 example 1: SPF in alignment", "sender@example.com", spf("example.com", Pass), nil, Pass, Pass, "spf"},
		{"B.1.1 example 2: SPF of a parent", "sender@example.com", spf("child.example.com", Pass), nil, Pass, Fail, "spf"},
		{"B.1.1 example 3: SPF not in alignment", "sender@example.com", spf("example.net", Pass), nil, Fail, Fail, ""},
		{"B.1.2 example 1: DKIM in alignment", "sender@example.com", SPFResult{}, dkim("example.com", Pass), Pass, Pass, "dkim"},
		{"B.1.2 example 2: DKIM of a parent", "sender@child.example.com", SPFResult{}, dkim("example.com", Pass), Pass, Fail, "dkim"},
		{"B.1.2 example 3: DKIM not in alignment", "sender@example.com", SPFResult{}, dkim("sample.net", Pass), Fail, Fail, ""},
		{"aligned, but failed", "a@example.com", spf("example.com", SoftFail), dkim("example.com", Fail), Fail, Fail, ""},
		{"DKIM is enough", "a@example.com", spf("example.com", Fail), dkim("example.com", Pass), Pass, Pass, "dkim"},
		{"one of several", "a@example.com", SPFResult{}, []DKIMResult{{Result: Pass, Domain: "x.example"}, {Result: Pass, Domain: "example.com"}}, Pass, Pass, "dkim"},
		{"unknown is not failed", "a@example.com", spf("example.com", TempError), nil, TempError, TempError, ""},
		{"unknown of another domain", "a@example.com", spf("example.net", TempError), nil, Fail, Fail, ""},
		{"public suffix", "a@example.com", spf("com", Pass), nil, Fail, Fail, ""},
	} {
		for mode, want := range map[*Verifier]Result{v: tc.relaxed, strict: tc.strict} {
			got := mode.DMARC(t.Context(), []string{tc.from}, tc.spf, tc.dkim)
			// A strict record of the organization holds for its subdomains, too.
			if got.Result != want || mode == v && got.By != tc.by {
				t.Errorf("%s (strict %t): %+v, want %s", tc.name, mode == strict, got, want)
			}
		}
	}
}

func TestDMARCDiscovery(t *testing.T) {
	t.Parallel()
	z := zone{txt: map[string][]string{
		"_dmarc.example.com":      {"v=DMARC1; p=reject; sp=quarantine; pct=40"},
		"_dmarc.own.example.com":  {"v=DMARC1;p=none"},
		"_dmarc.two.example":      {"v=DMARC1; p=reject", "v=DMARC1; p=none"},
		"_dmarc.other.example":    {"some text", "v=spf1 -all", "v=DMARC1; p=quarantine"},
		"_dmarc.bad.example":      {"v=DMARC1; p=nonsense"},
		"_dmarc.rua.example":      {"v=DMARC1; p=nonsense; rua=mailto:a@b"},
		"_dmarc.late.example":     {"p=reject; v=DMARC1"},
		"_dmarc.pct.example":      {"v=DMARC1; p=reject; pct=140; adkim=x"},
		"_dmarc.xn--bcher-kva.de": {"v=DMARC1; p=reject"},
		"_dmarc.example.co.uk":    {"v=DMARC1; p=reject"},
	}, broken: map[string]bool{"_dmarc.broken.example": true, "_dmarc.sub.example.co.uk": true}}
	v := &Verifier{Resolver: z}
	for _, tc := range []struct {
		from    string
		result  Result
		policy  DMARCPolicy
		percent int
	}{
		{"a@example.com", Fail, PolicyReject, 40},
		{"a@deep.sub.example.com", Fail, PolicyQuarantine, 40},
		{"a@own.example.com", Fail, PolicyNone, 100},
		{"a@nothing.example", None, "", 0},
		{"a@two.example", None, "", 0},
		{"a@other.example", Fail, PolicyQuarantine, 100},
		{"a@bad.example", None, "", 0},
		{"a@rua.example", Fail, PolicyNone, 100},
		{"a@late.example", None, "", 0},
		{"a@pct.example", Fail, PolicyReject, 100},
		{"a@broken.example", TempError, "", 0},
		{"a@sub.example.co.uk", TempError, "", 0},
		{"a@other.example.co.uk", Fail, PolicyReject, 100},
		{"a@bücher.de", Fail, PolicyReject, 100},
		{"Display <a@Example.COM>", Fail, PolicyReject, 40},
		{"nobody", PermError, "", 0},
		{"a@example.com, b@example.org", PermError, "", 0},
		{"a@localhost", PermError, "", 0},
	} {
		got := v.DMARC(t.Context(), []string{tc.from}, SPFResult{}, nil)
		if got.Result != tc.result || got.Policy != tc.policy || got.Percent != tc.percent {
			t.Errorf("%s: %+v, want %s %s %d", tc.from, got, tc.result, tc.policy, tc.percent)
		}
	}
	if got := v.DMARC(t.Context(), []string{"a@example.com", "a@example.com"}, SPFResult{}, nil); got.Result != PermError {
		t.Errorf("two From fields: %+v", got)
	}
}

func TestDMARCPercent(t *testing.T) {
	t.Parallel()
	r := DMARCResult{Result: Fail, Policy: PolicyReject, Percent: 30}
	rejected := 0
	for i := range 1000 {
		seed := fmt.Sprint("message ", i)
		p := r.Applies(seed)
		if p != r.Applies(seed) {
			t.Fatal("not deterministic")
		}
		switch p {
		case PolicyReject:
			rejected++
		case PolicyQuarantine:
		case PolicyNone:
			t.Fatal("the others get quarantine")
		}
	}
	if rejected < 230 || rejected > 370 {
		t.Errorf("%d of 1000 rejected", rejected)
	}
	r.Percent = 0
	if p := r.Applies("x"); p != PolicyQuarantine {
		t.Errorf("pct=0: %s", p)
	}
	r.Result = Pass
	if p := r.Applies("x"); p != PolicyNone {
		t.Errorf("passed: %s", p)
	}
}

func TestFromDomains(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]string{
		`"Bob @ home" <bob@A.example>`: {"a.example"},
		`a@b.example, c@B.example`:     {"b.example"},
		`a@b.example, c@d.example`:     {"b.example", "d.example"},
		`broken < x@c.example> (y`:     {"c.example"},
		`=?utf-8?q?a?= <x@d.example>`:  {"d.example"},
		``:                             nil,
		`<>`:                           nil,
	} {
		if got := FromDomains([]string{value}); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestResultsHeader(t *testing.T) {
	t.Parallel()
	r := Results{
		IPRev: Pass, Addr: "192.0.2.7",
		Helo:     SPFResult{Result: None, Helo: true, Identity: "h\r\nEvil: yes; x=\"y\""},
		MailFrom: SPFResult{Result: Pass, Identity: "a@a.example"},
		DKIM:     []DKIMResult{{Result: Fail, Reason: `body "hash"; dmarc=pass`, Domain: "a.example", Identifier: "@a.example", Selector: "s", Signature: "AbCd+/=="}},
		DMARC:    DMARCResult{Result: Pass, Domain: "a.example", Policy: PolicyReject},
		ARC:      ARCResult{Result: Pass},
	}
	got := r.Header("mx.example")
	for i, line := range strings.Split(got, "\r\n") {
		if i > 0 && !strings.HasPrefix(line, "\t") {
			t.Errorf("line %q starts a field", line)
		}
	}
	id, parsed, err := authres.Parse(strings.ReplaceAll(got, "\r\n", ""))
	if err != nil || id != "mx.example" {
		t.Fatalf("%q: %q, %v", got, id, err)
	}
	var methods []string
	for _, p := range parsed {
		switch p := p.(type) {
		case *authres.DMARCResult:
			methods = append(methods, "dmarc="+string(p.Value))
		case *authres.DKIMResult:
			methods = append(methods, "dkim="+string(p.Value)+" "+p.Domain)
		}
	}
	if !slices.Equal(methods, []string{"dkim=fail a.example", "dmarc=pass"}) {
		t.Errorf("%q: %q", got, methods)
	}
	if got := (Results{}).Header("mx.example"); got != "mx.example; none" {
		t.Errorf("%q", got)
	}
	for value, want := range map[string]string{"MX.example; spf=pass": "mx.example", " mx.example 1; none": "mx.example", "(c) mx.example(d);": "mx.example", `"mx.example"; x`: "mx.example", "(": "", "": ""} {
		if got := AuthservID(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// counting counts questions and answers slowly or not at all.
type counting struct {
	zone
	asked map[string]int
	hang  bool
}

func (c *counting) LookupTXT(ctx context.Context, name string) ([]string, error) {
	c.asked[name]++
	if c.hang {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "timeout", IsTimeout: true, IsTemporary: true}
	}
	return c.zone.LookupTXT(ctx, name)
}

func TestCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &counting{zone: zone{txt: map[string][]string{"a.example": {"x"}}, broken: map[string]bool{"b.example": true}}, asked: map[string]int{}}
		c := NewCache(r, CacheConfig{Entries: 10, TTL: 5 * time.Minute, Negative: time.Minute, Timeout: 5 * time.Second})
		ask := func(name string, want int) {
			t.Helper()
			_, _ = c.LookupTXT(t.Context(), name)
			if got := r.asked[strings.ToLower(name)]; got != want {
				t.Errorf("%s was asked %d times, want %d", name, got, want)
			}
		}
		ask("a.example", 1)
		ask("A.example", 1)
		ask("none.example", 1)
		ask("none.example", 1)
		ask("b.example", 1)
		ask("b.example", 2) // failures are not kept
		if txt, err := c.LookupTXT(t.Context(), "a.example"); err != nil || txt[0] != "x" {
			t.Errorf("%v, %v", txt, err)
		}
		if _, err := c.LookupMX(t.Context(), "a.example"); err == nil {
			t.Error("types are mixed up")
		}
		<-time.After(2 * time.Minute)
		ask("a.example", 1)
		ask("none.example", 2)
		<-time.After(4 * time.Minute)
		ask("a.example", 2)
		for i := range 100 {
			ask(fmt.Sprintf("n%d.example", i), 1)
		}
		if n := len(c.young) + len(c.old); n > 10 {
			t.Errorf("%d entries", n)
		}
		r.hang = true
		start := time.Now()
		if _, err := c.LookupTXT(t.Context(), "slow.example"); err == nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
