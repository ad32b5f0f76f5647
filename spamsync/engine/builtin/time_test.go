package builtin

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// slowReader takes a while in the middle of every message.
type slowReader struct {
	*bytes.Reader
	pause time.Duration
}

func (r slowReader) Read(p []byte) (int, error) {
	if r.Len() < int(r.Size())/2 {
		<-time.After(r.pause)
	}
	return r.Reader.Read(p[:min(len(p), 200)])
}

// signedLetter is a letter of good.example with a signature, and its key record.
func signedLetter(t *testing.T) (message []byte, record string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(letter()), &dkim.SignOptions{Domain: "good.example", Selector: "s", Signer: key, HeaderKeys: []string{"From", "Subject"}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
}

// TestSlowMessage: a message that takes longer to read than DNS may take is still
// verified.
func TestSlowMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		message, record := signedLetter(t)
		f := newFilter(t, func(_ *Config, d *Deps) {
			d.Resolver = &zoneResolver{txt: map[string][]string{
				"s._domainkey.good.example": {record}, "_dmarc.good.example": {"v=DMARC1; p=reject"},
			}}
		})
		start := time.Now()
		r, err := f.Explain(t.Context(), envelope(), slowReader{bytes.NewReader(message), 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if got := symbols(r); !slices.Equal(got, []string{"ARC_NA", "DMARC_POLICY_ALLOW", "R_DKIM_ALLOW", "R_SPF_NA"}) {
			t.Errorf("%+v", r.Findings)
		}
		if time.Since(start) < f.config.DNSTimeout {
			t.Error("the message was not slow")
		}
	})
}

// TestDNSHangs: whatever does not answer, all questions together take the
// configured time, and what is unknown counts for nothing.
func TestDNSHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		message, _ := signedLetter(t)
		hangs := map[string]bool{
			"good.example": true, "mx.good.example": true, "s._domainkey.good.example": true, "_dmarc.good.example": true,
			"7.2.0.192.bl.example": true, "7.2.0.192.two.example": true, "s._domainkey.a.example": true,
		}
		f := newFilter(t, func(c *Config, d *Deps) {
			d.Resolver = &zoneResolver{hangs: hangs}
			c.DNSBL = []ZoneConfig{{Zone: "bl.example", Symbol: "BL_A", Score: 4}, {Zone: "two.example", Symbol: "BL_B", Score: 4}}
		})
		start := time.Now()
		sealed := "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=AA==\r\n" + string(message)
		r, err := f.Explain(t.Context(), envelope(), strings.NewReader(sealed))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > f.config.DNSTimeout {
			t.Errorf("took %v", took)
		}
		if got := symbols(r); !slices.Equal(got, []string{"ARC_REJECT", "DMARC_DNSFAIL", "R_DKIM_TEMPFAIL", "R_SPF_DNSFAIL"}) {
			t.Errorf("%+v", r.Findings)
		}
		if r.Verdict.Score != 1 { // the chain is incomplete, whatever DNS says
			t.Errorf("score %v", r.Verdict.Score)
		}
	})
}

var _ io.ReadSeeker = slowReader{}
