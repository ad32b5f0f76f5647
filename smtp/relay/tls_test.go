package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"understudy/smtp"
)

// issuer makes certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(tb testing.TB) *issuer {
	tb.Helper()
	return &issuer{}
}

// issue makes a certificate for names; ca says that it may issue others. Inside
// a synctest bubble the clock stands in the year 2000: it is valid then too.
func (i *issuer) issue(tb testing.TB, ca bool, names ...string) (*issuer, *tls.Certificate) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: ca, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	chain := [][]byte{der}
	if i.cert != nil {
		chain = append(chain, i.cert.Raw)
	}
	return &issuer{cert, key}, &tls.Certificate{Certificate: chain, PrivateKey: key}
}

// What is asked of a hop, what it offers, and whether the message may go.
func TestTLSPolicies(t *testing.T) {
	t.Parallel()
	ca, _ := newIssuer(t).issue(t, true)
	good, goodCert := ca.issue(t, false, "mx1.test")
	_, otherCert := ca.issue(t, false, "other.test")
	_, selfCert := newIssuer(t).issue(t, false, "mx1.test")
	sum := sha256.Sum256(good.cert.RawSubjectPublicKeyInfo)
	pin := "sha256:" + hex.EncodeToString(sum[:])
	tests := []struct {
		hop     string
		cert    *tls.Certificate // nil: no STARTTLS
		require bool             // the message says REQUIRETLS
		want    string           // plain, tls, kept, refused
	}{
		{"smtp://mx1.test?tls=none", goodCert, false, "plain"},
		{"smtp://mx1.test", nil, false, "plain"},
		{"smtp://mx1.test", goodCert, false, "tls"},
		{"smtp://mx1.test", selfCert, false, "tls"},
		{"smtp://mx1.test?tls=required", nil, false, "kept"},
		{"smtp://mx1.test?tls=required", selfCert, false, "tls"},
		{"smtp://mx1.test?tls=verified", nil, false, "kept"},
		{"smtp://mx1.test?tls=verified", goodCert, false, "tls"},
		{"smtp://mx1.test?tls=verified", selfCert, false, "kept"},
		{"smtp://mx1.test?tls=verified", otherCert, false, "kept"},
		{"smtp://mx1.test?tls=verified&name=other.test", otherCert, false, "tls"},
		{"smtp://mx1.test?pin=" + pin, goodCert, false, "tls"},
		{"smtp://mx9.test?pin=" + pin, goodCert, false, "tls"},
		{"smtp://mx1.test?pin=" + pin, selfCert, false, "kept"},
		{"smtp://mx1.test?pin=" + pin, nil, false, "kept"},
		{"smtp://mx1.test", goodCert, true, "tls"},
		{"smtp://mx1.test", selfCert, true, "refused"},
		{"smtp://mx1.test", nil, true, "refused"},
		{"smtp://mx1.test?pin=" + pin, goodCert, true, "tls"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s/%v", tt.hop, tt.require), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				hop := newFakeHop(append([]string{"REQUIRETLS"}, modern...)...)
				if tt.cert != nil {
					hop.tls = &tls.Config{Certificates: []tls.Certificate{*tt.cert}}
				}
				g := newRig(t, nil, hop.dial, tt.hop)
				g.roots = x509.NewCertPool()
				g.roots.AddCert(ca.cert)
				g.q.add("proves", "x\r\n", "u@x")
				g.start()
				<-time.After(5 * time.Second)
				if tt.require {
					g.q.edit = func(env *smtp.Envelope) { env.RequireTLS = true }
					g.q.add("m", "x\r\n", "u@x")
					<-time.After(5 * time.Second)
				}
				got := "kept"
				switch {
				case strings.Contains(g.q.outcomes("m"), "refused:550"):
					got = "refused"
				case tt.require && g.q.outcomes("m") == "":
				case hop.received() > 0 && hop.got[hop.received()-1].tls:
					got = "tls"
				case hop.received() > 0:
					got = "plain"
				}
				if got != tt.want {
					t.Errorf("got %s, want %s; %+v", got, tt.want, g.status())
				}
				if tt.want == "kept" && (g.q.tried() != 0 || hop.received() != 0 || g.status().State != "down") {
					t.Errorf("%d tried, %d received, %+v", g.q.tried(), hop.received(), g.status())
				}
				if res := g.q.ended["proves"]; len(res) > 0 && (res[0].TLS != "") != hop.got[0].tls {
					t.Errorf("result says TLS %q", res[0].TLS)
				}
				g.stop()
			})
		})
	}
}

