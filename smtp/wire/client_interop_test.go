package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// gosmtpStore is a backend of go-smtp's server that keeps what it gets.
type gosmtpStore struct {
	mu   sync.Mutex
	got  []string
	opts []gosmtp.MailOptions
}

type gosmtpSession struct{ s *gosmtpStore }

func (s *gosmtpStore) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &gosmtpSession{s}, nil }
func (x *gosmtpSession) Reset()                                        {}
func (x *gosmtpSession) Logout() error                                 { return nil }
func (x *gosmtpSession) Mail(_ string, o *gosmtp.MailOptions) error {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.opts = append(x.s.opts, *o)
	return nil
}

func (x *gosmtpSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "no") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	return nil
}

func (x *gosmtpSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.got = append(x.s.got, string(b))
	return nil
}

func (x *gosmtpSession) LMTPData(r io.Reader, status gosmtp.StatusCollector) error {
	if err := x.Data(r); err != nil {
		return err
	}
	status.SetStatus("a@x", nil)
	status.SetStatus("b@x", &gosmtp.SMTPError{Code: 452, EnhancedCode: gosmtp.EnhancedCode{4, 2, 2}, Message: "full"})
	return nil
}

// startGosmtp runs go-smtp's server on loopback.
func startGosmtp(t *testing.T, lmtp bool, cert *tls.Certificate) (*gosmtpStore, string) {
	t.Helper()
	store := &gosmtpStore{}
	srv := gosmtp.NewServer(store)
	srv.Domain, srv.LMTP, srv.EnableSMTPUTF8, srv.EnableDSN, srv.EnableREQUIRETLS = "peer.test", lmtp, true, true, true
	srv.MaxLineLength = 1 << 20
	if cert != nil {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-ended
	})
	return store, l.Addr().String()
}

func dialClient(t *testing.T, addr string, cfg ClientConfig) (*Client, error) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(t.Context(), conn, cfg)
	if err == nil {
		t.Cleanup(c.Abort)
	}
	return c, err
}

func testCertificate(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer.test"}, DNSNames: []string{"peer.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// C2 of the findings: the dot writer changed the bytes, and BODY=8BITMIME was
// always sent.
func TestC2BytesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 300)
	bodies := []string{
		"Subject: x\r\n\r\nplain\r\n",
		"Subject: x\r\n\r\n.\r\n..\r\n.dot\r\n",
		".first\r\n",
		"Subject: 8 bit\r\n\r\n\xe4\xf6\xfc \x00\x7f\r\n",
		"Subject: long\r\n\r\n" + long + "\r\n" + long + "\r\n",
		"Subject: x\r\n\r\nno newline at the end",
		"ends with a dot\r\n.",
		"\r\n",
		"",
		strings.Repeat(".\r\n", 100_000), // several chunks, lines across their edges
		strings.Repeat("ab\r\n", chunkBytes/4),
		strings.Repeat("ab\r\n", chunkBytes/4) + "x",
		strings.Repeat("x", chunkBytes-1) + "\r\n.\r\n",
		strings.Repeat("x", chunkBytes-2) + "\r\n.\r\n",
	}
	for _, noChunking := range []bool{false, true} {
		store, addr := startGosmtp(t, false, nil)
		c, err := dialClient(t, addr, ClientConfig{NoChunking: noChunking})
		if err != nil {
			t.Fatal(err)
		}
		for i, body := range bodies {
			m := text(body, "a@x", "no@x")
			m.SizeBytes = 0
			if a := sendOne(t, c, m); a[0].Code != 250 || codes(a[1:]) != "550@RCPT" {
				t.Fatalf("body %d: %s %v", i, codes(a), a[0].Err)
			}
			want := body
			if noChunking && body != "" && !strings.HasSuffix(body, "\r\n") {
				want += "\r\n" // DATA cannot say "no newline at the end"
			}
			if got := store.got[len(store.got)-1]; got != want {
				t.Errorf("chunking %v, body %d: %d bytes arrived, want %d", !noChunking, i, len(got), len(want))
			}
			if b := store.opts[len(store.opts)-1].Body; b != "" {
				t.Errorf("BODY=%s was invented", b)
			}
		}
	}
}

