package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync/replica"
)

// leastRights is what docs/replication.md gives the daemon's user.
const leastRights = "~* &* +@read +@write +@transaction -@dangerous +ping +select +info +config|get +config|set " +
	"+client|pause +client|unpause +replicaof +psync +replconf +failover"

// certificate writes a self-signed certificate for host.
func certificate(t *testing.T, host string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := lab.Dir(t)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestReplicaSecured: the other site's Redis speaks TLS, both want a password, and
// the daemon's user has the rights that the documentation names and no more. The
// whole life works: follow, detach, merge, and the move of home there and back.
func TestReplicaSecured(t *testing.T) {
	t.Parallel()
	secured := lab.FreeAddr(t)
	host, port := splitAddr(t, secured)
	cert, key := certificate(t, host)
	a := servers.Redis(t, "--bind", host, "127.0.0.1", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	b := servers.Redis(t)
	file := filepath.Join(lab.Dir(t), "secret")
	if err := os.WriteFile(file, []byte("hidden word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*servers.KeyValue{a, b} {
		words := []any{"ACL", "SETUSER", "understudy", "on", ">hidden word"}
		for w := range strings.FieldsSeq(leastRights) {
			words = append(words, w)
		}
		r.Do(words...)
		r.Do("ACL", "SETUSER", "filter", "on", ">filter word", "~*", "+@read", "+@write", "+ping", "+hello")
	}
	a.Do("HINCRBY", "RS_1", "S", "1")
	k := keepSite(t, "b", false, b.Addr, secured, lab.Dir(t), func(c *replica.Config, _ *replica.Deps) {
		c.AdminUsername, c.AdminPasswordFile = "understudy", file
		c.PeerTLS, c.PeerCA = true, cert
	})
	k.waitFollowing(t, secured)
	// The endpoint adds nothing: who does not say its own word has no rights by it.
	if err := k.writes.Do(t.Context(), "AUTH", "filter", "wrong").Err(); err == nil {
		t.Error("the endpoint let a wrong word through")
	}
	if err := k.writes.HIncrBy(t.Context(), "RS_1", "S", 2).Err(); err != nil {
		t.Fatal(err)
	}
	a.Freeze()
	k.wait(t, replica.Detached, b.Addr)
	if err := k.writes.HIncrBy(t.Context(), "RS_1", "S", 4).Err(); err != nil {
		t.Fatal(err)
	}
	a.Thaw()
	k.waitFollowing(t, secured)
	if n := counter(t, b.Client, "RS_1", "S"); n != 7 {
		t.Errorf("RS_1 is %d, want 7", n)
	}
	k.SetHome(true)
	k.wait(t, replica.Home, b.Addr)
	if err := k.writes.HIncrBy(t.Context(), "RS_1", "S", 8).Err(); err != nil {
		t.Fatal(err)
	}
	if n := counter(t, b.Client, "RS_1", "S"); n != 15 {
		t.Errorf("RS_1 is %d, want 15", n)
	}
}
