package auth

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// signer is a key with its record.
type signer struct {
	key    crypto.Signer
	record string
}

func newEd25519(tb testing.TB) signer {
	tb.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return signer{key, "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)}
}

func newRSA(tb testing.TB, bits int) signer {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return signer{key, "v=DKIM1; k=rsa; h=sha256; p=" + base64.StdEncoding.EncodeToString(der)}
}

const letter = "From: Alice <alice@sender.example>\r\nTo: bob@rcpt.example\r\nSubject: lunch\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n" +
	"Message-ID: <1@sender.example>\r\n\r\nHello Bob,\r\n\r\nlunch at  twelve?\r\n\r\n"

func TestDKIM(t *testing.T) {
	t.Parallel()
	keys := map[string]signer{"rsa": newRSA(t, 2048), "ed": newEd25519(t)}
	z := zone{txt: map[string][]string{}, broken: map[string]bool{"gone._domainkey.sender.example": true}}
	for sel, k := range keys {
		z.txt[sel+"._domainkey.sender.example"] = []string{k.record}
	}
	z.txt["revoked._domainkey.sender.example"] = []string{"v=DKIM1; p="}
	z.txt["two._domainkey.sender.example"] = []string{"v=DKIM1; p=x", "v=DKIM1; p=y"}
	z.txt["huge._domainkey.sender.example"] = []string{"v=DKIM1; p=" + strings.Repeat("A", 60_000)}
	v := &Verifier{Resolver: z}
	for kind, k := range keys {
		for _, mode := range []dkim.Canonicalization{dkim.CanonicalizationSimple, dkim.CanonicalizationRelaxed} {
			for _, tc := range []struct {
				name     string
				selector string
				alter    func(string) string
				relaxed  Result
				simple   Result
			}{
				{"as signed", kind, func(s string) string { return s }, Pass, Pass},
				{"body altered", kind, func(s string) string { return strings.Replace(s, "twelve", "eleven", 1) }, Fail, Fail},
				{"body longer", kind, func(s string) string { return s + "PS: buy\r\n" }, Fail, Fail},
				{"header altered", kind, func(s string) string { return strings.Replace(s, "lunch\r\nDate", "dinner\r\nDate", 1) }, Fail, Fail},
				{"second From", kind, func(s string) string { return "From: eve@evil.example\r\n" + s }, Pass, Pass},
				{"blanks in the body", kind, func(s string) string { return strings.Replace(s, "at  twelve", "at twelve", 1) }, Pass, Fail},
				{"folded header", kind, func(s string) string { return strings.Replace(s, "Subject: lunch", "Subject:\r\n lunch", 1) }, Pass, Fail},
				{"blank lines at the end", kind, func(s string) string { return s + "\r\n\r\n" }, Pass, Pass},
				{"another header in front", kind, func(s string) string { return "Received: from x\r\n" + s }, Pass, Pass},
				{"no such key", "none", func(s string) string { return s }, PermError, PermError},
				{"dns away", "gone", func(s string) string { return s }, TempError, TempError},
				{"revoked", "revoked", func(s string) string { return s }, PermError, PermError},
				{"two records", "two", func(s string) string { return s }, PermError, PermError},
				{"huge record", "huge", func(s string) string { return s }, PermError, PermError},
				{"body length tag", kind, func(s string) string { return strings.Replace(s, " bh=", " l=5; bh=", 1) }, Policy, Policy},
			} {
				t.Run(fmt.Sprint(kind, " ", mode, " ", tc.name), func(t *testing.T) {
					t.Parallel()
					var b bytes.Buffer
					if err := dkim.Sign(&b, strings.NewReader(letter), &dkim.SignOptions{
						Domain: "sender.example", Selector: tc.selector, Signer: k.key,
						HeaderCanonicalization: mode, BodyCanonicalization: mode, HeaderKeys: []string{"From", "To", "Subject", "Date"},
					}); err != nil {
						t.Fatal(err)
					}
					got, err := v.DKIM(t.Context(), strings.NewReader(tc.alter(b.String())))
					if err != nil || len(got) != 1 {
						t.Fatalf("%+v, %v", got, err)
					}
					want := tc.simple
					if mode == dkim.CanonicalizationRelaxed {
						want = tc.relaxed
					}
					if got[0].Result != want {
						t.Errorf("%+v, want %s", got[0], want)
					}
					if got[0].Domain != "sender.example" || got[0].Selector != tc.selector || len(got[0].Signature) != 8 {
						t.Errorf("described as %+v", got[0])
					}
				})
			}
		}
	}
}

func TestDKIMSeveral(t *testing.T) {
	t.Parallel()
	a, b := newEd25519(t), newEd25519(t)
	z := zone{txt: map[string][]string{"s._domainkey.a.example": {a.record}, "s._domainkey.b.example": {a.record}}} // b: wrong key
	message := letter
	for domain, k := range map[string]signer{"a.example": a, "b.example": b} {
		var buf bytes.Buffer
		if err := dkim.Sign(&buf, strings.NewReader(message), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: k.key, HeaderKeys: []string{"From"}}); err != nil {
			t.Fatal(err)
		}
		message = buf.String()
	}
	got, err := (&Verifier{Resolver: z}).DKIM(t.Context(), strings.NewReader(message))
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, r := range got {
		if want := map[string]Result{"a.example": Pass, "b.example": Fail}[r.Domain]; r.Result != want {
			t.Errorf("%+v, want %s", r, want)
		}
	}
}

