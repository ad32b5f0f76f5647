package servers_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"understudy/integration/servers"
)

// TestNameServers: each answers for its zone, signed where it should be, lets a
// key change the names that move and (PowerDNS cannot) refuses it any other.
func TestNameServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, servers.Zone) *servers.NameServer{
		"knot": servers.Knot, "bind": servers.BIND, "powerdns": servers.PowerDNS,
	} {
		for _, signed := range []bool{false, true} {
			label := name
			if signed {
				label += "-signed"
			}
			t.Run(label, func(t *testing.T) {
				t.Parallel()
				n := start(t, servers.Zone{Name: "move.example.test", Signed: signed, Records: []string{"fixed A 192.0.2.7"}})
				n.Edit("webmail", "A", "192.0.2.1", "192.0.2.2")
				n.Edit("_understudy", "TXT", `"v=test"`)
				n.Edit("@", "MX", "10 mx1.example.net.")
				if got := n.Values("webmail", "A"); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
					t.Errorf("webmail A = %q", got)
				}
				if got := n.Values("@", "MX"); !slices.Equal(got, []string{"10 mx1.example.net."}) {
					t.Errorf("MX = %q", got)
				}
				n.Kill()
				n.Start()
				if got := n.Values("_understudy", "TXT"); !slices.Equal(got, []string{`"v=test"`}) {
					t.Errorf("after a crash the register is %q", got)
				}
				// Knot says NOTAUTH, BIND REFUSED.
				if rcode := update(t, n, "fixed."+n.Zone); name != "powerdns" && rcode != dns.RcodeRefused && rcode != dns.RcodeNotAuth {
					t.Errorf("a name that does not move was changed: %s", dns.RcodeToString[rcode])
				}
				if got := n.Values("fixed", "A"); name != "powerdns" && !slices.Equal(got, []string{"192.0.2.7"}) {
					t.Errorf("fixed A = %q", got)
				}
			})
		}
	}
}

// update replaces an address with the key of site a and returns the answer.
func update(t *testing.T, n *servers.NameServer, name string) int {
	t.Helper()
	m := new(dns.Msg)
	m.SetUpdate(n.Zone)
	rr, err := dns.NewRR(strings.TrimSpace(name) + " 60 IN A 192.0.2.99")
	if err != nil {
		t.Fatal(err)
	}
	m.RemoveRRset([]dns.RR{rr})
	m.Insert([]dns.RR{rr})
	m.SetTsig(n.Keys[0].Name, dns.HmacSHA256, 300, time.Now().Unix())
	client := dns.Client{Net: "tcp", TsigSecret: map[string]string{n.Keys[0].Name: n.Keys[0].Secret}}
	reply, _, err := client.ExchangeContext(t.Context(), m, n.Addr)
	if errors.Is(err, dns.ErrAuth) {
		return dns.RcodeNotAuth
	}
	if err != nil {
		t.Fatal(err)
	}
	return reply.Rcode
}