// A broken handshake falls back to plain text where the policy allows it.
func TestOpportunisticFallsBack(t *testing.T) {
	t.Parallel()
	for hopText, want := range map[string]int{"smtp://mx1.test": 1, "smtp://mx1.test?tls=required": 0} {
		synctest.Test(t, func(t *testing.T) {
			hop := newFakeHop(modern...)
			hop.tls = &tls.Config{} // no certificate: every handshake fails
			g := newRig(t, nil, hop.dial, hopText)
			g.q.add("m", "x\r\n", "u@x")
			g.start()
			<-time.After(5 * time.Second)
			if hop.received() != want {
				t.Errorf("%s: %d received", hopText, hop.received())
			}
			g.stop()
		})
	}
}

func TestVerifyDANE(t *testing.T) {
	t.Parallel()
	ca, _ := newIssuer(t).issue(t, true)
	leaf, pair := ca.issue(t, false, "mx1.test")
	chain := []*x509.Certificate{leaf.cert, ca.cert}
	_ = pair
	tlsa := func(usage, selector, matching uint8, cert *x509.Certificate) *dns.TLSA {
		rr := new(dns.TLSA)
		if err := rr.Sign(int(usage), int(selector), int(matching), cert); err != nil {
			t.Fatal(err)
		}
		return rr
	}
	other, _ := newIssuer(t).issue(t, true)
	expired := *leaf.cert
	expired.NotAfter = time.Unix(1, 0)
	tests := []struct {
		name  string
		rr    *dns.TLSA
		chain []*x509.Certificate
		host  string
		ok    bool
	}{
		{"EE key sha256", tlsa(3, 1, 1, leaf.cert), chain, "mx1.test", true},
		{"EE key sha512", tlsa(3, 1, 2, leaf.cert), chain, "mx1.test", true},
		{"EE whole", tlsa(3, 0, 0, leaf.cert), chain, "mx1.test", true},
		{"EE asks for no name", tlsa(3, 1, 1, leaf.cert), chain, "any.test", true},
		{"EE asks for no date", tlsa(3, 1, 1, leaf.cert), []*x509.Certificate{&expired}, "mx1.test", true},
		{"EE of another", tlsa(3, 1, 1, other.cert), chain, "mx1.test", false},
		{"EE is not the issuer", tlsa(3, 1, 1, ca.cert), chain, "mx1.test", false},
		{"TA key", tlsa(2, 1, 1, ca.cert), chain, "mx1.test", true},
		{"TA wants the name", tlsa(2, 1, 1, ca.cert), chain, "any.test", false},
		{"TA in the record only", tlsa(2, 0, 0, ca.cert), chain[:1], "mx1.test", true},
		{"TA not in the chain", tlsa(2, 1, 1, ca.cert), chain[:1], "mx1.test", false},
		{"TA of another", tlsa(2, 1, 1, other.cert), chain, "mx1.test", false},
		{"no certificate", tlsa(3, 1, 1, leaf.cert), nil, "mx1.test", false},
	}
	for _, tt := range tests {
		err := verifyDANE(tls.ConnectionState{PeerCertificates: tt.chain}, []*dns.TLSA{tt.rr}, tt.host)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if n := len(usable([]*dns.TLSA{
		tlsa(0, 1, 1, ca.cert), tlsa(1, 1, 1, leaf.cert), tlsa(3, 1, 1, leaf.cert),
		{Usage: 3, Selector: 1, MatchingType: 1, Certificate: "00"},
		{Usage: 3, Selector: 2, MatchingType: 0, Certificate: "00"},
		{Usage: 3, Selector: 1, MatchingType: 9, Certificate: "00"},
		{Usage: 3, Selector: 1, MatchingType: 0, Certificate: "zz"},
	})); n != 1 {
		t.Errorf("%d records are usable, want 1", n)
	}
}
