package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

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
					return openRegister(t, lab.FreeAddr(t), n.Zone, n.Keys[0], rfc2136.Deps{})
				},
				WrongKey: func(t *testing.T) dnsfailover.Arbiter {
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
