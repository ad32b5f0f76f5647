package integration

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"understudy/dnsfailover"
	"understudy/dnsfailover/arbitertest"
	"understudy/dnsfailover/rfc2136"
	"understudy/integration/lab"
	"understudy/integration/servers"
)

// arbiterNames are the names below the zone that the conformance suite changes.
var arbiterNames = []string{"web", "mail", "two", "fresh"}

// exchangers are the mail exchangers of the suite: BIND refuses an MX whose name in
// the same zone has no address.
var exchangers = []string{"mx1 A 192.0.2.1", "mx2 A 192.0.2.2", "mx9 A 192.0.2.9"}

// nameServers are the authorities of the register that are shown to work.
var nameServers = []struct {
	name   string
	start  func(testing.TB, servers.Zone) *servers.NameServer
	signed bool
}{
	{"knot", servers.Knot, false},
	{"knot-signed", servers.Knot, true},
	{"bind", servers.BIND, false},
	{"bind-signed", servers.BIND, true},
	{"powerdns", servers.PowerDNS, false},
	{"powerdns-signed", servers.PowerDNS, true},
}

// TestRegisterConformance: the register works alike on real name servers: one
// winner in every race, atomic with the records, each fault told apart.
// LAB_RACES is how many two-way races each server is given.
func TestRegisterConformance(t *testing.T) {
	t.Parallel()
	races := 30
	if text := os.Getenv("LAB_RACES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		races = n
	}
	for _, s := range nameServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			n := s.start(t, servers.Zone{Signed: s.signed, Movers: arbiterNames, Records: exchangers})
			arbitertest.Run(t, arbitertest.Lab{
				Client: func(t *testing.T, site dnsfailover.Site) dnsfailover.Arbiter {
					t.Helper()
					return registerOf(t, n, site, rfc2136.Deps{})
				},
				Zone: n.Zone,
				Edit: func(t *testing.T, set dnsfailover.RRSet) {
					t.Helper()
					n.EditTTL(set.Name, set.Type, set.TTL, set.Values...)
				},
				Drop:  func(t *testing.T) { t.Helper(); n.Edit("_understudy", "TXT") },
				Races: races,
				Unreachable: func(t *testing.T) dnsfailover.Arbiter {
					t.Helper()
					return openRegister(t, lab.FreeAddr(t), n.Zone, n.Keys[0], rfc2136.Deps{})
				},
				WrongKey: func(t *testing.T) dnsfailover.Arbiter {
					t.Helper()
					wrong := servers.Key{Name: n.Keys[0].Name, Secret: n.Keys[1].Secret}
					return openRegister(t, n.Addr, n.Zone, wrong, rfc2136.Deps{})
				},
			})
		})
	}
}

// registerOf is the register as a site uses it, with the site's own key.
func registerOf(t *testing.T, n *servers.NameServer, site dnsfailover.Site, d rfc2136.Deps) *rfc2136.Arbiter {
	t.Helper()
	key := n.Keys[0]
	if site == "b" {
		key = n.Keys[1]
	}
	return openRegister(t, n.Addr, n.Zone, key, d)
}

func openRegister(t *testing.T, addr, zone string, key servers.Key, d rfc2136.Deps) *rfc2136.Arbiter {
	t.Helper()
	a, err := rfc2136.New(registerConfig(t, addr, zone, key), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func registerConfig(t *testing.T, addr, zone string, key servers.Key) rfc2136.Config {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "tsig")
	if err := os.WriteFile(secret, []byte(key.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return rfc2136.Config{Server: addr, Zone: zone, Timeout: 3 * time.Second, TSIG: rfc2136.TSIG{Name: key.Name, SecretFile: secret}}
}

// TestRegisterFaults: each fault of the way to the register has its own error,
// none is taken for success, and nothing is changed by any of them.
func TestRegisterFaults(t *testing.T) {
	t.Parallel()
	for _, s := range nameServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			n := s.start(t, servers.Zone{Signed: s.signed, Movers: arbiterNames, Records: []string{"fixed A 192.0.2.7"}})
			f := &faults{t: t, n: n, powerDNS: strings.HasPrefix(s.name, "powerdns")}
			f.a = registerOf(t, n, "a", rfc2136.Deps{})
			f.now = registerValue(1, "a", dnsfailover.Held)
			if err := f.a.CompareAndSwap(t.Context(), dnsfailover.Register{}, f.now, nil); err != nil {
				t.Fatal(err)
			}
			t.Run("clock", f.clock)
			t.Run("key", f.key)
			if !f.powerDNS {
				t.Run("rights", f.rights)
			}
			t.Run("zone", f.zone)
			t.Run("forged", f.forged)
			t.Run("lost answer", f.lost)
			t.Run("frozen", f.frozen)
		})
	}
}

