package servers

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// Mailbox is a running IMAP server. Any user exists, with any password, and gets a
// mailbox with the first login; the user "master" with the password "secret" may act
// for all of them.
type Mailbox struct {
	*Server
	// Addr takes plain text and STARTTLS; TLSAddr, where there is one, TLS at once.
	Addr, TLSAddr string
	// Pin is "sha256:" and the hash of its public key; "" without TLS.
	Pin string
}

// mailboxUID owns Dovecot's mailboxes: any number will do, no system user is made.
const mailboxUID = 54321

// DovecotIMAP starts a Dovecot that speaks IMAP with TLS. Lines of its configuration may be
// added ("mail_plugins = quota"); later ones win.
func DovecotIMAP(tb testing.TB, settings ...string) *Mailbox {
	tb.Helper()
	require.Root(tb)
	require.Command(tb, "dovecot")
	dir := lab.Dir(tb)
	m := &Mailbox{Addr: lab.FreeAddr(tb), TLSAddr: lab.FreeAddr(tb)}
	cert, key, pin := selfSigned(tb)
	m.Pin = pin
	host, port, _ := net.SplitHostPort(m.Addr) // FreeAddr made it
	tlsHost, tlsPort, _ := net.SplitHostPort(m.TLSAddr)
	put(tb, dir, map[string]string{"cert.pem": cert, "key.pem": key, "passwd": "master:{PLAIN}secret\n", "run/.keep": "", "mail/.keep": ""})
	if err := os.Chown(filepath.Join(dir, "mail"), mailboxUID, mailboxUID); err != nil {
		tb.Fatal(err)
	}
	conf := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/mail.log
protocols = imap
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/key.pem
ssl_dh =
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_master_user_separator = *
first_valid_uid = 500
default_vsz_limit = 1G
mail_fsync = never
mail_location = maildir:~/Maildir
mail_max_userip_connections = 1000
passdb {
  driver = passwd-file
  args = %[1]s/passwd
  master = yes
  result_success = continue
}
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s/mail/%%u allow_all_users=yes
}
namespace inbox {
  inbox = yes
  separator = /
}
service anvil {
  client_limit = 5000
}
service auth {
  client_limit = 5000
}
service imap {
  process_limit = 1000
}
service imap-login {
  process_limit = 1000
  process_min_avail = 1
  inet_listener imap {
    address = %[3]s
    port = %[4]s
  }
  inet_listener imaps {
    address = %[5]s
    port = %[6]s
    ssl = yes
  }
}
`, dir, mailboxUID, host, port, tlsHost, tlsPort)
	put(tb, dir, map[string]string{"dovecot.conf": conf + strings.Join(settings, "\n") + "\n"})
	m.Server = newServer(tb, dir, find(tb, "dovecot"), "-F", "-c", filepath.Join(dir, "dovecot.conf"))
	m.before = func() { _ = os.Remove(filepath.Join(dir, "run", "master.pid")) } // a killed Dovecot trusts it
	m.ready = func() error { return greets(tb, m.Addr) }
	m.Start()
	return m
}

// Cyrus starts a Cyrus IMAP without TLS. Lines of its imapd.conf may be added. It has
// "/" as the separator and personal mailboxes at the top.
func Cyrus(tb testing.TB, settings ...string) *Mailbox {
	tb.Helper()
	require.Root(tb)
	require.Command(tb, "cyrmaster")
	imapd := cyrusImapd(tb)
	dir := lab.Dir(tb)
	m := &Mailbox{Addr: lab.FreeAddr(tb)}
	put(tb, dir, map[string]string{
		"conf/.keep": "", "spool/.keep": "", "run/lock/.keep": "",
		"imapd.conf": fmt.Sprintf(`configdirectory: %[1]s/conf
partition-default: %[1]s/spool
proc_path: %[1]s/run/proc
mboxname_lockpath: %[1]s/run/lock
lmtpsocket: %[1]s/run/lmtp
idlesocket: %[1]s/run/idle
notifysocket: %[1]s/run/notify
admins: master
proxyservers: master
altnamespace: yes
unixhierarchysep: yes
allowplaintext: yes
sasl_pwcheck_method: alwaystrue
sasl_mech_list: PLAIN
autocreate_quota: 0
tls_server_cert: disabled
delete_mode: immediate
expunge_mode: immediate
`, dir) + strings.Join(settings, "\n") + "\n",
		"cyrus.conf": fmt.Sprintf(`START {
  recover cmd="ctl_cyrusdb -C %[1]s/imapd.conf -r"
}
SERVICES {
  imap cmd="%[3]s -C %[1]s/imapd.conf" listen="%[2]s" prefork=1 maxchild=100
}
EVENTS {
}
`, dir, m.Addr, imapd),
	})
	u, err := user.Lookup("cyrus")
	if err != nil {
		tb.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid) // numbers, on this system
	gid, _ := strconv.Atoi(u.Gid)
	give(tb, dir, uid, gid)
	m.Server = newServer(tb, dir, find(tb, "cyrmaster"), "-D", "-C", filepath.Join(dir, "imapd.conf"),
		"-M", filepath.Join(dir, "cyrus.conf"), "-p", filepath.Join(dir, "run", "pid"))
	m.ready = func() error { return greets(tb, m.Addr) }
	m.Start()
	return m
}

// cyrusImapd finds Cyrus's server. Debian does not let it be installed beside
// Dovecot's, so integration/setup.sh unpacks it into a directory of its own.
func cyrusImapd(tb testing.TB) string {
	tb.Helper()
	const aside = "/usr/local/lib/understudy-lab/cyrus/usr/lib/cyrus/bin/imapd"
	const installed = "/usr/lib/cyrus/bin/imapd"
	if _, err := os.Stat(installed); err == nil {
		return installed
	}
	require.Command(tb, aside)
	return aside
}

// greets says whether an IMAP server answers.
func greets(tb testing.TB, addr string) error {
	tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "* OK") {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}

// selfSigned makes a certificate and its key in PEM, and the pin of the key.
func selfSigned(tb testing.TB) (cert, key, pin string) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.lab.test"}, DNSNames: []string{"mail.lab.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	block := func(kind string, raw []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", keyDER), "sha256:" + base64.StdEncoding.EncodeToString(sum[:])
}
