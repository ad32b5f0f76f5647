package recipients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/integration/servers"
	"understudy/smtp"
)

// authority is a certificate authority of a test, and a certificate by it.
type authority struct {
	// Root, Certificate and Key are PEM files.
	Root, Certificate, Key string
}

func newAuthority(t *testing.T, ip net.IP) authority {
	t.Helper()
	dir := t.TempDir()
	a := authority{filepath.Join(dir, "root.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	keep := func(path, kind string, der []byte) {
		write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	keep(a.Root, "CERTIFICATE", der)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{ip}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey); err != nil {
		t.Fatal(err)
	}
	keep(a.Certificate, "CERTIFICATE", der)
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		t.Fatal(err)
	}
	keep(a.Key, "PRIVATE KEY", der)
	return a
}

// people is LDIF with user0 to user(n-1), who have an alias each, a group with an
// address, and a service account that may read.
func people(n int) string {
	var b strings.Builder
	b.WriteString("dn: ou=people,dc=example,dc=com\nobjectClass: organizationalUnit\nou: people\n\n")
	b.WriteString("dn: cn=understudy,dc=example,dc=com\nobjectClass: person\ncn: understudy\nsn: u\nuserPassword: sesame\n\n")
	for i := range n {
		fmt.Fprintf(&b, "dn: uid=user%[1]d,ou=people,dc=example,dc=com\nobjectClass: inetOrgPerson\nuid: user%[1]d\ncn: User %[1]d\nsn: U\nmail: user%[1]d@example.com\nmail: SMTP:Alias%[1]d@Example.com\n\n", i)
	}
	return b.String()
}

func slapdSource(t *testing.T, addr, password string) SourceConfig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	write(t, path, password+"\n")
	return SourceConfig{
		Kind: KindLDAP, Name: "people", URL: "ldap://" + addr, BindDN: "cn=understudy,dc=example,dc=com", SecretFile: path,
		Base: "ou=people,dc=example,dc=com", Filter: "(mail=*)", Timeout: 10 * time.Second,
	}
}

func TestSlapd(t *testing.T) {
	t.Parallel()
	const users = 3*ldapPage + 7
	// A certificate for every address the server may get.
	server := servers.Slapd(t, func(ip net.IP) servers.DirectoryConfig {
		ca := newAuthority(t, ip)
		return servers.DirectoryConfig{
			Entries: people(users), Limits: "sizelimit unlimited", Root: ca.Root, Certificate: ca.Certificate, Key: ca.Key,
		}
	})
	sc := slapdSource(t, server.Addr, "sesame")
	sc.StartTLS, sc.Authorities = true, server.Root
	w := newWorld(t)
	d := w.open(Config{One: sc, Delimiter: "+"})
	refresh := func(want string) {
		t.Helper()
		err := d.Refresh(t.Context(), "people")
		if want == "" && err != nil || !strings.Contains(errorText(err), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	refresh("")
	if st := d.Status().Sources[0]; st.Entries != 2*users || !st.Fresh {
		t.Errorf("%+v", st)
	}
	known := map[string]smtp.Disposition{
		"user0@example.com": smtp.Exists, fmt.Sprintf("alias%d@example.com", users-1): smtp.Exists,
		"user1+list@example.com": smtp.Exists, fmt.Sprintf("user%d@example.com", users): smtp.Unknown,
	}
	expect(t, d, known)
	// It hangs, dies and comes back.
	server.Freeze()
	wantTimeout(t, &directorySearch{cfg: sc.withDefaults()})
	server.Thaw()
	server.Kill()
	for range 3 {
		refresh("source people: dial: ")
	}
	expect(t, d, known)
	if w.alarms.text("recipients:people") == "" {
		t.Errorf("alarms %s", w.alarms.keys())
	}
	server.Start()
	refresh("")
	if keys := w.alarms.keys(); keys != "" {
		t.Errorf("alarms %s", keys)
	}

	for _, tc := range []struct {
		name   string
		change func(*SourceConfig)
		want   string
	}{
		{"wrong password", func(sc *SourceConfig) { write(t, sc.SecretFile, "wrong-secret\n") }, `bind: LDAP Result Code 49 "Invalid Credentials"`},
		{"no such base", func(sc *SourceConfig) { sc.Base = "ou=nobody,dc=example,dc=com" }, `search: LDAP Result Code 32 "No Such Object"`},
		{"without a bind there is nothing to read", func(sc *SourceConfig) { sc.BindDN = "" }, `search: LDAP Result Code 50 "Insufficient Access Rights"`},
		{"certificate of a stranger", func(sc *SourceConfig) { sc.Authorities = "" }, "starttls: "},
		{"ldaps", func(sc *SourceConfig) { sc.URL, sc.StartTLS = "ldaps://"+server.TLSAddr, false }, ""},
		{"ldaps of a stranger", func(sc *SourceConfig) { sc.URL, sc.StartTLS, sc.Authorities = "ldaps://"+server.TLSAddr, false, "" }, "dial: tls: "},
		{"ldapi", func(sc *SourceConfig) { sc.URL, sc.StartTLS = "ldapi://"+server.Socket, false }, ""},
		{"no scheme", func(sc *SourceConfig) { sc.URL = server.Addr }, "url"},
		{"no STARTTLS asked for", func(sc *SourceConfig) { sc.StartTLS = false }, ""},
		{"no file of authorities", func(sc *SourceConfig) { sc.Authorities = "/does/not/exist" }, "read authorities"},
		{"file of authorities without one", func(sc *SourceConfig) { sc.Authorities = sc.SecretFile }, "holds no certificate"},
	} {
		sc := slapdSource(t, server.Addr, "sesame")
		sc.StartTLS, sc.Authorities = true, server.Root
		tc.change(&sc)
		err := newWorld(t).open(Config{One: sc}).Refresh(t.Context(), "people")
		if tc.want == "" && err != nil || !strings.Contains(errorText(err), tc.want) || err != nil && !strings.HasPrefix(err.Error(), "source people: ") {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
		if strings.Contains(errorText(err), "wrong-secret") {
			t.Errorf("%s: a secret: %v", tc.name, err)
		}
	}
}

// A server that returns fewer entries than there are says so, and is not believed.
func TestSlapdSizeLimit(t *testing.T) {
	t.Parallel()
	server := servers.Slapd(t, func(net.IP) servers.DirectoryConfig {
		return servers.DirectoryConfig{Entries: people(ldapPage + 100), Limits: "sizelimit size.soft=100 size.hard=100 size.prtotal=100"}
	})
	w := newWorld(t)
	d := w.open(Config{One: slapdSource(t, server.Addr, "sesame")})
	if err := d.Refresh(t.Context(), "people"); err == nil || !strings.Contains(err.Error(), "Size Limit Exceeded") {
		t.Errorf("error %v", err)
	}
	expect(t, d, map[string]smtp.Disposition{"user0@example.com": smtp.Unsure})
	sc := slapdSource(t, server.Addr, "sesame")
	sc.StartTLS = true
	if err := newWorld(t).open(Config{One: sc}).Refresh(t.Context(), "people"); err == nil || !strings.Contains(err.Error(), "starttls") {
		t.Errorf("not offered, error %v", err)
	}
}
