package servers

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// Directory is a running slapd with the suffix dc=example,dc=com.
type Directory struct {
	*Server
	// Addr is host:port for ldap:// and STARTTLS.
	Addr string
	// TLSAddr is host:port for ldaps://, where there is a certificate.
	TLSAddr string
	// Socket is the path for ldapi://.
	Socket string
	DirectoryConfig
}

// DirectoryConfig says what a slapd holds.
type DirectoryConfig struct {
	// Entries are LDIF below dc=example,dc=com, which is there.
	Entries string
	// Limits are lines of slapd.conf for the database, such as "sizelimit 100".
	Limits string
	// Certificate and Key are PEM files; empty offers no STARTTLS. Root is the
	// authority's, for whoever asks.
	Certificate, Key, Root string
}

// DirectoryAdmin may read and write everything; DirectoryPassword is its password.
const (
	DirectoryAdmin    = "cn=admin,dc=example,dc=com"
	DirectoryPassword = "sesame"
)

// Slapd starts an OpenLDAP server; configure is told the address it will have.
func Slapd(tb testing.TB, configure func(ip net.IP) DirectoryConfig) *Directory {
	tb.Helper()
	require.Command(tb, "slapd", "slapadd")
	if _, err := os.Stat("/etc/ldap/schema/core.schema"); err != nil {
		require.Command(tb, "/etc/ldap/schema/core.schema")
	}
	dir := lab.Dir(tb)
	d := &Directory{Addr: lab.FreeAddr(tb)}
	host, _, err := net.SplitHostPort(d.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := configure(net.ParseIP(host))
	d.DirectoryConfig = cfg
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
		return path
	}
	var conf strings.Builder
	for _, schema := range []string{"core", "cosine", "inetorgperson"} {
		fmt.Fprintf(&conf, "include /etc/ldap/schema/%s.schema\n", schema)
	}
	if cfg.Certificate != "" {
		fmt.Fprintf(&conf, "TLSCertificateFile %s\nTLSCertificateKeyFile %s\n", cfg.Certificate, cfg.Key)
	}
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		tb.Fatal(err)
	}
	fmt.Fprintf(&conf, `pidfile %[1]s/pid
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=example,dc=com"
rootdn "%[2]s"
rootpw %[3]s
directory %[1]s/db
dbnosync
maxsize 67108864
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous auth by * none
%[4]s
`, dir, DirectoryAdmin, DirectoryPassword, cfg.Limits)
	confFile := write("slapd.conf", conf.String())
	ldif := write("entries.ldif", "dn: dc=example,dc=com\nobjectClass: organization\nobjectClass: dcObject\no: Example\ndc: example\n\n"+cfg.Entries)
	run(tb, dir, nil, find(tb, "slapadd"), "-q", "-f", confFile, "-l", ldif)
	d.Socket = filepath.Join(dir, "socket")
	listen := "ldap://" + d.Addr + "/ ldapi://" + url.PathEscape(d.Socket) + "/"
	if cfg.Certificate != "" {
		_, port, err := net.SplitHostPort(lab.FreeAddr(tb))
		if err != nil {
			tb.Fatal(err)
		}
		d.TLSAddr = net.JoinHostPort(host, port)
		listen += " ldaps://" + d.TLSAddr + "/"
	}
	d.Server = newServer(tb, dir, find(tb, "slapd"), "-f", confFile, "-h", listen, "-d", "0")
	d.ready = func() error {
		c, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", d.Addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	d.Start()
	return d
}