type faults struct {
	t        *testing.T
	n        *servers.NameServer
	powerDNS bool
	a        *rfc2136.Arbiter
	now      dnsfailover.Register
}

func registerValue(epoch uint64, holder dnsfailover.Site, state dnsfailover.RegisterState) dnsfailover.Register {
	return dnsfailover.Register{
		Epoch: epoch, Holder: holder, State: state, By: holder, Nonce: dnsfailover.NewNonce(), Config: "0badcafe", At: time.Now().Unix(),
	}
}

func (f *faults) next() dnsfailover.Register {
	return registerValue(f.now.Epoch+1, "b", dnsfailover.Held)
}

// unchanged fails where the register is not what it was.
func (f *faults) unchanged(t *testing.T) {
	t.Helper()
	if got, err := f.a.Read(t.Context()); err != nil || got != f.now {
		t.Fatalf("the register is %q, %v; want %q", got, err, f.now)
	}
}

// both asks with a client that is at fault, reading and changing.
func (f *faults) both(t *testing.T, c *rfc2136.Arbiter, want error) {
	t.Helper()
	if got, err := c.Read(t.Context()); !errors.Is(err, want) {
		t.Errorf("read: %q, %v; want %v", got, err, want)
	}
	err := c.CompareAndSwap(t.Context(), f.now, f.next(), nil)
	if !errors.Is(err, want) {
		t.Errorf("change: %v; want %v", err, want)
	}
	t.Logf("change: %v", err)
	f.unchanged(t)
}

// clock: an hour off, either way. PowerDNS does not say why it refuses.
func (f *faults) clock(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		want := dnsfailover.ErrBadTime
		if f.powerDNS {
			want = dnsfailover.ErrBadKey
		}
		wrong := registerOf(t, f.n, "a", rfc2136.Deps{Clock: func() time.Time { return time.Now().Add(off) }})
		f.both(t, wrong, want)
		if f.powerDNS {
			continue
		}
		err := wrong.CompareAndSwap(t.Context(), f.now, f.next(), nil)
		if errors.Is(err, dnsfailover.ErrUnknownOutcome) {
			t.Errorf("an error of time is signed, so its outcome is known: %v", err)
		}
		side := "ahead"
		if off > 0 {
			side = "behind"
		}
		if !strings.Contains(err.Error(), side) {
			t.Errorf("the error does not say which clock is %s: %v", side, err)
		}
	}
}

// key: a name that the server does not know, and another key's secret.
func (f *faults) key(t *testing.T) {
	unknown := servers.Key{Name: "site-c.", Secret: f.n.Keys[0].Secret}
	f.both(t, openRegister(t, f.n.Addr, f.n.Zone, unknown, rfc2136.Deps{}), dnsfailover.ErrBadKey)
	wrong := servers.Key{Name: f.n.Keys[1].Name, Secret: f.n.Keys[0].Secret}
	f.both(t, openRegister(t, f.n.Addr, f.n.Zone, wrong, rfc2136.Deps{}), dnsfailover.ErrBadKey)
}

// rights: a name the key may not change takes the whole change along. PowerDNS
// knows no such limit.
func (f *faults) rights(t *testing.T) {
	fixed := dnsfailover.RRChange{
		RRKey: dnsfailover.RRKey{Name: "fixed." + f.n.Zone, Type: "A"}, TTL: time.Minute,
		Old: []string{"192.0.2.7"}, New: []string{"192.0.2.8"},
	}
	if err := f.a.CompareAndSwap(t.Context(), f.now, f.next(), []dnsfailover.RRChange{fixed}); !errors.Is(err, dnsfailover.ErrBadKey) {
		t.Errorf("change of a name that does not move: %v, want ErrBadKey", err)
	}
	f.unchanged(t)
	if got := f.n.Values("fixed", "A"); !slices.Equal(got, fixed.Old) {
		t.Errorf("fixed A = %q", got)
	}
}

