package wire

import (
	"bufio"
	"bytes"
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
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// sink is a backend that takes everything and remembers it.
type sink struct {
	mu       sync.Mutex
	messages []taken
	broken   []error // of readers that failed
	sessions []*sinkSession
	connect  func(*Conn) error
	rcpt     func(string) error
	data     func(io.Reader) error
	ended    int
}

type taken struct {
	from  string
	mail  gosmtp.MailOptions
	to    []string
	rcpts []gosmtp.RcptOptions
	body  []byte
	proto string
}

type sinkSession struct {
	sink *sink
	conn *Conn
	msg  taken
	helo []string
}

func (s *sink) Connect(_ context.Context, c *Conn) (Session, error) {
	if s.connect != nil {
		if err := s.connect(c); err != nil {
			return nil, err
		}
	}
	x := &sinkSession{sink: s, conn: c}
	s.mu.Lock()
	s.sessions = append(s.sessions, x)
	s.mu.Unlock()
	return x, nil
}

func (s *sink) all() []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]taken(nil), s.messages...)
}

func (s *sinkSession) Hello(name string, _ bool) error {
	s.helo = append(s.helo, name)
	return nil
}

func (s *sinkSession) Reset() { s.msg = taken{} }

func (s *sinkSession) Logout() error {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	s.sink.ended++
	return nil
}

func (s *sinkSession) Mail(from string, o *gosmtp.MailOptions) error {
	s.msg.from, s.msg.mail = from, *o
	return nil
}

func (s *sinkSession) Rcpt(to string, o *gosmtp.RcptOptions) error {
	if s.sink.rcpt != nil {
		if err := s.sink.rcpt(to); err != nil {
			return err
		}
	}
	s.msg.to = append(s.msg.to, to)
	s.msg.rcpts = append(s.msg.rcpts, *o)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	if s.sink.data != nil {
		return s.sink.data(r)
	}
	body, err := io.ReadAll(r)
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if err != nil {
		s.sink.broken = append(s.sink.broken, err)
		return err
	}
	s.msg.body, s.msg.proto = body, s.conn.Protocol()
	s.sink.messages = append(s.sink.messages, s.msg)
	return nil
}

// serve runs a server on loopback until the test ends.
func serve(t *testing.T, backend Backend, change func(*ServerConfig)) (*Server, string) {
	t.Helper()
	cfg := DefaultServerConfig()
	if change != nil {
		change(&cfg)
	}
	s, err := NewServer(cfg, "mx.example.com", &tls.Config{Certificates: []tls.Certificate{onceCert()}}, backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback, in a test
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

var onceCert = sync.OnceValue(makeCert)

func makeCert() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// talker is a client that sends exactly what the test says.
type talker struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

func dial(t *testing.T, addr string) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", addr) //nolint:noctx // loopback, in a test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &talker{t: t, nc: nc, r: bufio.NewReader(nc)}
}

func (c *talker) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, s); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// expect reads one reply and checks how it starts.
func (c *talker) expect(prefix string) string {
	c.t.Helper()
	got := c.reply()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
	return got
}

func (c *talker) reply() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			c.t.Fatalf("reading a reply: %v after %q", err, all.String())
		}
		if len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// closed checks that nothing but the end follows.
func (c *talker) closed() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 {
		c.t.Fatalf("got %q, want the end of the connection", rest)
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("the connection stays open")
	}
}

func (c *talker) half() {
	c.t.Helper()
	if err := c.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *talker) startTLS() {
	c.t.Helper()
	c.send("STARTTLS\r\n")
	c.expect("220 2.0.0 ")
	tc := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err := tc.HandshakeContext(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	c.nc, c.r = tc, bufio.NewReader(tc)
}

// ready greets and opens a transaction.
func (c *talker) ready() {
	c.t.Helper()
	c.expect("220 ")
	c.hello()
	c.envelope()
}

func (c *talker) hello() {
	c.t.Helper()
	c.send("EHLO client.example\r\n")
	c.expect("250-")
}

func (c *talker) envelope() {
	c.t.Helper()
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("250 2.1.0")
	c.send("RCPT TO:<b@example.com>\r\n")
	c.expect("250 2.1.5")
}

func (c *talker) data(body string) {
	c.t.Helper()
	c.send("DATA\r\n")
	c.expect("354 ")
	if body != "" {
		c.send(body)
	}
}

// bodies checks what the backend took.
func (s *sink) bodies(t *testing.T, want ...string) {
	t.Helper()
	got := s.all()
	if len(got) != len(want) {
		t.Fatalf("%d messages taken, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i].body, []byte(want[i])) {
			t.Errorf("message %d is %.200q, want %.200q", i, got[i].body, want[i])
		}
	}
}

// wait polls until ok.
func wait(t *testing.T, ok func() bool) {
	t.Helper()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-end:
			t.Fatal("waited in vain")
		case <-time.After(time.Millisecond):
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// stuff is dot-stuffing (RFC 5321, section 4.5.2) in its plainest form.
func stuff(s string) string {
	s = strings.ReplaceAll(s, "\r\n.", "\r\n..")
	if strings.HasPrefix(s, ".") {
		s = "." + s
	}
	return s
}

// pipes is a listener whose connections are in memory, for synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// inBubble runs a test with a clock of its own against a server on pipes.
func inBubble(t *testing.T, test func(t *testing.T, dial func() *talker, b *sink), change func(*ServerConfig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultServerConfig()
		if change != nil {
			change(&cfg)
		}
		b := &sink{}
		s, err := NewServer(cfg, "mx.example.com", nil, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, l) }()
		t.Cleanup(func() {
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		test(t, func() *talker {
			client, server := net.Pipe()
			t.Cleanup(func() { _ = client.Close() })
			l.conns <- server
			return &talker{t: t, nc: client, r: bufio.NewReader(client)}
		}, b)
	})
}
