package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// fakeDNS is a Resolver with fixed answers.
type fakeDNS struct {
	mx       map[string][]string
	tlsa     map[string][]*dns.TLSA
	txt      map[string]string
	insecure bool
	fail     error
}

func (d *fakeDNS) MX(_ context.Context, domain string) ([]string, bool, error) {
	return d.mx[domain], !d.insecure, nil
}

func (d *fakeDNS) TLSA(_ context.Context, host, port string) ([]*dns.TLSA, bool, error) {
	return d.tlsa[host+":"+port], !d.insecure, d.fail
}

func (d *fakeDNS) TXT(_ context.Context, name string) ([]string, error) {
	if s, ok := d.txt[name]; ok {
		return []string{s}, nil
	}
	return nil, d.fail
}

// fakeWeb answers policy requests.
type fakeWeb struct {
	mu    sync.Mutex
	body  string
	code  int
	asked int
}

func (w *fakeWeb) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if req.URL.Scheme != "https" || req.URL.Path != "/.well-known/mta-sts.txt" || !strings.HasPrefix(req.URL.Host, "mta-sts.") {
		return nil, fmt.Errorf("asked for %s", req.URL)
	}
	if w.code == 0 {
		return nil, errors.New("unreachable")
	}
	return &http.Response{StatusCode: w.code, Status: http.StatusText(w.code), Body: io.NopCloser(strings.NewReader(w.body)), Request: req}, nil
}

func TestTargets(t *testing.T) {
	t.Parallel()
	ee := &dns.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Certificate: strings.Repeat("ab", 32)}
	odd := &dns.TLSA{Usage: 1, Selector: 1, MatchingType: 1, Certificate: strings.Repeat("ab", 32)}
	enforce := "version: STSv1\r\nmode: enforce\r\nmx: a.test\r\nmx: *.b.test\r\nmax_age: 86400\r\n"
	full := &fakeDNS{
		mx: map[string][]string{
			"d.test": {"a.test", "x.b.test", "evil.test"}, "null.test": {""},
			// mx2.test is this host: whoever stands at or behind it would send the mail back.
			"backed.test": {"a.test", "MX2.test", "mx3.test"}, "own.test": {"mx2.test", "a.test"},
		},
		tlsa: map[string][]*dns.TLSA{"a.test:25": {ee}, "odd.test:25": {odd}},
		txt:  map[string]string{"_mta-sts.d.test": "v=STSv1; id=1;"},
	}
	tests := []struct {
		name, hop string
		dns       *fakeDNS
		web       string
		want      string
	}{
		{"a host", "smtp://a.test", full, "", "a.test:25=opportunistic"},
		{"a host with DANE", "smtp://a.test?tls=dane", full, "", "a.test:25=opportunistic+verify"},
		{"DANE on another port", "smtp://a.test:26?tls=dane", full, "", "a.test:26=opportunistic"},
		{"unusable TLSA records: encrypted", "smtp://odd.test?tls=dane", full, "", "odd.test:25=opportunistic+noplain"},
		{"TLSA not validated", "smtp://a.test?tls=dane", &fakeDNS{tlsa: full.tlsa, insecure: true}, "", "a.test:25=opportunistic"},
		{"TLSA lookup fails: not used", "smtp://a.test?tls=dane", &fakeDNS{fail: errors.New("SERVFAIL")}, "", "! SERVFAIL"},
		{"an address has no TLSA", "smtp://192.0.2.1?tls=dane", &fakeDNS{fail: errors.New("SERVFAIL")}, "", "192.0.2.1:25=opportunistic"},
		{"no MX: the domain itself", "mx://plain.test", full, "", "plain.test:25=opportunistic"},
		{"null MX", "mx://null.test", full, "", "! takes no mail"},
		{"MX with this host as backup", "mx://backed.test", full, "", "a.test:25=opportunistic"},
		{"MX with this host first", "mx://own.test", full, "", "! loops back"},
		{"no MX, and the domain is this host", "mx://mx2.test", full, "", "! loops back"},
		{"MX with MTA-STS", "mx://d.test", full, enforce, "a.test:25=verified x.b.test:25=verified"},
		{"MX with MTA-STS and DANE", "mx://d.test?tls=dane", full, enforce, "a.test:25=opportunistic+verify x.b.test:25=verified"},
		{"MTA-STS in testing", "mx://d.test", full, strings.Replace(enforce, "enforce", "testing", 1), "a.test:25=opportunistic x.b.test:25=opportunistic evil.test:25=opportunistic"},
		{"MTA-STS unreachable", "mx://d.test?tls=required", full, "", "a.test:25=required x.b.test:25=required evil.test:25=required"},
		{"all hosts against the policy", "mx://d.test", full, strings.NewReplacer("a.test", "q.test", "*.b.test", "r.test").Replace(enforce), "! MTA-STS policy"},
		{"tls=none asks nobody", "mx://d.test?tls=none", full, enforce, "a.test:25=none x.b.test:25=none evil.test:25=none"},
	}
	for _, tt := range tests {
		web := &fakeWeb{body: tt.web}
		if tt.web != "" {
			web.code = 200
		}
		g := newRig(t, nil, nil, tt.hop)
		g.resolver = tt.dns
		g.sts = newSTSCache(tt.dns, &http.Client{Transport: web}, nil)
		targets, err := g.targets(t.Context(), g.hops[0])
		var got []string
		for _, x := range targets {
			s := x.address + "=" + string(x.policy)
			if x.verify != nil {
				s += "+verify"
			}
			if x.noPlain {
				s += "+noplain"
			}
			got = append(got, s)
		}
		line := strings.Join(got, " ")
		if err != nil {
			if want, ok := strings.CutPrefix(tt.want, "! "); !ok || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
			}
			continue
		}
		if line != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, line, tt.want)
		}
	}
}

