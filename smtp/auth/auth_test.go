package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

// zone is a Resolver over fixed records. A name in broken fails temporarily.
type zone struct {
	txt    map[string][]string
	broken map[string]bool
}

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	name = strings.TrimSuffix(name, ".")
	if z.broken[name] {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	if t, ok := z.txt[name]; ok {
		return t, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (z zone) LookupMX(context.Context, string) ([]*net.MX, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (z zone) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (z zone) LookupAddr(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

const plainMessage = "From: a@mail.example.co.uk\r\nTo: b@demo.example\r\nSubject: hi\r\n\r\nbody\r\n"

// signed returns plainMessage with a signature of domain, and the key's record.
func signed(t *testing.T, domain string) (message []byte, record map[string][]string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(plainMessage), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: key}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), map[string][]string{
		"s._domainkey." + domain: {"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)},
	}
}

func TestEnvelopeSender(t *testing.T) {
	t.Parallel()
	spfPass := map[string][]string{"mail.example.co.uk": {"v=spf1 ip4:192.0.2.0/24 -all"}}
	spfSoft := map[string][]string{"mail.example.co.uk": {"v=spf1 ~all"}}
	message, key := signed(t, "example.co.uk")
	altered := bytes.Replace(message, []byte("body"), []byte("b0dy"), 1)
	foreign, foreignKey := signed(t, "elsewhere.example")
	const from = "bounce+7@mail.example.co.uk"

	for _, tc := range []struct {
		name    string
		zone    zone
		from    string
		message []byte
		want    Evidence
		unknown bool
	}{
		{name: "spf pass", zone: zone{txt: spfPass}, from: from, message: []byte(plainMessage), want: Evidence{"spf", "mail.example.co.uk"}},
		{name: "spf softfail is no evidence", zone: zone{txt: spfSoft}, from: from, message: []byte(plainMessage)},
		{name: "nothing published", from: from, message: []byte(plainMessage)},
		{name: "null sender", zone: zone{txt: spfPass}, from: "", message: message},
		{name: "aligned dkim", zone: zone{txt: key}, from: from, message: message, want: Evidence{"dkim", "example.co.uk"}},
		{name: "altered body", zone: zone{txt: key}, from: from, message: altered},
		{name: "signature of somebody else", zone: zone{txt: foreignKey}, from: from, message: foreign},
		{name: "spf unknown, nothing else", zone: zone{broken: map[string]bool{"mail.example.co.uk": true}}, from: from, message: []byte(plainMessage), unknown: true},
		{name: "spf unknown, but dkim passes", zone: zone{txt: key, broken: map[string]bool{"mail.example.co.uk": true}}, from: from, message: message, want: Evidence{"dkim", "example.co.uk"}},
		{name: "dkim key unknown", zone: zone{broken: map[string]bool{"s._domainkey.example.co.uk": true}}, from: from, message: message, unknown: true},
		{name: "no message at all", zone: zone{}, from: from, message: []byte("not a message")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			v := &Verifier{Resolver: tc.zone}
			got, err := v.EnvelopeSender(t.Context(), Sender{Addr: netip.MustParseAddr("192.0.2.7"), HELO: "h", MailFrom: tc.from}, bytes.NewReader(tc.message))
			if got != tc.want || errors.Is(err, ErrUnknown) != tc.unknown || (err != nil) != tc.unknown {
				t.Errorf("got %+v, %v; want %+v, unknown %t", got, err, tc.want, tc.unknown)
			}
		})
	}
}

func TestCancelledCheckIsUnknown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := &Verifier{Resolver: zone{}}
	ev, err := v.EnvelopeSender(ctx, Sender{Addr: netip.MustParseAddr("192.0.2.7"), MailFrom: "a@b.example"}, strings.NewReader(plainMessage))
	if ev.Pass() || !errors.Is(err, ErrUnknown) {
		t.Errorf("got %+v, %v", ev, err)
	}
}

func TestAligned(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b            string
		relaxed, strict bool
	}{
		{"example.com", "example.com", true, true},
		{"Example.COM.", "example.com", true, true},
		{"mail.example.com", "example.com", true, false},
		{"a.example.co.uk", "b.example.co.uk", true, false},
		{"a.co.uk", "b.co.uk", false, false}, // co.uk is a public suffix
		{"example.com", "example.org", false, false},
		{"bücher.example", "xn--bcher-kva.example", true, true},
		{"", "", false, false},
		{"localhost", "localhost", true, true},
	} {
		if got := Aligned(tc.a, tc.b, false); got != tc.relaxed {
			t.Errorf("Aligned(%q, %q) relaxed = %t", tc.a, tc.b, got)
		}
		if got := Aligned(tc.a, tc.b, true); got != tc.strict {
			t.Errorf("Aligned(%q, %q) strict = %t", tc.a, tc.b, got)
		}
	}
}