// What has a bare CR or LF cannot be said with DATA; nothing of it is delivered.
func TestC2BareLineEndsAreNotRewritten(t *testing.T) {
	t.Parallel()
	store, addr := startGosmtp(t, false, nil)
	c, err := dialClient(t, addr, ClientConfig{NoChunking: true})
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("ab\r\n", chunkBytes/4)
	for _, body := range []string{"a\nb\r\n", "a\rb\r\n", "a\r\r\n", "a\r", "a\r\n\n", "\n", "a\n.\r\nMAIL FROM:<x@x>\r\n"} {
		a := sendOne(t, c, text(body, "a@x"))
		if codes(a) != "550@connect" || !errors.Is(a[0].Err, ErrContent) {
			t.Errorf("%q: %s %v", body, codes(a), a[0].Err)
		}
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
	a := sendOne(t, c, text(big+"a\nb\r\n", "a@x"))
	if codes(a) != "550@connect" || !errors.Is(a[0].Err, ErrContent) {
		t.Errorf("behind the first chunk: %s %v", codes(a), a[0].Err)
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if len(store.got) != 0 {
		t.Errorf("%d messages were delivered", len(store.got))
	}
}

func TestClientUnreadableContent(t *testing.T) {
	t.Parallel()
	disk := fmt.Errorf("input/output error: %w", io.ErrUnexpectedEOF) // no end of the content
	broken := func(good string) *Outgoing {
		m := text(good, "a@x")
		m.Open = func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(good), brokenReader{disk})), nil
		}
		return m
	}
	for _, noChunking := range []bool{false, true} {
		store, addr := startGosmtp(t, false, nil)
		c, err := dialClient(t, addr, ClientConfig{NoChunking: noChunking})
		if err != nil {
			t.Fatal(err)
		}
		for _, good := range []string{"", "a\r\n", strings.Repeat("ab\r\n", 100_000)} {
			if c.Err() != nil {
				if c, err = dialClient(t, addr, ClientConfig{NoChunking: noChunking}); err != nil {
					t.Fatal(err)
				}
			}
			a := sendOne(t, c, broken(good))
			if a[0].Code != 0 || !errors.Is(a[0].Err, disk) || !errors.Is(a[0].Err, ErrOpen) {
				t.Errorf("chunking %v: %s %v", !noChunking, codes(a), a[0].Err)
			}
		}
		if a := sendOne(t, c, text("fine\r\n", "a@x")); c.Err() == nil && codes(a) != "250" {
			t.Errorf("the next message: %s %v", codes(a), a[0].Err)
		}
		c.Abort()
		store.mu.Lock()
		if n := len(store.got); n > 1 || (n == 1 && store.got[0] != "fine\r\n") {
			t.Errorf("a cut message was delivered: %d", n)
		}
		store.mu.Unlock()
	}
}

type brokenReader struct{ err error }

// A content that is not as long as was said is not sent.
func TestClientContentOfAnotherLength(t *testing.T) {
	t.Parallel()
	for _, noChunking := range []bool{false, true} {
		store, addr := startGosmtp(t, false, nil)
		for _, off := range []int64{-1, 1} {
			for _, body := range []string{"a\r\n", strings.Repeat("ab\r\n", 100_000)} {
				c, err := dialClient(t, addr, ClientConfig{NoChunking: noChunking})
				if err != nil {
					t.Fatal(err)
				}
				m := text(body, "a@x")
				m.SizeBytes += off
				if a := sendOne(t, c, m); a[0].Code != 0 || !errors.Is(a[0].Err, ErrOpen) {
					t.Errorf("%s %v", codes(a), a[0].Err)
				}
			}
		}
		store.mu.Lock()
		if len(store.got) != 0 {
			t.Errorf("%d were delivered", len(store.got))
		}
		store.mu.Unlock()
	}
}

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

