package rfc2136

import (
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// fudge is how far the clocks may differ (RFC 8945, section 10).
const fudge = 300 * time.Second

// errNoAnswer: what came proves nothing.
var errNoAnswer = errors.New("no valid answer")

// key signs requests and checks answers. It implements dns.TsigProvider.
type key struct {
	name, algorithm string
	hash            func() hash.Hash
	secret          []byte
}

var _ dns.TsigProvider = key{}

// Generate implements dns.TsigProvider.
func (k key) Generate(msg []byte, _ *dns.TSIG) ([]byte, error) {
	mac := hmac.New(k.hash, k.secret)
	mac.Write(msg)
	return mac.Sum(nil), nil
}

// Verify implements dns.TsigProvider.
func (k key) Verify(msg []byte, t *dns.TSIG) error {
	if dns.CanonicalName(t.Hdr.Name) != k.name || dns.CanonicalName(t.Algorithm) != k.algorithm {
		return dns.ErrSecret
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil {
		return fmt.Errorf("read MAC: %w", err)
	}
	want, _ := k.Generate(msg, t) // never fails
	if !hmac.Equal(got, want) {
		return dns.ErrSig
	}
	return nil
}

// notAuth checks an answer with the response code NOTAUTH. The library refuses to
// look at the signature of such an answer, but an error in the time is signed
// (RFC 8945, section 5.3.2) and must be told from a forged one. So the code is
// taken out of the message before, and put back where it is hashed.
type notAuth struct {
	key

	at int // where the response code is in what is hashed
}

// Verify implements dns.TsigProvider.
func (n notAuth) Verify(msg []byte, t *dns.TSIG) error {
	if len(msg) <= n.at {
		return dns.ErrSig
	}
	msg = slices.Clone(msg)
	msg[n.at] |= dns.RcodeNotAuth
	return n.key.Verify(msg, t)
}

// sign returns the message as it is sent and the MAC that the answer is bound to.
func (k key) sign(m *dns.Msg, now time.Time) (out []byte, mac string, err error) {
	m = m.Copy() // a message that is sent twice is signed twice
	m.SetTsig(k.name, k.algorithm, uint16(fudge/time.Second), now.Unix())
	return dns.TsigGenerateWithProvider(m, k, "", false)
}

// answer is one message of the server that belongs to the request.
type answer struct {
	*dns.Msg

	// proven: the signature is right, it is the authority's word.
	proven bool
	// tsigError is what the server says of our signature (RFC 8945, section 3).
	tsigError uint16
	// ahead is how far the server's clock is ahead of ours, where it told us.
	ahead time.Duration
}

// parse reads an answer to the request that was signed with mac. An error means
// that it is no answer at all.
func (k key) parse(raw []byte, id uint16, mac string) (answer, error) {
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		return answer{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if m.Id != id || !m.Response {
		return answer{}, fmt.Errorf("%w: it belongs to another question", errNoAnswer)
	}
	a := answer{Msg: m}
	t := m.IsTsig()
	if t == nil {
		return a, nil
	}
	a.tsigError = t.Error
	// RFC 8945, section 5.2.3: other data of BADTIME is the server's time.
	if other, err := hex.DecodeString(t.OtherData); err == nil && t.Error == dns.RcodeBadTime && len(other) == 6 {
		server := int64(binary.BigEndian.Uint64(append([]byte{0, 0}, other...)))
		a.ahead = time.Duration(server-int64(t.TimeSigned)) * time.Second
	}
	if t.MAC == "" {
		return a, nil // BADKEY and BADSIG cannot be signed
	}
	raw = slices.Clone(raw) // verification writes into it
	var provider dns.TsigProvider = k
	if m.Rcode == dns.RcodeNotAuth {
		provider = notAuth{key: k, at: 2 + len(mac)/2 + 3}
		raw[3] &^= 0x0f
	}
	err := dns.TsigVerifyWithProvider(raw, provider, mac, false)
	switch {
	case err == nil:
		a.proven = true
	case errors.Is(err, dns.ErrTime): // found after the MAC was right
		a.proven, a.tsigError = true, dns.RcodeBadTime
	default:
		return answer{}, fmt.Errorf("%w: its signature is wrong: %w", errNoAnswer, err)
	}
	return a, nil
}