func TestParseSTS(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 10\n", "enforce [a.test] 10s"},
		{"version: STSv1\r\nmode: enforce\r\nmx: A.test\r\nmx: *.b.test\r\nmax_age: 4294967295\r\nfuture: x\r\n\r\n", "enforce [a.test *.b.test] 8766h0m0s"},
		{"version: STSv1\nmode: none\nmax_age: 1\n", "none [] 1s"},
		{"version: STSv1\nmode: testing\nmode: enforce\nmx: a\nmax_age: 1\n", "testing [a] 1s"},
		{"version: STSv2\nmode: enforce\nmx: a\nmax_age: 1\n", "!"},
		{"mode: enforce\nmx: a\nmax_age: 1\n", "!"},
		{"version: STSv1\nmode: enforce\nmax_age: 1\n", "!"},
		{"version: STSv1\nmode: maybe\nmx: a\nmax_age: 1\n", "!"},
		{"version: STSv1\nmode: enforce\nmx: a\n", "!"},
		{"version: STSv1\nmode: enforce\nmx: a\nmax_age: -1\n", "!"},
		{"<html>\n", "!"},
		{"", "!"},
	}
	for _, tt := range tests {
		p, err := parseSTS(tt.text)
		got := fmt.Sprintf("%s %v %v", p.mode, p.mx, p.maxAge)
		if err != nil {
			got = "!"
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s (%v)", tt.text, got, tt.want, err)
		}
	}
}

func FuzzParseSTS(f *testing.F) {
	f.Add("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 10\n")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseSTS(s)
		if err == nil && (p.mode == "" || p.maxAge < 0 || p.maxAge > stsMaxAge) {
			t.Fatalf("%+v", p)
		}
	})
}

