package auth

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// spfSuite is one document of the openspf test suite.
type spfSuite struct {
	Description string
	Tests       map[string]struct {
		Helo, Host string
		MailFrom   string `yaml:"mailfrom"`
		Result     yaml.Node
		Skip       string
	}
	ZoneData map[string][]yaml.Node `yaml:"zonedata"`
}

// suiteResolver answers from a suite's zone.
type suiteResolver struct {
	txt    map[string][]string
	mx     map[string][]*net.MX
	ip     map[string][]net.IPAddr
	ptr    map[string][]string
	cname  map[string]string
	errors map[string]error
}

func (r *suiteResolver) name(name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	for range 8 {
		next, ok := r.cname[name]
		if !ok {
			break
		}
		name = strings.ToLower(next)
	}
	return name
}

func answer[T any](r *suiteResolver, m map[string][]T, name string) ([]T, error) {
	name = r.name(name)
	if err := r.errors[name]; err != nil {
		return nil, err
	}
	if v, ok := m[name]; ok {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (r *suiteResolver) LookupTXT(_ context.Context, name string) ([]string, error) {
	return answer(r, r.txt, name)
}

func (r *suiteResolver) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	return answer(r, r.mx, name)
}

func (r *suiteResolver) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	return answer(r, r.ip, name)
}

func (r *suiteResolver) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return answer(r, r.ptr, addr)
}

// scalars gives a node's value or values.
func scalars(n *yaml.Node) []string {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var out []string
	for _, c := range n.Content {
		out = append(out, c.Value)
	}
	return out
}

// reverse turns 4.3.2.1.in-addr.arpa and its like into the address.
func reverse(name string) string {
	labels := strings.Split(name, ".")
	labels = labels[:len(labels)-2]
	slices.Reverse(labels)
	if strings.HasSuffix(name, ".in-addr.arpa") {
		return strings.Join(labels, ".")
	}
	var b strings.Builder
	for i, l := range labels {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(l)
	}
	return netip.MustParseAddr(b.String()).String()
}

func newSuiteResolver(s spfSuite) *suiteResolver {
	r := &suiteResolver{
		txt: map[string][]string{}, mx: map[string][]*net.MX{}, ip: map[string][]net.IPAddr{},
		ptr: map[string][]string{}, cname: map[string]string{}, errors: map[string]error{},
	}
	for name, records := range s.ZoneData {
		name = strings.ToLower(name)
		var spf []string
		for _, node := range records {
			if node.Kind == yaml.ScalarNode { // TIMEOUT for every type
				r.errors[name] = &net.DNSError{Err: "timeout", IsTimeout: true}
				continue
			}
			kind, value := node.Content[0].Value, node.Content[1]
			v := scalars(value)
			switch kind {
			case "TXT":
				r.txt[name] = append(r.txt[name], strings.Join(v, ""))
			case "SPF":
				spf = append(spf, strings.Join(v, ""))
			case "A", "AAAA":
				for _, a := range v {
					r.ip[name] = append(r.ip[name], net.IPAddr{IP: net.ParseIP(a)})
				}
			case "MX":
				r.mx[name] = append(r.mx[name], &net.MX{Host: v[1]})
			case "PTR":
				r.ptr[reverse(name)] = append(r.ptr[reverse(name)], strings.TrimSuffix(v[0], ".")+".")
			case "CNAME":
				r.cname[name] = v[0]
			case "TIMEOUT", "SERVFAIL", "CNAMELOOP":
				err := &net.DNSError{Err: kind, IsTimeout: kind == "TIMEOUT"}
				r.errors[name] = err
				if strings.HasSuffix(name, ".arpa") {
					r.errors[reverse(name)] = err
				}
			}
		}
		if len(r.txt[name]) == 0 && len(spf) > 0 {
			r.txt[name] = spf
		}
	}
	return r
}

// TestSPFSuite runs the cases of RFC 7208's test suite that the library ships,
// through our own entry.
func TestSPFSuite(t *testing.T) {
	t.Parallel()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "blitiri.com.ar/go/spf").Output()
	if err != nil {
		t.Skip("the module cache cannot be asked: ", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "rfc7208-tests.yml"))
	if err != nil {
		t.Skip("the library comes without its suite: ", err)
	}
	defer f.Close() //nolint:errcheck // read only
	dec := yaml.NewDecoder(f)
	run, words := 0, map[Result]int{}
	for {
		var s spfSuite
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		v := &Verifier{Resolver: newSuiteResolver(s)}
		for name, tc := range s.Tests {
			if tc.Skip != "" {
				continue
			}
			run++
			_, got := v.SPF(t.Context(), Sender{Addr: netip.MustParseAddr(tc.Host), HELO: tc.Helo, MailFrom: tc.MailFrom})
			words[got.Result]++
			if !slices.Contains(scalars(&tc.Result), string(got.Result)) {
				t.Errorf("%s, %s: %s (%s), want %v", s.Description, name, got.Result, got.Reason, scalars(&tc.Result))
			}
		}
	}
	t.Logf("%d cases: %v", run, words)
	if run < 150 {
		t.Errorf("only %d cases", run)
	}
}

func TestSPFIdentities(t *testing.T) {
	t.Parallel()
	v := &Verifier{Resolver: zone{txt: map[string][]string{
		"helo.example": {"v=spf1 ip4:192.0.2.7 -all"},
		"from.example": {"v=spf1 ~all"},
	}, broken: map[string]bool{"broken.example": true}}}
	addr := netip.MustParseAddr("::ffff:192.0.2.7")
	for _, tc := range []struct {
		helo, from         string
		wantHelo, wantFrom Result
		domain             string
	}{
		{"helo.example", "a@from.example", Pass, SoftFail, "from.example"},
		{"helo.example", "", Pass, Pass, "helo.example"},
		{"[192.0.2.7]", "a@from.example", None, SoftFail, "from.example"},
		{"localhost", "a@Unknown.example", None, None, "unknown.example"},
		{"helo.example", "a@broken.example", Pass, TempError, "broken.example"},
		{"bad host\r\nX: y", "a", None, None, ""},
	} {
		helo, from := v.SPF(t.Context(), Sender{Addr: addr, HELO: tc.helo, MailFrom: tc.from})
		if helo.Result != tc.wantHelo || from.Result != tc.wantFrom || from.Domain != tc.domain || !helo.Helo || from.Helo {
			t.Errorf("HELO %q, MAIL FROM %q: %+v, %+v", tc.helo, tc.from, helo, from)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, from := v.SPF(ctx, Sender{Addr: addr, HELO: "h.example", MailFrom: "a@gone.example"}); from.Result != TempError {
		t.Errorf("cancelled: %+v", from)
	}
}

func TestReceivedSPF(t *testing.T) {
	t.Parallel()
	s := Sender{Addr: netip.MustParseAddr("192.0.2.7"), HELO: "h\"\r\nX: y", MailFrom: "a@b.example"}
	got := SPFResult{Result: Pass, Domain: "b.example"}.ReceivedSPF(s, "mx.example")
	want := `pass (mx.example: domain of b.example designates the client as permitted sender) client-ip=192.0.2.7; ` +
		`envelope-from="a@b.example"; helo="h???X: y"; identity=mailfrom; receiver="mx.example"`
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