func TestClientSTARTTLS(t *testing.T) {
	t.Parallel()
	cert := testCertificate(t)
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	store, addr := startGosmtp(t, false, cert)
	c, err := dialClient(t, addr, ClientConfig{TLS: &tls.Config{RootCAs: pool, ServerName: "peer.test"}, RequireTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.TLS() == nil || c.Extensions().Has("STARTTLS") {
		t.Error("the EHLO after STARTTLS was not used")
	}
	m := text("x\r\n", "a@x")
	m.RequireTLS = true
	if a := sendOne(t, c, m); codes(a) != "250" {
		t.Fatal(codes(a), a[0].Err)
	}
	if !store.opts[0].RequireTLS {
		t.Error("REQUIRETLS was not said")
	}
	if _, err := dialClient(t, addr, ClientConfig{TLS: &tls.Config{RootCAs: pool, ServerName: "other.test"}}); !errors.Is(err, ErrTLS) {
		t.Errorf("a wrong name: %v", err)
	}
}

// What a man in the middle puts behind STARTTLS in clear is not believed inside.
func TestClientForgetsPlaintextBeforeTLS(t *testing.T) {
	t.Parallel()
	cert := testCertificate(t)
	c, _ := mustPeer(t, ClientConfig{TLS: &tls.Config{InsecureSkipVerify: true}}, func(p *clientPeer) { //nolint:gosec // a test
		p.greet("STARTTLS", "XCLIENT ADDR")
		p.hear("STARTTLS")
		p.say("220 go", "250 injected.test")
		srv := tls.Server(p.conn, &tls.Config{Certificates: []tls.Certificate{*cert}})
		q := &clientPeer{t: p.t, conn: srv}
		q.br = newTestReader(srv)
		q.hear("EHLO")
		q.ehlo("PIPELINING")
		q.drain()
	})
	if ext := c.Extensions(); !ext.Has("PIPELINING") || ext.Has("XCLIENT") {
		t.Errorf("got %v", ext)
	}
}

func TestClientLMTPAgainstGosmtp(t *testing.T) {
	t.Parallel()
	for _, noChunking := range []bool{false, true} {
		_, addr := startGosmtp(t, true, nil)
		c, err := dialClient(t, addr, ClientConfig{LMTP: true, NoChunking: noChunking})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if a := sendOne(t, c, text("x\r\n", "a@x", "no@x", "b@x")); codes(a) != "250 550@RCPT 452" {
				t.Errorf("chunking %v: %s %v", !noChunking, codes(a), a[0].Err)
			}
		}
	}
}

// A body of 200 MB costs no more memory than one of 200 KB.
func TestClientMemoryIsFlat(t *testing.T) {
	for _, ext := range [][]string{{"PIPELINING", "CHUNKING"}, {"PIPELINING"}} {
		c, _ := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
			p.greet(ext...)
			p.hear("MAIL")
			p.hear("RCPT")
			p.say("250 ok", "250 ok")
			for {
				line, err := p.br.ReadSlice('\n')
				if err != nil {
					return
				}
				switch {
				case string(line) == "DATA\r\n":
					p.say("354 go")
				case string(line) == ".\r\n":
					p.say("250 ok")
				case strings.HasPrefix(string(line[:5]), "BDAT "):
					n, last := 0, ""
					_, _ = fmt.Sscan(string(line[5:]), &n, &last)
					_, _ = p.br.Discard(n)
					p.say("250 ok")
				}
			}
		})
		const lines = 2_000_000
		m := text("", "a@x")
		m.SizeBytes = lines * 100
		m.Open = func(context.Context) (io.ReadCloser, error) {
			line := strings.Repeat("0123456789", 10)[:98] + "\r\n"
			return io.NopCloser(io.LimitReader(&repeater{text: line}, lines*100)), nil
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a := sendOne(t, c, m)
		runtime.ReadMemStats(&after)
		if codes(a) != "250" {
			t.Errorf("%v: %s %v", ext, codes(a), a[0].Err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%v: %d bytes were allocated", ext, n)
		}
	}
}

// repeater gives text again and again.
type repeater struct {
	text string
	off  int
}

func (r *repeater) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k := copy(p[n:], r.text[r.off:])
		n, r.off = n+k, (r.off+k)%len(r.text)
	}
	return n, nil
}
