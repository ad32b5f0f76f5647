package probe_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"understudy/smtp/wire"
	"understudy/smtp/wire/probe"
)

// inbox takes everything but unknown@.
type inbox struct{}

func (inbox) Connect(context.Context, *wire.Conn) (wire.Session, error) { return inbox{}, nil }
func (inbox) Hello(string, bool) error                                  { return nil }
func (inbox) Reset()                                                    {}
func (inbox) Logout() error                                             { return nil }
func (inbox) Mail(string, *gosmtp.MailOptions) error                    { return nil }

func (inbox) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "unknown@") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "unknown"}
	}
	return nil
}

func (inbox) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func TestOurServer(t *testing.T) {
	t.Parallel()
	cfg := wire.DefaultServerConfig()
	cfg.GreetDelay = 50 * time.Millisecond
	cfg.DataTimeout, cfg.MinDataRate = 2*time.Second, 10
	s, err := wire.NewServer(cfg, "mx.example.com", &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, inbox{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, func(l net.Listener) error { return s.Serve(context.Background(), l) }, s.Shutdown)
	for _, p := range probe.Table() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			if p.Slow && testing.Short() {
				t.Skip("takes seconds")
			}
			err := p.Run(t.Context(), probe.Target{Addr: addr, From: "a@example.org", To: "b@example.com", Unknown: "unknown@example.com"})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// laxBackend makes a go-smtp server, on which a number of probes must fail: probes
// that cannot fail would prove nothing.
type laxBackend struct{}

func (laxBackend) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return inbox{}, nil }

func TestProbesFindFaults(t *testing.T) {
	t.Parallel()
	s := gosmtp.NewServer(laxBackend{})
	s.MaxMessageBytes = 1 << 20
	addr := serve(t, s.Serve, func(context.Context) error { return s.Close() })
	found := map[string]bool{}
	for _, p := range probe.Table() {
		if p.Slow {
			continue
		}
		err := p.Run(t.Context(), probe.Target{
			Addr: addr, From: "a@example.org", To: "b@example.com", Unknown: "unknown@example.com", Timeout: time.Second,
		})
		if err != nil && !errors.Is(err, probe.ErrSkipped) {
			found[p.Name] = true
			t.Logf("%s: %v", p.Name, err)
		}
	}
	for _, name := range []string{
		"a session before the banner is refused", "a truncated BDAT is not accepted", "postmaster needs no domain",
		"nested MAIL is refused", "50 bad recipients are too many", "NUL in a message is refused",
		"a command ended by a bare LF is refused", "CR CRLF.CRLF ends the message", "a line of 3,000 bytes is accepted",
	} {
		if !found[name] {
			t.Errorf("not found in a server known for it: %s", name)
		}
	}
}

func serve(t *testing.T, run func(net.Listener) error, stop func(context.Context) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback, in a test
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = run(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := stop(ctx); err != nil {
			t.Error(err)
		}
		<-done
	})
	return l.Addr().String()
}
