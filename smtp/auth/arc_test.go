package auth

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func bodyHash(body, mode string) string {
	h := sha256.New()
	w := newBodyWriter(h, mode)
	for i := range len(body) { // byte by byte: pieces must not matter
		_, _ = w.Write([]byte{body[i]})
	}
	w.Close()
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// sealer adds sets to a message: the other side of ARC, for tests only.
type sealer struct {
	signer
	domain string
	mode   string // "relaxed" or "simple"
	alter  func(kind string, tags string) string
}

func (s sealer) sign(tb testing.TB, data string) string {
	tb.Helper()
	digest := sha256.Sum256([]byte(data))
	var opts crypto.SignerOpts = crypto.SHA256
	if _, ed := s.key.(ed25519.PrivateKey); ed {
		opts = crypto.Hash(0)
	}
	sig, err := s.key.Sign(rand.Reader, digest[:], opts)
	if err != nil {
		tb.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(sig)
	return text[:20] + "\r\n\t" + text[20:] // folded, as they come
}

func (s sealer) algorithm() string {
	if _, ed := s.key.(ed25519.PrivateKey); ed {
		return "ed25519-sha256"
	}
	return "rsa-sha256"
}

func (s sealer) changed(kind, tags string) string {
	if s.alter != nil {
		return s.alter(kind, tags)
	}
	return tags
}

// seal puts instance n in front of message.
func (s sealer) seal(tb testing.TB, message string, n int) string {
	tb.Helper()
	if s.mode == "" {
		s.mode = "relaxed"
	}
	h, _, err := splitHeader(strings.NewReader(message))
	if err != nil {
		tb.Fatal(err)
	}
	_, body, _ := strings.Cut(message, "\r\n\r\n")
	aar := s.changed("AAR", fmt.Sprintf("ARC-Authentication-Results: i=%d; mx%d.example;\r\n\tspf=pass smtp.mailfrom=a@b", n, n)) + "\r\n"
	ams := s.changed("AMS", fmt.Sprintf("ARC-Message-Signature: i=%d; a=%s; c=%s/%s; d=%s; s=s; t=1; h=from:to:subject;\r\n\tbh=%s; b=", n, s.algorithm(), s.mode, s.mode, s.domain, bodyHash(body, s.mode)))
	var data strings.Builder
	names := byName(h.fields)
	for _, name := range []string{"from", "to", "subject"} {
		if len(names[name]) > 0 {
			data.WriteString(canonicalField(s.mode, names[name][0].raw))
		}
	}
	data.WriteString(strings.TrimSuffix(canonicalField(s.mode, ams+"\r\n"), "\r\n"))
	ams += s.sign(tb, data.String()) + "\r\n"

	cv := "pass"
	if n == 1 {
		cv = "none"
	}
	as := s.changed("AS", fmt.Sprintf("ARC-Seal: i=%d; a=%s; d=%s; s=s; cv=%s; b=", n, s.algorithm(), s.domain, cv))
	data.Reset()
	for i := 1; i < n; i++ {
		for _, kind := range []string{fieldAAR, fieldAMS, fieldAS} {
			for _, f := range h.fields {
				if f.name == kind && strings.Contains(f.raw, fmt.Sprintf(": i=%d;", i)) {
					data.WriteString(relaxedField(f.raw))
				}
			}
		}
	}
	data.WriteString(relaxedField(aar) + relaxedField(ams) + strings.TrimSuffix(relaxedField(as+"\r\n"), "\r\n"))
	as += s.sign(tb, data.String()) + "\r\n"
	return as + ams + aar + message
}

// chain seals message n times by n domains, alternating keys and modes.
func chain(tb testing.TB, z zone, keys []signer, message string, n int) string {
	tb.Helper()
	for i := 1; i <= n; i++ {
		s := sealer{signer: keys[i%len(keys)], domain: fmt.Sprintf("hop%d.example", i), mode: []string{"relaxed", "simple"}[i%2]}
		z.txt["s._domainkey."+s.domain] = []string{s.record}
		message = s.seal(tb, message, i)
		message = fmt.Sprintf("Received: from hop%d\r\n", i) + message
	}
	return message
}

func TestARC(t *testing.T) {
	t.Parallel()
	keys := []signer{newRSA(t, 2048), newEd25519(t)}
	z := zone{txt: map[string][]string{}, broken: map[string]bool{}}
	v := &Verifier{Resolver: z}
	three := chain(t, z, keys, letter, 3)
	check := func(t *testing.T, message string) ARCResult {
		t.Helper()
		r, err := v.ARC(t.Context(), strings.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for n := range 4 {
		want := ARCResult{Result: None}
		if n > 0 {
			want = ARCResult{Result: Pass, Instances: n, Sealer: fmt.Sprintf("hop%d.example", n), Results: fmt.Sprintf("mx%d.example; spf=pass smtp.mailfrom=a@b", n)}
		}
		if got := check(t, chain(t, z, keys, letter, n)); got != want {
			t.Errorf("chain of %d: %+v, want %+v", n, got, want)
		}
	}

	// Broken at each place: every line of every set, and what they cover.
	lines := strings.SplitAfter(three, "\r\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "ARC-") {
			continue
		}
		name, _, _ := strings.Cut(line, ";")
		t.Run("without "+name, func(t *testing.T) {
			var b strings.Builder
			skip := false
			for j, l := range lines {
				if j == i || skip && strings.HasPrefix(l, "\t") {
					skip = true
					continue
				}
				skip = false
				b.WriteString(l)
			}
			if got := check(t, b.String()); got.Result != Fail {
				t.Errorf("%+v", got)
			}
		})
		t.Run("twice "+name, func(t *testing.T) {
			twice := strings.Join(lines[:i], "") + line + "\tx=\r\n" + strings.Join(lines[i:], "")
			if got := check(t, twice); got.Result != Fail {
				t.Errorf("%+v", got)
			}
		})
	}
	for i := 1; i <= 3; i++ {
		for name, tc := range map[string]struct {
			old, new string
		}{
			"results":   {fmt.Sprintf("i=%d; mx%d.example;\r\n\tspf=pass", i, i), fmt.Sprintf("i=%d; mx%d.example;\r\n\tspf=fail", i, i)},
			"signature": {fmt.Sprintf("ARC-Message-Signature: i=%d;", i), fmt.Sprintf("ARC-Message-Signature: i=%d; z=1;", i)},
			"seal":      {fmt.Sprintf("ARC-Seal: i=%d;", i), fmt.Sprintf("ARC-Seal: i=%d; z=1;", i)},
			"instance":  {fmt.Sprintf("ARC-Seal: i=%d;", i), "ARC-Seal: i=9;"},
			"cv=fail":   {fmt.Sprintf("d=hop%d.example; s=s; cv=", i), fmt.Sprintf("d=hop%d.example; s=s; cv=fail; y=", i)},
		} {
			t.Run(fmt.Sprint(name, " ", i), func(t *testing.T) {
				message := strings.Replace(three, tc.old, tc.new, 1)
				if message == three {
					t.Fatal("nothing was altered")
				}
				if got := check(t, message); got.Result != Fail {
					t.Errorf("%+v", got)
				}
			})
		}
	}
	if got := check(t, strings.Replace(three, "twelve", "eleven", 1)); got.Result != Fail {
		t.Errorf("body altered: %+v", got)
	}
	if got := check(t, strings.Replace(three, "Subject: lunch", "Subject: dinner", 1)); got.Result != Fail {
		t.Errorf("subject altered: %+v", got)
	}
	// White space that "relaxed" ignores; instance 2 is relaxed, 3 and 1 simple.
	if got := check(t, strings.ReplaceAll(three, "\r\n", "\n")); got.Result != Pass {
		t.Errorf("stored with bare line feeds: %+v", got)
	}
}

func TestARCOldestPass(t *testing.T) {
	t.Parallel()
	k := newEd25519(t)
	z := zone{txt: map[string][]string{"s._domainkey.a.example": {k.record}}}
	s := sealer{signer: k, domain: "a.example"}
	message := s.seal(t, letter, 1)
	message = strings.Replace(message, "Subject: lunch", "Subject: [list] lunch", 1) // as a list does, then seals
	message = s.seal(t, message, 2)
	message = s.seal(t, message, 3)
	got, err := (&Verifier{Resolver: z}).ARC(t.Context(), strings.NewReader(message))
	if err != nil || got.Result != Pass || got.OldestPass != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestARCRules(t *testing.T) {
	t.Parallel()
	k, small := newEd25519(t), newRSA(t, 1024)
	z := zone{txt: map[string][]string{
		"s._domainkey.a.example":     {k.record},
		"s._domainkey.small.example": {small.record},
		"s._domainkey.sms.example":   {k.record + "; s=sms"},
	}, broken: map[string]bool{"s._domainkey.broken.example": true}}
	v := &Verifier{Resolver: z}
	replace := func(kind, old, repl string) func(string, string) string {
		return func(k, s string) string {
			if k == kind {
				return strings.Replace(s, old, repl, 1)
			}
			return s
		}
	}
	for _, tc := range []struct {
		name   string
		sealer sealer
		want   Result
	}{
		{"fine", sealer{signer: k, domain: "a.example"}, Pass},
		{"1024 bits", sealer{signer: small, domain: "small.example"}, Pass},
		{"no key", sealer{signer: k, domain: "none.example"}, Fail},
		{"dns away", sealer{signer: k, domain: "broken.example"}, TempError},
		{"wrong key", sealer{signer: k, domain: "small.example"}, Fail},
		{"key for something else", sealer{signer: k, domain: "sms.example"}, Fail},
		{"first says pass", sealer{signer: k, domain: "a.example", alter: replace("AS", "cv=none", "cv=pass")}, Fail},
		{"seal with h=", sealer{signer: k, domain: "a.example", alter: replace("AS", "cv=none", "h=from; cv=none")}, Fail},
		{"seal without d=", sealer{signer: k, domain: "a.example", alter: replace("AS", "d=a.example; ", "")}, Fail},
		{"signature of a seal", sealer{signer: k, domain: "a.example", alter: replace("AMS", "h=from:", "h=arc-seal:from:")}, Fail},
		{"From not signed", sealer{signer: k, domain: "a.example", alter: replace("AMS", "h=from:", "h=")}, Fail},
		{"part of the body", sealer{signer: k, domain: "a.example", alter: replace("AMS", "bh=", "l=3; bh=")}, Fail},
		{"unknown canonicalization", sealer{signer: k, domain: "a.example", alter: replace("AMS", "c=relaxed/relaxed", "c=odd/relaxed")}, Fail},
		{"sha1", sealer{signer: k, domain: "a.example", alter: replace("AMS", "ed25519-sha256", "ed25519-sha1")}, Fail},
		{"instance 0", sealer{signer: k, domain: "a.example", alter: replace("AAR", "i=1", "i=0")}, Fail},
		{"instance 51", sealer{signer: k, domain: "a.example", alter: replace("AAR", "i=1", "i=51")}, Fail},
		{"duplicate tag", sealer{signer: k, domain: "a.example", alter: replace("AS", "cv=none", "cv=none; cv=none")}, Fail},
	} {
		got, err := v.ARC(t.Context(), strings.NewReader(tc.sealer.seal(t, letter, 1)))
		if err != nil || got.Result != tc.want {
			t.Errorf("%s: %+v, %v, want %s", tc.name, got, err, tc.want)
		}
	}
}

func FuzzARC(f *testing.F) {
	k := newEd25519(f)
	s := sealer{signer: k, domain: "a.example"}
	f.Add([]byte(s.seal(f, s.seal(f, letter, 1), 2)))
	f.Add([]byte("ARC-Seal: i=50; cv=none\nARC-Message-Signature:i=1;c=/;\n\n"))
	v := &Verifier{Resolver: zone{txt: map[string][]string{"s._domainkey.a.example": {k.record}}}}
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := v.ARC(t.Context(), bytes.NewReader(message))
		if err != nil || r.Result == "" || r.Instances > maxInstances {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// TestARCEverySeal: an old seal that never was right breaks the chain, although
// the newer ones vouch for it.
func TestARCEverySeal(t *testing.T) {
	t.Parallel()
	good, bad := newEd25519(t), newEd25519(t)
	z := zone{txt: map[string][]string{"s._domainkey.a.example": {good.record}}}
	forged, honest := sealer{signer: bad, domain: "a.example"}, sealer{signer: good, domain: "a.example"}
	for name, first := range map[string]sealer{"honest": honest, "forged": forged} {
		message := honest.seal(t, honest.seal(t, first.seal(t, letter, 1), 2), 3)
		got, err := (&Verifier{Resolver: z}).ARC(t.Context(), strings.NewReader(message))
		if want := map[string]Result{"honest": Pass, "forged": Fail}[name]; err != nil || got.Result != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
