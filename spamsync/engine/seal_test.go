package engine

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/smtp"
)

var testKey = []byte("0123456789abcdef")

func unfold(t *testing.T, field string) string {
	t.Helper()
	fields, err := smtp.ReadHeader(strings.NewReader(field+"\r\n"), 10_000)
	if err != nil || len(fields) != 1 || fields[0].Name != SealField {
		t.Fatalf("%q is not one field: %v", field, err)
	}
	return fields[0].Value
}

func TestSeal(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	message := "Subject: x\r\n\r\nbody\r\n\r\nend\r\n"
	sealed := Sealed{
		ID: "4fX", Client: netip.MustParseAddr("2001:db8::1"), Action: smtp.Quarantine, Spam: true,
		Score: -1.25, Required: 15, Engine: "rspamd", Time: now,
	}
	field, err := Seal(testKey, sealed, "a@example.org", strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	value := unfold(t, field)
	verify := func(key []byte, value, sender, message string, now time.Time) (Sealed, error) {
		return Verify(key, value, sender, strings.NewReader(message), now, time.Hour*24)
	}
	for _, m := range []string{message, "Received: y\r\nA: b\r\n\r\nbody\r\n\r\nend\r\n\r\n\r\n", "A: b\r\n\r\nbody\r\n\r\nend"} {
		got, err := verify(testKey, value, "a@example.org", m, now.Add(time.Minute))
		if err != nil || got != sealed {
			t.Errorf("%q: %+v, %v", m, got, err)
		}
	}
	for name, err := range map[string]error{
		"key":         second(verify([]byte("another key 12345"), value, "a@example.org", message, now)),
		"sender":      second(verify(testKey, value, "b@example.org", message, now)),
		"body":        second(verify(testKey, value, "a@example.org", strings.Replace(message, "end", "End", 1), now)),
		"no body":     second(verify(testKey, value, "a@example.org", "Subject: x\r\n", now)),
		"blank lines": second(verify(testKey, value, "a@example.org", strings.Replace(message, "\r\n\r\nend", "\r\nend", 1), now)),
		"old":         second(verify(testKey, value, "a@example.org", message, now.Add(25*time.Hour))),
		"future":      second(verify(testKey, value, "a@example.org", message, now.Add(-2*time.Hour))),
		"score":       second(verify(testKey, strings.Replace(value, "-1.25", "1.25", 1), "a@example.org", message, now)),
		"spam":        second(verify(testKey, strings.Replace(value, "spam=yes", "spam=no", 1), "a@example.org", message, now)),
		"cut":         second(verify(testKey, value[:len(value)-1], "a@example.org", message, now)),
		"empty":       second(verify(testKey, "", "a@example.org", message, now)),
	} {
		if !errors.Is(err, ErrSeal) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	// Words of an engine or a client cannot add words to the seal.
	sealed.Engine, sealed.ID, sealed.Client = "x; spam=no\r\n s=", "", netip.Addr{}
	if field, err = Seal(testKey, sealed, "a@example.org", strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	got, err := verify(testKey, unfold(t, field), "a@example.org", message, now)
	if err != nil || !got.Spam || strings.ContainsAny(got.Engine, "; =") {
		t.Errorf("%+v, %v", got, err)
	}
}

func second(_ Sealed, err error) error { return err }

func TestReadKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	for content, ok := range map[string]bool{"": false, "short\n": false, " 0123456789abcdef\n": true} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := ReadKey(path)
		if (err == nil) != ok || ok && string(key) != "0123456789abcdef" {
			t.Errorf("%q: %q, %v", content, key, err)
		}
	}
	if _, err := ReadKey(path + "x"); err == nil {
		t.Error("no file is a key")
	}
}

// The digest does not depend on how the message comes in pieces, nor on empty
// lines at its end.
func FuzzBodyDigest(f *testing.F) {
	f.Add("A: b\r\n\r\nbody\r\n\r\n", 3)
	f.Add("\r\n\r\r\n\n", 1)
	f.Fuzz(func(t *testing.T, m string, n int) {
		n = max(1, min(n, 64))
		whole, err := bodyDigest(strings.NewReader(m))
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := bodyDigest(&inPieces{strings.NewReader(m), n})
		if err != nil || pieces != whole {
			t.Errorf("%q in pieces of %d: %s, %s, %v", m, n, whole, pieces, err)
		}
		if !strings.Contains(m, "\r\n\r\n") {
			return
		}
		longer, err := bodyDigest(strings.NewReader(m + "\r\n\r\n"))
		if err != nil || longer != whole && !strings.HasSuffix(m, "\r") {
			t.Errorf("%q with empty lines behind it: %s, %s, %v", m, whole, longer, err)
		}
	})
}

type inPieces struct {
	*strings.Reader
	n int
}

func (p *inPieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(p.n, len(b))]) }

func FuzzVerify(f *testing.F) {
	f.Add("v=1; id=x; ip=-; action=accept; spam=no; score=1.00; required=2.00; engine=e; t=1790000000; bh=x", "s")
	f.Fuzz(func(t *testing.T, text, sender string) {
		text = strings.Join(strings.Fields(text), " ")
		// Signed, so that what is behind the signature is reached too.
		s, err := Verify(testKey, text+"; s="+sign(testKey, text, sender), sender, strings.NewReader("A: b\r\n\r\n"), time.Unix(1_790_000_000, 0), time.Hour)
		if err != nil && s != (Sealed{}) {
			t.Errorf("%+v with %v", s, err)
		}
	})
}
