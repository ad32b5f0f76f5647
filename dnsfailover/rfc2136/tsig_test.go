package rfc2136

import (
	"errors"
	"testing"
	"time"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
)

func testKey() key {
	return key{name: "site-a.", algorithm: dns.HmacSHA256, hash: algorithms[dns.HmacSHA256], secret: []byte("secret of site a")}
}

// reply answers a signed request as a server with key k would.
func reply(tb testing.TB, k key, request []byte, requestMAC string, change func(*dns.Msg)) []byte {
	tb.Helper()
	q, m := new(dns.Msg), new(dns.Msg)
	if err := q.Unpack(request); err != nil {
		tb.Fatal(err)
	}
	m.SetReply(q)
	m.SetTsig(k.name, k.algorithm, 300, time.Now().Unix())
	if change != nil {
		change(m)
	}
	out, _, err := dns.TsigGenerateWithProvider(m, k, requestMAC, false)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func request(tb testing.TB) (raw []byte, id uint16, mac string) {
	tb.Helper()
	q := new(dns.Msg)
	q.SetQuestion("_understudy.svc.example.net.", dns.TypeTXT)
	raw, mac, err := testKey().sign(q, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return raw, q.Id, mac
}

func TestOnlyTheRightSignatureProves(t *testing.T) {
	raw, id, mac := request(t)
	other := testKey()
	other.secret = []byte("secret of site b")
	_, _, otherMAC := request(t)

	if a, err := testKey().parse(reply(t, testKey(), raw, mac, nil), id, mac); err != nil || !a.proven {
		t.Fatalf("a good answer: %+v, %v", a, err)
	}
	for name, out := range map[string][]byte{
		"another key":      reply(t, other, raw, mac, nil),
		"another request":  reply(t, testKey(), raw, otherMAC, nil),
		"no request's MAC": reply(t, testKey(), raw, "", nil),
	} {
		if a, err := testKey().parse(out, id, mac); !errors.Is(err, errNoAnswer) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	good := reply(t, testKey(), raw, mac, nil)
	if a, err := testKey().parse(good, id+1, mac); !errors.Is(err, errNoAnswer) {
		t.Errorf("the answer to another question: %+v, %v", a, err)
	}
	// One bit of the response code.
	good[3] ^= 1
	if a, err := testKey().parse(good, id, mac); err == nil && a.proven {
		t.Errorf("a changed answer: %+v", a)
	}
}

// TestNotAuthIsChecked: the library does not look at the signature of NOTAUTH; an
// error of time counts as the server's only where it is signed.
func TestNotAuthIsChecked(t *testing.T) {
	raw, id, mac := request(t)
	badTime := func(m *dns.Msg) {
		m.Rcode = dns.RcodeNotAuth
		s := m.IsTsig()
		s.Error, s.OtherLen = dns.RcodeBadTime, 6
		s.OtherData = "0000" + "00000e10" // one hour after the epoch
		s.TimeSigned = uint64(time.Now().Unix())
	}
	out := reply(t, testKey(), raw, mac, badTime)
	a, err := testKey().parse(out, id, mac)
	if err != nil || !a.proven || a.tsigError != dns.RcodeBadTime || a.ahead >= 0 {
		t.Fatalf("a signed error of time: %+v, %v", a, err)
	}
	l := &link{server: "ns", key: testKey()}
	if err := l.verdict(a, dnsfailover.ErrUnknownOutcome); !errors.Is(err, dnsfailover.ErrBadTime) || errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("its verdict: %v", err)
	}
	other := testKey()
	other.secret = []byte("secret of site b")
	if a, err := testKey().parse(reply(t, other, raw, mac, badTime), id, mac); !errors.Is(err, errNoAnswer) {
		t.Errorf("an error of time with a wrong signature: %+v, %v", a, err)
	}
}

func TestUnprovenVerdictIsBoth(t *testing.T) {
	l := &link{server: "ns", key: testKey()}
	m := new(dns.Msg)
	m.Rcode = dns.RcodeRefused
	err := l.verdict(answer{Msg: m}, dnsfailover.ErrUnknownOutcome)
	if !errors.Is(err, dnsfailover.ErrBadKey) || !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("an unsigned refusal: %v", err)
	}
	m.Rcode = dns.RcodeSuccess
	if err := l.verdict(answer{Msg: m}, dnsfailover.ErrUnknownOutcome); !errors.Is(err, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("an unsigned success: %v", err)
	}
	if err := l.verdict(answer{Msg: m, proven: true}, dnsfailover.ErrUnknownOutcome); err != nil {
		t.Errorf("a signed success: %v", err)
	}
}

// FuzzParse: whatever comes, nothing but a signature with the key is proof.
func FuzzParse(f *testing.F) {
	raw, id, mac := request(f)
	f.Add(reply(f, testKey(), raw, mac, nil))
	f.Add(reply(f, testKey(), raw, mac, func(m *dns.Msg) { m.Rcode = dns.RcodeNotAuth; m.IsTsig().Error = dns.RcodeBadKey }))
	f.Add([]byte{})
	unknown := testKey()
	unknown.secret = []byte("nobody signs with this")
	f.Fuzz(func(t *testing.T, in []byte) {
		kept := string(in)
		if a, err := unknown.parse(in, id, mac); err == nil && a.proven {
			t.Errorf("proven without the key: %x", in)
		}
		if string(in) != kept {
			t.Error("parse changed its input")
		}
	})
}
