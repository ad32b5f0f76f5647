package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// powerDNSSchema makes the tables of PowerDNS's SQLite back end.
const powerDNSSchema = "/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql"

// PowerDNS starts a PowerDNS over SQLite. It restricts a key to a zone, not to
// names in it.
func PowerDNS(tb testing.TB, z Zone) *NameServer {
	tb.Helper()
	require.Command(tb, "pdns_server", "pdnsutil", "sqlite3")
	if _, err := os.Stat(powerDNSSchema); err != nil {
		require.Command(tb, powerDNSSchema)
	}
	dir := lab.Dir(tb)
	n := newNameServer(tb, z, lab.FreeAddr(tb))
	host, port, _ := strings.Cut(n.Addr, ":")
	put(tb, dir, map[string]string{"zone": n.zoneFile(tb, z), "pdns.conf": fmt.Sprintf(`launch=gsqlite3
gsqlite3-database=%[1]s/db
gsqlite3-dnssec=yes
gsqlite3-pragma-synchronous=0
local-address=%[2]s
local-port=%[3]s
socket-dir=%[1]s
daemon=no
guardian=no
write-pid=no
disable-axfr=yes
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
`, dir, host, port)})
	run(tb, dir, nil, find(tb, "sqlite3"), filepath.Join(dir, "db"), ".read "+powerDNSSchema)
	util := func(words ...string) {
		run(tb, dir, nil, find(tb, "pdnsutil"), append([]string{"--config-dir=" + dir}, words...)...)
	}
	zone := strings.TrimSuffix(n.Zone, ".")
	util("load-zone", zone, filepath.Join(dir, "zone"))
	for _, k := range n.Keys {
		name := strings.TrimSuffix(k.Name, ".")
		util("import-tsig-key", name, "hmac-sha256", k.Secret)
		util("add-meta", zone, "TSIG-ALLOW-DNSUPDATE", name)
	}
	util("set-meta", zone, "SOA-EDIT-DNSUPDATE", "INCREASE")
	util("set-kind", zone, "primary")
	if z.Signed {
		util("secure-zone", zone)
	}
	n.Server = newServer(tb, dir, find(tb, "pdns_server"), "--config-dir="+dir)
	n.ready = func() error { return n.answering(tb.Context(), z.Signed) }
	n.Start()
	return n
}
