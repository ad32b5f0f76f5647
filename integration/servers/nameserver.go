package servers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Key is a TSIG key (HMAC-SHA256) that may change the names of Movers.
type Key struct {
	// Name is a full domain name, Secret is base64.
	Name, Secret string
}

// movers are the names a key may change, relative to the zone: the list of the
// configuration in docs/dns.md.
var movers = []string{"_understudy", "@", "webmail", "imap", "smtp"}

// NameServer is a running primary of one zone. Its keys may change the register
// _understudy, the apex, webmail, imap and smtp, types TXT, A, AAAA and MX, and
// nothing else.
type NameServer struct {
	*Server
	// Addr is host:port, the same for TCP and UDP.
	Addr string
	// Zone is its zone, a full domain name.
	Zone string
	// Keys are the two sites' keys: a, b.
	Keys [2]Key
}

// Zone says what a name server holds.
type Zone struct {
	// Name of the zone; empty is svc.example.net.
	Name string
	// Signed has the server sign it (DNSSEC).
	Signed bool
	// Records are further lines of the zone file.
	Records []string
	// Movers are further names, relative to the zone, that the keys may change.
	Movers []string
}

const (
	documentedZone    = "svc.example.net"
	documentedAddress = "192.0.2.53"
)

// exchangeLimit bounds one question to a name server of the lab.
const exchangeLimit = 5 * time.Second

func newNameServer(tb testing.TB, z Zone, addr string) *NameServer {
	tb.Helper()
	n := &NameServer{Addr: addr, Zone: dns.Fqdn(z.Name)}
	if z.Name == "" {
		n.Zone = dns.Fqdn(documentedZone)
	}
	for i, name := range []string{"site-a.", "site-b."} {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		n.Keys[i] = Key{Name: name, Secret: base64.StdEncoding.EncodeToString(secret)}
	}
	return n
}

// zoneFile is the documented zone file with the zone's own name and records.
func (n *NameServer) zoneFile(tb testing.TB, z Zone) string {
	tb.Helper()
	host, _, _ := strings.Cut(n.Addr, ":")
	text := n.rename(documented(tb, "zone", "$ORIGIN"))
	return strings.ReplaceAll(text, documentedAddress, host) + strings.Join(z.Records, "\n") + "\n"
}

func (n *NameServer) rename(text string) string {
	return strings.ReplaceAll(text, documentedZone, strings.TrimSuffix(n.Zone, "."))
}

// documented returns the first block of docs/dns.md in a language that holds word.
func documented(tb testing.TB, language, word string) string {
	tb.Helper()
	root, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(root, "go.mod")); missing == nil {
			break
		}
		if filepath.Dir(root) == root {
			err = errors.New("go.mod is in no directory above")
		}
		root = filepath.Dir(root)
	}
	if err != nil {
		tb.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "dns.md"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, part := range strings.Split(string(page), "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		if strings.Contains(block, word) {
			return block + "\n"
		}
	}
	tb.Fatalf("docs/dns.md has no block %s with %q", language, word)
	return ""
}

// answering says whether the server answers for its zone, signed where it should be.
func (n *NameServer) answering(ctx context.Context, signed bool) error {
	q := new(dns.Msg)
	q.SetQuestion(n.Zone, dns.TypeSOA)
	q.SetEdns0(4096, signed)
	reply, err := n.exchange(ctx, q)
	switch {
	case err != nil:
		return err
	case reply.Rcode != dns.RcodeSuccess || len(reply.Answer) == 0:
		return errors.New(dns.RcodeToString[reply.Rcode])
	case signed && !slices.ContainsFunc(reply.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG }):
		return errors.New("the zone is not signed yet")
	}
	return nil
}

func (n *NameServer) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Net: "tcp", Timeout: exchangeLimit, TsigSecret: map[string]string{
		n.Keys[0].Name: n.Keys[0].Secret, n.Keys[1].Name: n.Keys[1].Secret,
	}}
	reply, _, err := client.ExchangeContext(ctx, m, n.Addr)
	return reply, err
}

// Values returns the sorted data of an RRset as the server itself gives it, such
// as "192.0.2.1" or "10 mx1.example.net."; none where there is no such name.
func (n *NameServer) Values(name, rrtype string) []string {
	n.tb.Helper()
	q := new(dns.Msg)
	q.SetQuestion(n.absolute(name), dns.StringToType[rrtype])
	reply, err := n.exchange(n.tb.Context(), q)
	if err != nil {
		n.tb.Fatalf("ask for %s %s: %v", name, rrtype, err)
	}
	var out []string
	for _, rr := range reply.Answer {
		if rr.Header().Rrtype == dns.StringToType[rrtype] {
			out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	slices.Sort(out)
	return out
}

// Edit replaces an RRset unconditionally, as a hand would; without values it is
// deleted. The TTL is 60 s.
func (n *NameServer) Edit(name, rrtype string, values ...string) {
	n.tb.Helper()
	n.EditTTL(name, rrtype, time.Minute, values...)
}

// EditTTL is Edit with a TTL.
func (n *NameServer) EditTTL(name, rrtype string, ttl time.Duration, values ...string) {
	n.tb.Helper()
	m := new(dns.Msg)
	m.SetUpdate(n.Zone)
	name = n.absolute(name)
	m.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: name, Rrtype: dns.StringToType[rrtype]}}})
	for _, v := range values {
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", name, int(ttl.Seconds()), rrtype, v))
		if err != nil {
			n.tb.Fatal(err)
		}
		m.Insert([]dns.RR{rr})
	}
	m.SetTsig(n.Keys[0].Name, dns.HmacSHA256, 300, time.Now().Unix())
	reply, err := n.exchange(n.tb.Context(), m)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = errors.New(dns.RcodeToString[reply.Rcode])
	}
	if err != nil {
		n.tb.Fatalf("edit %s %s: %v", name, rrtype, err)
	}
}

// absolute makes a name of the zone out of "webmail" or "@"; full names stay.
func (n *NameServer) absolute(name string) string {
	switch {
	case name == "@" || name == "":
		return n.Zone
	case strings.HasSuffix(name, "."):
		return name
	}
	return name + "." + n.Zone
}

// give lets an account of the machine own a directory and what is in it.
func give(tb testing.TB, dir string, uid, gid int) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// put writes files below dir, and makes their directories.
func put(tb testing.TB, dir string, files map[string]string) {
	tb.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}
