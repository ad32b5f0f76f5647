package servers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// BIND starts a BIND 9 whose keys may do what Knot's may.
func BIND(tb testing.TB, z Zone) *NameServer {
	tb.Helper()
	require.Command(tb, "named")
	dir := lab.Dir(tb)
	n := newNameServer(tb, z, localAddr(tb))
	host, port, _ := strings.Cut(n.Addr, ":")
	var keys, grants strings.Builder
	for _, k := range n.Keys {
		fmt.Fprintf(&keys, "key %q { algorithm hmac-sha256; secret %q; };\n", k.Name, k.Secret)
		for _, m := range append(slices.Clone(movers), z.Movers...) {
			fmt.Fprintf(&grants, "\t\tgrant %s name %s TXT A AAAA MX;\n", k.Name, n.absolute(m))
		}
	}
	policy := "none"
	if z.Signed {
		policy = "default"
	}
	put(tb, dir, map[string]string{"zone": n.zoneFile(tb, z), "named.conf": fmt.Sprintf(`%[1]soptions {
	directory "%[2]s";
	pid-file "%[2]s/pid";
	session-keyfile "%[2]s/session.key";
	listen-on port %[3]s { %[4]s; };
	listen-on-v6 { none; };
	recursion no;
	dnssec-validation no;
	notify no;
	allow-transfer { none; };
};
controls { };
zone "%[5]s" {
	type primary;
	file "%[2]s/zone";
	dnssec-policy %[6]s;
	update-policy {
%[7]s	};
};
`, keys.String(), dir, port, host, n.Zone, policy, grants.String())})
	n.Server = newServer(tb, dir, find(tb, "named"), "-g", "-4", "-n", "2", "-c", filepath.Join(dir, "named.conf"))
	n.ready = func() error { return n.answering(tb.Context(), z.Signed) }
	n.Start()
	return n
}

// localAddr is a free port of 127.0.0.1, the only loopback address that named
// finds on an interface. It is below those of outgoing connections.
func localAddr(tb testing.TB) string {
	tb.Helper()
	var last error
	for range 50 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", addr)
		if err == nil {
			_ = l.Close()
			return addr
		}
		last = err
	}
	tb.Fatalf("no free port: %v", last)
	return ""
}