// TestDKIMExcess: what is made to cost time is refused quickly.
func TestDKIMExcess(t *testing.T) {
	t.Parallel()
	v := &Verifier{Resolver: zone{}}
	sig := func(h string) string {
		return "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=" + h + "; bh=AA==; b=AA==\r\n"
	}
	for name, message := range map[string]string{
		"header of 1 MiB": sig("from") + "A: b\r\n" + strings.Repeat(" x\r\n", 1<<18) + "\r\nbody",
		"100,000 fields":  sig("from") + strings.Repeat("A:\r\n", 100_000) + "\r\nbody",
		"10,000 names":    sig("from"+strings.Repeat(":a", 10_000)) + "From: a@b\r\n\r\nbody",
		"1,000 names":     sig("from"+strings.Repeat(":a", 1000)) + "From: a@b\r\n\r\nbody",
		"1,000 times":     strings.Repeat(sig("from"), 1000) + "From: a@b\r\n\r\nbody",
	} {
		start := time.Now()
		got, err := v.DKIM(t.Context(), strings.NewReader(message))
		if err != nil || len(got) < 1 || len(got) > maxSignatures || got[0].Result != PermError {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: %v", name, d)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestUnreadableMessage(t *testing.T) {
	t.Parallel()
	v := &Verifier{Resolver: zone{txt: map[string][]string{}}}
	sig := "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AA==; b=AA==\r\n"
	message := io.MultiReader(strings.NewReader(sig+sig+"From: a@b\r\n\r\nbody"), brokenReader{})
	if _, err := v.DKIM(t.Context(), message); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("dkim: %v", err)
	}
	if _, err := v.ARC(t.Context(), brokenReader{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("arc: %v", err)
	}
}

// TestCanonicalBodyAgreesWithLibrary compares our canonical body with the one
// behind the library's body hash.
func TestCanonicalBodyAgreesWithLibrary(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "\r\n", "\r\n\r\n", "a", "a\r\n", "a \t b  \r\n\r\n\r\n", " \r\n", "a\r\n \r\n\r\n", "\ta\r\n\r\nb\r\n", "a\nb\n", "a\rb\r\n", "a\r"} {
		for _, mode := range []string{"simple", "relaxed"} {
			var want bytes.Buffer
			if err := dkim.Sign(&want, strings.NewReader("From: a@b\r\n\r\n"+body), &dkim.SignOptions{
				Domain: "a.example", Selector: "s", Signer: newEd25519(t).key, BodyCanonicalization: dkim.Canonicalization(mode),
			}); err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(want.String(), "bh=")
			bh, _, _ := strings.Cut(noSpace(rest), ";")
			got := bodyHash(body, mode)
			if got != bh && (mode != "relaxed" || !strings.Contains("\r\n\r\n \r\n", body) && body != "a\r") {
				t.Errorf("%s %q: %s, want %s", mode, body, got, bh)
			}
		}
	}
}

// TestOverlongKeyRecord: a record that would be right, but for its length.
func TestOverlongKeyRecord(t *testing.T) {
	t.Parallel()
	k := newEd25519(t)
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(letter), &dkim.SignOptions{Domain: "a.example", Selector: "s", Signer: k.key, HeaderKeys: []string{"From"}}); err != nil {
		t.Fatal(err)
	}
	for note, want := range map[int]Result{100: Pass, maxKeyBytes: PermError} {
		z := zone{txt: map[string][]string{"s._domainkey.a.example": {k.record + "; n=" + strings.Repeat("x", note)}}}
		got, err := (&Verifier{Resolver: z}).DKIM(t.Context(), bytes.NewReader(b.Bytes()))
		if err != nil || len(got) != 1 || got[0].Result != want {
			t.Errorf("a note of %d bytes: %+v, %v", note, got, err)
		}
	}
}

func TestKeyNames(t *testing.T) {
	t.Parallel()
	got := KeyNames([]string{"a=x; s=S1; d=A.example", "d=a.example;\r\n\ts=s1", "s=x y; d=b.example", "s=../; d=c.example", "nonsense", "s=z; d=" + strings.Repeat("a", 300)})
	if want := []string{"s1._domainkey.a.example", "xy._domainkey.b.example"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