// zone: one that the server does not have is no register.
func (f *faults) zone(t *testing.T) {
	other := openRegister(t, f.n.Addr, "other.example.org", f.n.Keys[0], rfc2136.Deps{})
	if got, err := other.Read(t.Context()); err == nil || errors.Is(err, dnsfailover.ErrMissing) {
		t.Errorf("read in a zone that is not there: %q, %v", got, err)
	}
	if err := other.CompareAndSwap(t.Context(), dnsfailover.Register{}, f.next(), nil); err == nil || errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("change in a zone that is not there: %v", err)
	}
}

// forged: somebody on the way answers NOERROR, or anything else, without a
// signature, or with one of his own.
func (f *faults) forged(t *testing.T) {
	for name, forge := range map[string]func(q *dns.Msg) *dns.Msg{
		"unsigned success":       func(q *dns.Msg) *dns.Msg { return forgedReply(q, dns.RcodeSuccess) },
		"unsigned prerequisite":  func(q *dns.Msg) *dns.Msg { return forgedReply(q, dns.RcodeNXRrset) },
		"unsigned name error":    func(q *dns.Msg) *dns.Msg { return forgedReply(q, dns.RcodeNameError) },
		"unsigned refusal":       func(q *dns.Msg) *dns.Msg { return forgedReply(q, dns.RcodeRefused) },
		"success signed by him":  func(q *dns.Msg) *dns.Msg { return forgedSigned(q, dns.RcodeSuccess, 0) },
		"bad time signed by him": func(q *dns.Msg) *dns.Msg { return forgedSigned(q, dns.RcodeNotAuth, dns.RcodeBadTime) },
	} {
		t.Run(name, func(t *testing.T) {
			c := registerOf(t, f.n, "b", rfc2136.Deps{Dial: forger(t, forge)})
			if got, err := c.Read(t.Context()); err == nil || errors.Is(err, dnsfailover.ErrMissing) || !errors.Is(err, dnsfailover.ErrUnreachable) {
				t.Errorf("read: %q, %v; want ErrUnreachable", got, err)
			}
			err := c.CompareAndSwap(t.Context(), f.now, f.next(), nil)
			if !errors.Is(err, dnsfailover.ErrUnknownOutcome) || errors.Is(err, dnsfailover.ErrConflict) {
				t.Errorf("change: %v; want ErrUnknownOutcome", err)
			}
			f.unchanged(t)
		})
	}
}

// lost: the change takes place and its answer does not arrive. The client reads
// its own nonce and knows that it has won.
func (f *faults) lost(t *testing.T) {
	drop := make(chan struct{}, 1) // a token: the next answer is lost
	c := registerOf(t, f.n, "b", rfc2136.Deps{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &deafConn{Conn: conn, drop: drop}, err
	}})
	next := f.next()
	drop <- struct{}{}
	if err := c.CompareAndSwap(t.Context(), f.now, next, nil); err != nil {
		t.Fatalf("change with a lost answer: %v", err)
	}
	if len(drop) != 0 {
		t.Fatal("no answer was lost")
	}
	f.now = next
	f.unchanged(t)
	// The peer, which did not write it, is told the truth.
	if err := f.a.CompareAndSwap(t.Context(), registerValue(1, "a", dnsfailover.Held), f.next(), nil); !errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("change from another value: %v, want ErrConflict", err)
	}
}

