package smtp

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, local, domain, out string }{
		{"a@b", "a", "b", "a@b"},
		{"A.b@Example.COM", "A.b", "example.com", "A.b@example.com"},
		{`"a"@b`, "a", "b", "a@b"},
		{`"a b"@b`, "a b", "b", `"a b"@b`},
		{`"a\"b"@b`, `a"b`, "b", `"a\"b"@b`},
		{`"a\\b"@b`, `a\b`, "b", `"a\\b"@b`},
		{`"a@b"@c`, "a@b", "c", `"a@b"@c`},
		{"a@b@c", "a@b", "c", `"a@b"@c`},
		{`""@b`, "", "b", `""@b`},
		{"a..b@c", "a..b", "c", `"a..b"@c`},
		{"postmaster", "postmaster", "", "postmaster"},
		{"u@[192.0.2.1]", "u", "[192.0.2.1]", "u@[192.0.2.1]"},
		{"u@[IPv6:2001:DB8::1]", "u", "[ipv6:2001:db8::1]", "u@[ipv6:2001:db8::1]"},
		{"u@b.", "u", "b", "u@b"},
		{"u@BÜCHER.example", "u", "xn--bcher-kva.example", "u@xn--bcher-kva.example"},
		{"u@under_score.example", "u", "under_score.example", "u@under_score.example"},
		{"jose\u0301@b", "josé", "b", "josé@b"},
	} {
		a, err := ParseAddress(tc.in)
		if err != nil || a.Local != tc.local || a.Domain != tc.domain || a.String() != tc.out {
			t.Errorf("%q: %+v %q %v", tc.in, a, a.String(), err)
		}
	}
	for _, in := range []string{
		"", "@b", "a@", "a b@c", `"a@b`, `"a"b@c`, `"a\`, "a\x00b@c", "a\r\n@b", "a@b c", "a@b..c", "a@b..", "a@.\x80c", "a@.b", "a@b\r\n", "\xff@b",
		"a@" + strings.Repeat("x", 256), "a@<b>", `"` + "\x01" + `"@b`,
	} {
		if a, err := ParseAddress(in); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %+v %v", in, a, err)
		}
	}
}

// What is parsed is printed in a form that parses to the same.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@c`, "u@bücher.example", "postmaster", `"\""@x`, "a@b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		b, err := ParseAddress(a.String())
		if err != nil || a != b {
			t.Errorf("%q: %+v, then %+v %v", s, a, b, err)
		}
	})
}

func TestDomains(t *testing.T) {
	t.Parallel()
	d, err := NewDomains([]string{"Example.COM", "bücher.example"})
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]bool{
		"example.com": true, "EXAMPLE.com.": true, "sub.example.com": false, "xn--bcher-kva.example": true, "Bücher.Example": true, "": false, "a b": false,
	} {
		if d.Has(in) != want {
			t.Errorf("%q: %t", in, !want)
		}
	}
	if err := d.Replace([]string{"a b", "c", "d e"}); err == nil || strings.Count(err.Error(), "\n") != 1 || !d.Has("example.com") {
		t.Errorf("bad list: %v", err)
	}
	if got := strings.Join(d.List(), " "); got != "example.com xn--bcher-kva.example" {
		t.Errorf("got %q", got)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Peers: []string{"x", "10.0.0.0/8"}, ETRNFrom: []string{"1.2.3"}, MaxOwnHops: -1, ReverseTimeout: -1, Limits: LimitsConfig{Exempt: []string{"/"}, Connections: -1}}.Validate()
	for _, key := range []string{
		"peers: ", "etrn_from: ", "limits.exempt: ", "max_hops: ", "max_own_hops: ", "reverse_timeout: ", "lookup_timeout: ", "filter_timeout: ", "commit_timeout: ",
		"limits.connections: ", "limits.clients: ",
	} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+key) {
			t.Errorf("no fault for %q in %v", key, err)
		}
	}
}