func TestSTSAllows(t *testing.T) {
	t.Parallel()
	p := stsPolicy{mx: []string{"mx.a.test", "*.b.test"}}
	for host, want := range map[string]bool{
		"mx.a.test": true, "MX.A.test.": true, "a.test": false, "x.mx.a.test": false,
		"x.b.test": true, "b.test": false, "x.y.b.test": false, "xb.test": false, "": false,
	} {
		if got := p.allows(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// A policy stays in force while it is valid, also when nobody answers any more.
func TestSTSCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDNS{txt: map[string]string{"_mta-sts.d.test": "v=STSv1; id=1;"}}
		web := &fakeWeb{code: 200, body: "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 86400\n"}
		c := newSTSCache(d, &http.Client{Transport: web}, nil)
		mode := func() string {
			p, _ := c.policy(t.Context(), "d.test")
			return p.mode
		}
		if a, b := mode(), mode(); a != "enforce" || b != "enforce" || web.asked != 1 {
			t.Errorf("fetched %d times", web.asked)
		}
		<-time.After(time.Hour)
		if mode() != "enforce" || web.asked != 1 {
			t.Errorf("the id did not change, fetched %d times", web.asked)
		}
		<-time.After(20 * time.Hour)
		if mode() != "enforce" || web.asked != 2 {
			t.Errorf("not renewed before it runs out, fetched %d times", web.asked)
		}
		web.code = 0
		<-time.After(4 * time.Hour)
		if mode() != "enforce" {
			t.Error("an attacker who drops the web server as the policy runs out turns it off")
		}
		web.code = 200
		<-time.After(10 * time.Minute)
		_ = mode()
		d.txt = nil
		<-time.After(time.Hour)
		if mode() != "enforce" {
			t.Error("an attacker who drops the TXT record turns the policy off")
		}
		d.txt = map[string]string{"_mta-sts.d.test": "v=STSv1; id=2;"}
		web.code = 0
		<-time.After(time.Hour)
		if mode() != "enforce" {
			t.Error("an attacker who drops the web server turns the policy off")
		}
		web.code, web.body = 200, "version: STSv1\nmode: none\nmax_age: 86400\n"
		<-time.After(time.Hour)
		if mode() != "none" {
			t.Error("the new policy is not taken")
		}
		d.txt = map[string]string{"_mta-sts.d.test": "v=STSv1; id=3;"}
		web.body = "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 86400\n"
		<-time.After(time.Hour)
		if mode() != "enforce" {
			t.Error("the third policy is not taken")
		}
		d.txt = nil
		<-time.After(48 * time.Hour)
		if mode() != "none" {
			t.Error("an old policy lives for ever")
		}
	})
}

// sharedPort listens on one port with UDP and TCP. Somebody else may have the TCP port
// of a UDP port that is free.
func sharedPort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var fault error
	for range 20 {
		pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		fault = errors.Join(err, pc.Close())
	}
	t.Fatal(fault)
	return nil, nil
}

// The real resolver, against a DNS server on loopback.
func TestResolver(t *testing.T) {
	t.Parallel()
	pc, l := sharedPort(t)
	big := strings.Repeat("x", 250)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.AuthenticatedData = q.AuthenticatedData
		name := q.Question[0].Name
		add := func(s string) {
			rr, err := dns.NewRR(name + " 60 IN " + s)
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		switch q.Question[0].Qtype {
		case dns.TypeMX:
			switch name {
			case "d.test.":
				add("MX 20 b.test.")
				add("MX 10 a.test.")
			case "null.test.":
				add("MX 0 .")
			case "broken.test.":
				m.Rcode = dns.RcodeServerFailure
			default:
				m.Rcode = dns.RcodeNameError
			}
		case dns.TypeTLSA:
			add("TLSA 3 1 1 " + strings.Repeat("ab", 32))
		case dns.TypeTXT:
			if w.RemoteAddr().Network() == "udp" {
				m.Truncated = true
			} else {
				add(`TXT "v=STSv1; " "id=1;"`)
				for range 10 {
					add(`TXT "` + big + `"`)
				}
			}
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		t.Cleanup(func() {
			_ = s.ShutdownContext(context.Background())
			<-ended
		})
	}
	r := dnsResolver{server: pc.LocalAddr().String()}
	hosts, secure, err := r.MX(t.Context(), "d.test")
	if err != nil || !secure || fmt.Sprint(hosts) != "[a.test b.test]" {
		t.Errorf("MX: %v %v %v", hosts, secure, err)
	}
	if hosts, _, err := r.MX(t.Context(), "null.test"); err != nil || len(hosts) != 1 || hosts[0] != "" {
		t.Errorf("null MX: %q %v", hosts, err)
	}
	if hosts, _, err := r.MX(t.Context(), "none.test"); err != nil || len(hosts) != 0 {
		t.Errorf("no domain: %q %v", hosts, err)
	}
	if _, _, err := r.MX(t.Context(), "broken.test"); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("broken: %v", err)
	}
	records, secure, err := r.TLSA(t.Context(), "a.test", "25")
	if err != nil || !secure || len(usable(records)) != 1 || records[0].Hdr.Name != "_25._tcp.a.test." {
		t.Errorf("TLSA: %v %v %v", records, secure, err)
	}
	txt, err := r.TXT(t.Context(), "_mta-sts.d.test")
	if err != nil || len(txt) != 11 || stsRecordID(txt) != "1" {
		t.Errorf("TXT: %d %v", len(txt), err)
	}
}