// frozen: the server accepts and does not answer.
func (f *faults) frozen(t *testing.T) {
	cfg := registerConfig(t, f.n.Addr, f.n.Zone, f.n.Keys[0])
	cfg.Timeout = 300 * time.Millisecond
	c, err := rfc2136.New(cfg, rfc2136.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	next := f.next()
	f.n.Freeze()
	_, readErr := c.Read(t.Context())
	changeErr := c.CompareAndSwap(t.Context(), f.now, next, nil)
	f.n.Thaw()
	if !errors.Is(readErr, dnsfailover.ErrUnreachable) {
		t.Errorf("read: %v, want ErrUnreachable", readErr)
	}
	if !errors.Is(changeErr, dnsfailover.ErrUnknownOutcome) {
		t.Errorf("change: %v, want ErrUnknownOutcome", changeErr)
	}
	// What was sent may still be carried out. The same again settles it.
	if err := f.a.CompareAndSwap(t.Context(), f.now, next, nil); err != nil && !errors.Is(err, dnsfailover.ErrConflict) {
		t.Errorf("the same again: %v", err)
	}
	f.now = next
	f.unchanged(t)
}

// deafConn closes instead of giving the answer, once for each token.
type deafConn struct {
	net.Conn

	drop chan struct{}
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p) // the server has done it
	select {
	case <-c.drop:
		_ = c.Close()
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

// forger dials somebody who answers everything with what forge makes of it.
func forger(t *testing.T, forge func(q *dns.Msg) *dns.Msg) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		go func() {
			c := &dns.Conn{Conn: far}
			for {
				q, _ := c.ReadMsg() // its signature cannot be checked without the key
				if q == nil {
					return
				}
				// A new Conn: the kept MAC of the old one is of no use.
				out := &dns.Conn{Conn: far, TsigSecret: map[string]string{"site-b.": forgedSecret}}
				if out.WriteMsg(forge(q)) != nil {
					return
				}
			}
		}()
		return near, nil
	}
}

const forgedSecret = "bm90IHRoZSBzZWNyZXQgb2Ygc2l0ZSBi"

// forgedReply holds, for a question, a register that would please its reader.
func forgedReply(q *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, rcode)
	m.Authoritative = true
	if q.Opcode == dns.OpcodeQuery && rcode == dns.RcodeSuccess {
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{registerValue(9, "b", dnsfailover.Held).String()}}
		m.Answer = []dns.RR{rr}
	}
	return m
}

func forgedSigned(q *dns.Msg, rcode int, tsigError uint16) *dns.Msg {
	m := forgedReply(q, rcode)
	m.SetTsig("site-b.", dns.HmacSHA256, 300, time.Now().Unix())
	m.IsTsig().Error = tsigError
	return m
}

// TestFurtherZone: records in a zone without register follow in an UPDATE of
// their own, guarded by their values and by the epoch that is noted beside them.
func TestFurtherZone(t *testing.T) {
	t.Parallel()
	for _, s := range nameServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			n := s.start(t, servers.Zone{Name: "further.example.org", Signed: s.signed})
			p, err := rfc2136.NewPublisher(registerConfig(t, n.Addr, n.Zone, n.Keys[0]), rfc2136.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			key := dnsfailover.RRKey{Name: "imap." + n.Zone, Type: "A"}
			to := func(from, to string) []dnsfailover.RRChange {
				web := dnsfailover.RRChange{RRKey: dnsfailover.RRKey{Name: "webmail." + n.Zone, Type: "A"}, TTL: time.Minute, Old: []string{from}, New: []string{to}}
				imap := web
				imap.RRKey = key
				return []dnsfailover.RRChange{web, imap}
			}
			const a, b, strange = "192.0.2.1", "192.0.2.2", "203.0.113.7"
			n.Edit("webmail", "A", a)
			n.Edit("imap", "A", a)
			apply := func(epoch uint64, changes []dnsfailover.RRChange, want error, web, imap string) {
				t.Helper()
				if err := p.Apply(t.Context(), epoch, changes); !errors.Is(err, want) {
					t.Fatalf("epoch %d: %v, want %v", epoch, err, want)
				}
				if got := append(n.Values("webmail", "A"), n.Values("imap", "A")...); !slices.Equal(got, []string{web, imap}) {
					t.Fatalf("epoch %d: published %q, want %q and %q", epoch, got, web, imap)
				}
			}
			apply(2, to(a, b), nil, b, b)
			apply(2, to(a, b), nil, b, b)                     // the same again
			apply(1, to(b, a), dnsfailover.ErrConflict, b, b) // an older epoch comes too late
			n.Edit("imap", "A", a)
			apply(2, to(a, b), nil, b, b) // half was done
			n.Edit("imap", "A", strange)
			apply(3, to(b, a), dnsfailover.ErrForeign, b, strange) // nothing, not half
			n.Edit("imap", "A", b)
			apply(3, to(b, a), nil, a, a)
			n.Edit("_understudy", "TXT", `"something else"`)
			apply(4, to(a, b), dnsfailover.ErrBadRegister, a, a)
		})
	}
}
