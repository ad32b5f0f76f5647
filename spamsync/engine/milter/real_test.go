package milter

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"understudy/integration/require"
	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
)

// A real OpenDKIM signs byte for byte what it is told of header and body: the
// message with its changes made verifies.
func TestRealOpenDKIM(t *testing.T) {
	t.Parallel()
	require.Command(t, "opendkim")
	path, err := require.Find("opendkim")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := enginetest.FreePort(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "opendkim.conf")
	text := fmt.Sprintf("Mode s\nSocket inet:%s@%s\nDomain example.org\nSelector s1\nKeyFile %s\nCanonicalization simple/simple\nInternalHosts 0.0.0.0/0\nSyslog no\nRequireSafeKeys no\nOversignHeaders From\n", port, host, keyFile)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := enginetest.StartProcess(t, dir, path, "-f", "-x", conf)
	server.WaitFor(t, addr, 30*time.Second)

	filter := newFilter(t, 10*time.Second, addr)
	for name, message := range map[string]string{
		"plain":          "From: a@example.org\r\nSubject: x\r\n\r\nbody\r\n",
		"no space":       "From:a@example.org\r\nSubject:x\r\n\r\nbody\r\n",
		"more space":     "From:  a@example.org\r\nSubject:\tx \r\n\r\nbody\r\n",
		"folded":         "From: a@example.org\r\nSubject: x\r\n y\r\n\tz\r\nTo: b@example.com,\r\n    c@example.com\r\n\r\nbody\r\n",
		"8 bit":          "From: a@example.org\r\nSubject: gr\xc3\xbc\xdfe\r\n\r\nk\xf6rper\r\n",
		"odd body":       "From: a@example.org\r\nSubject: x\r\n\r\n.\r\n\r\n \r\n\r\n\r\n",
		"no body":        "From: a@example.org\r\nSubject: x\r\n\r\n",
		"large":          "From: a@example.org\r\nSubject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 40_000),
		"repeated field": "From: a@example.org\r\nTo: 1@example.com\r\nTo: 2@example.com\r\nSubject: x\r\n\r\nbody\r\n",
	} {
		v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(message))
		if err != nil || v.Action != smtp.Accept {
			t.Errorf("%s: %+v, %v: %s", name, v, err, server.Output())
			continue
		}
		var signed bytes.Buffer
		signed.WriteString(v.Header)
		if err := smtp.WriteEdited(&signed, strings.NewReader(message), v.Edits); err != nil {
			t.Fatal(err)
		}
		checks, err := dkim.VerifyWithOptions(&signed, &dkim.VerifyOptions{LookupTXT: func(string) ([]string, error) {
			return []string{"v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)}, nil
		}})
		if err != nil || len(checks) != 1 || checks[0].Err != nil {
			t.Errorf("%s: %+v, %v in %.400q", name, checks, err, signed.String())
			for _, c := range checks {
				t.Error(c.Err)
			}
		}
	}
}
