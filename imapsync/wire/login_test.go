package wire_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"

	"understudy/imapsync/wire"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestMechanisms(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		caps  string
		login wire.Login
		lines []string // what the client says; "<" lines are the server's
	}{
		"plain": {"SASL-IR AUTH=PLAIN", wire.Login{User: "eva", Secret: "s"}, []string{"AUTHENTICATE PLAIN " + b64("\x00eva\x00s")}},
		"plain by a master": {
			"SASL-IR AUTH=PLAIN",
			wire.Login{User: "eva", Master: "admin", Secret: "s"},
			[]string{"AUTHENTICATE PLAIN " + b64("eva\x00admin\x00s")},
		},
		"plain without an initial response": {"AUTH=PLAIN", wire.Login{User: "eva", Secret: "s"}, []string{"AUTHENTICATE PLAIN", "<+ ", b64("\x00eva\x00s")}},
		"login by a master": {
			"AUTH=LOGIN",
			wire.Login{Mechanism: "login", User: "eva", Master: "admin", Secret: "s"},
			[]string{"AUTHENTICATE LOGIN", "<+ " + b64("Username:"), b64("eva*admin"), "<+ " + b64("Password:"), b64("s")},
		},
		"the LOGIN command":    {"", wire.Login{User: `e"va\`, Secret: "s"}, []string{`LOGIN "e\"va\\" "s"`}},
		"LOGIN from PLAIN":     {"", wire.Login{User: "eva", SASL: sasl.NewPlainClient("", "eva*admin", "s")}, []string{`LOGIN "eva*admin" "s"`}},
		"xoauth2":              {"SASL-IR AUTH=XOAUTH2", wire.Login{Mechanism: "xoauth2", User: "eva", Secret: "tok"}, []string{"AUTHENTICATE XOAUTH2 " + b64("user=eva\x01auth=Bearer tok\x01\x01")}},
		"oauthbearer":          {"SASL-IR AUTH=OAUTHBEARER", wire.Login{Mechanism: "oauthbearer", User: "eva", Secret: "tok"}, []string{"AUTHENTICATE OAUTHBEARER " + b64("n,a=eva,\x01host=127.0.0.1\x01auth=Bearer tok\x01\x01")}},
		"external, empty name": {"SASL-IR AUTH=EXTERNAL", wire.Login{Mechanism: "external"}, []string{"AUTHENTICATE EXTERNAL ="}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialAs(t, raw(t, func(p *peer) {
				p.say("* OK [CAPABILITY IMAP4rev1 " + row.caps + "] ready")
				tag := ""
				for i, line := range row.lines {
					if said, server := strings.CutPrefix(line, "<"); server {
						p.say(said)
						continue
					}
					got := p.line()
					if i == 0 {
						tag, got, _ = strings.Cut(got, " ")
					}
					if got != line {
						t.Errorf("client says %q, not %q", got, line)
					}
				}
				p.say(tag + " OK [CAPABILITY IMAP4rev1] in")
			}), row.login)
		})
	}
}

func dialAs(t *testing.T, conf wire.Config, login wire.Login) {
	t.Helper()
	c, err := wire.Dial(t.Context(), conf, login)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestRefusedLogin(t *testing.T) {
	t.Parallel()
	for text, final := range map[string]bool{"NO [AUTHENTICATIONFAILED] no": true, "NO bad password": true, "NO [UNAVAILABLE] later": false} {
		conf := raw(t, func(p *peer) {
			p.say("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready")
			p.say(p.want("AUTHENTICATE") + " " + text)
		})
		_, err := wire.Dial(t.Context(), conf, wire.Login{User: "eva", Secret: "secret!"})
		if errors.Is(err, wire.ErrLogin) != final || err == nil {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret!") || strings.Contains(fmt.Sprintf("%+v", wire.Login{User: "eva", Secret: "secret!"}), "secret!")) {
			t.Error("the secret is in the text")
		}
	}
}

// TLS.

func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-9 * time.Hour), NotAfter: time.Now().Add(-time.Hour)} // expired
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, "sha256:" + hex.EncodeToString(sum[:])
}

func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	cert, pin := certificate(t)
	secure := func(p *peer) *peer {
		conn := tls.Server(p.conn, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
		if conn.HandshakeContext(t.Context()) != nil {
			panic(errGone)
		}
		return &peer{t: t, conn: conn, r: bufio.NewReader(conn)}
	}
	start := func(p *peer) *peer {
		p.say("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready")
		p.ok(p.want("STARTTLS"))
		p = secure(p)
		p.say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN", p.want("CAPABILITY")+" OK x")
		p.say(p.want("AUTHENTICATE PLAIN") + " OK [CAPABILITY IMAP4rev1] in")
		return p
	}
	login := wire.Login{User: "eva", Secret: "s"}

	conf := raw(t, func(p *peer) { start(p) })
	conf.Pins = []string{pin}
	dialAs(t, conf, login)

	conf = raw(t, func(p *peer) { start(p) })
	conf.Pins = []string{"sha256:" + strings.Repeat("00", 32)}
	_, err := wire.Dial(t.Context(), conf, login)
	mustBe(t, err, wire.ErrPin)

	conf = raw(t, func(p *peer) { start(p) })
	conf.ServerName = "mail.example.net" // wants a certificate that can be verified
	if _, err = wire.Dial(t.Context(), conf, login); err == nil {
		t.Error("an unknown certificate was taken")
	}

	// A pinned server that offers no TLS is not the pinned server.
	for _, greeting := range []string{"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x", "* PREAUTH [CAPABILITY IMAP4rev1] x"} {
		conf = raw(t, func(p *peer) { p.say(greeting); _, _ = p.r.ReadByte() })
		conf.Pins = []string{pin}
		_, err = wire.Dial(t.Context(), conf, login)
		mustBe(t, err, wire.ErrNoTLS)
	}

	// What is said in clear behind STARTTLS would count inside TLS.
	conf = raw(t, func(p *peer) {
		p.say("* OK [CAPABILITY IMAP4rev1 STARTTLS] ready")
		tag := p.want("STARTTLS")
		p.say(tag + " OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nu2 OK x")
		_, _ = p.r.ReadByte()
	})
	_, err = wire.Dial(t.Context(), conf, login)
	mustBe(t, err, wire.ErrProtocol)
}

func TestPlainTextGoesNoFurtherThanLoopback(t *testing.T) {
	t.Parallel()
	for address, valid := range map[string]bool{
		"imaps://mx1.example.net": true, "imap://[::1]:14": true, "imap://": false, "http://x": false, "imaps://u:p@x": false, "": false,
	} {
		if err := (wire.Config{Address: address}).Validate(); (err == nil) != valid {
			t.Errorf("%q: %v", address, err)
		}
	}
	if err := (wire.Config{Address: "imap://x", Pins: []string{"sha256:zz", "md5:x"}}).Validate(); err == nil || strings.Count(err.Error(), "pins: ") != 2 {
		t.Errorf("pins: %v", err)
	}
}
