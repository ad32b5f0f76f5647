package servers

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// Knot starts a Knot DNS with the configuration that docs/dns.md tells operators
// to write; only addresses, paths, secrets and the zone's name are the lab's.
func Knot(tb testing.TB, z Zone) *NameServer {
	tb.Helper()
	require.Command(tb, "knotd")
	dir := lab.Dir(tb)
	n := newNameServer(tb, z, lab.FreeAddr(tb))
	conf := n.rename(documented(tb, "knot", "update-owner-name"))
	replacements := []string{
		documentedAddress + "@53", strings.Replace(n.Addr, ":", "@", 1),
		"/run/knot", filepath.Join(dir, "run"),
		"/var/lib/knot/zones", filepath.Join(dir, "zones"),
		"/var/lib/knot", filepath.Join(dir, "db"),
		"SECRET-OF-SITE-A", n.Keys[0].Secret,
		"SECRET-OF-SITE-B", n.Keys[1].Secret,
	}
	if len(z.Movers) > 0 {
		replacements = append(replacements, "webmail, imap, smtp]", "webmail, imap, smtp, "+strings.Join(z.Movers, ", ")+"]")
	}
	if z.Signed {
		replacements = append(replacements, "dnssec-signing: off", "dnssec-signing: on")
	}
	if os.Geteuid() != 0 {
		replacements = append(replacements, "    user: knot:knot\n", "")
	}
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(conf, replacements[i]) {
			tb.Fatalf("docs/dns.md: the configuration of Knot has no %q", replacements[i])
		}
	}
	conf = strings.NewReplacer(replacements...).Replace(conf)
	// Two workers are plenty, and a lab has many servers.
	conf = strings.Replace(conf, "server:\n", "server:\n    udp-workers: 1\n    tcp-workers: 2\n    background-workers: 1\n", 1)
	put(tb, dir, map[string]string{
		"knot.conf": conf, "run/.keep": "", "db/.keep": "",
		"zones/" + strings.TrimSuffix(n.Zone, ".") + ".zone": n.zoneFile(tb, z),
	})
	if os.Geteuid() == 0 {
		u, err := user.Lookup("knot")
		if err != nil {
			tb.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		give(tb, dir, uid, gid)
	}
	n.Server = newServer(tb, dir, find(tb, "knotd"), "-c", filepath.Join(dir, "knot.conf"))
	n.ready = func() error { return n.answering(tb.Context(), z.Signed) }
	// A killed Knot leaves a file that says it runs.
	n.before = func() { _ = os.Remove(filepath.Join(dir, "run", "knot.pid")) }
	n.Start()
	return n
}
