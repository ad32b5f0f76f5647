package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	gosmtp "github.com/emersion/go-smtp"

	"understudy/smtp/wire"
)

// memQueue keeps messages in memory. The zero value is ready.
type memQueue struct {
	mu       sync.Mutex
	roomErr  error
	writeErr error
	openErr  error
	commit   func() error
	stored   []stored
	open     int // drafts neither committed nor discarded
	n        int
}

type stored struct {
	env  *Envelope
	data string
}

func (q *memQueue) Room(int64) error { return q.roomErr }

func (q *memQueue) Create(context.Context, int64) (Draft, error) {
	if q.roomErr != nil {
		return nil, q.roomErr
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.n++
	q.open++
	return &memDraft{q: q, id: fmt.Sprintf("Q%d", q.n)}, nil
}

func (q *memQueue) messages() []stored {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stored
}

func (q *memQueue) openDrafts() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open
}

type memDraft struct {
	q    *memQueue
	id   string
	buf  bytes.Buffer
	done bool
}

func (d *memDraft) Write(p []byte) (int, error) {
	if d.q.writeErr != nil {
		return 0, d.q.writeErr
	}
	return d.buf.Write(p)
}

func (d *memDraft) ID() string { return d.id }

func (d *memDraft) Open() (io.ReadSeeker, error) {
	return bytes.NewReader(d.buf.Bytes()), d.q.openErr
}

func (d *memDraft) Commit(_ context.Context, env *Envelope, header []byte) error {
	if d.q.commit != nil {
		if err := d.q.commit(); err != nil {
			return err
		}
	}
	d.q.mu.Lock()
	defer d.q.mu.Unlock()
	d.done = true
	d.q.open--
	env.ID = d.id
	env.SizeBytes = int64(len(header) + d.buf.Len())
	d.q.stored = append(d.q.stored, stored{env, string(header) + d.buf.String()})
	return nil
}

func (d *memDraft) Discard() {
	d.q.mu.Lock()
	defer d.q.mu.Unlock()
	if !d.done {
		d.done = true
		d.q.open--
	}
}

// listed is a Recipients that answers from a map; other addresses are Unknown.
type listed map[string]Disposition

func (l listed) Lookup(_ context.Context, a string) (Disposition, error) {
	switch a {
	case "broken@example.com":
		return Unknown, errors.New("secret path /etc/x")
	}
	if d, ok := l[strings.ToLower(a)]; ok {
		return d, nil
	}
	return Unknown, nil
}

// fakeConn is a connection without a network.
type fakeConn struct {
	id      string
	addr    netip.AddrPort
	helo    string
	plain   bool
	reverse string
	login   string
	tls     *tls.ConnectionState

	forwarded wire.Forwarded
}

func (c *fakeConn) ID() string                 { return c.id }
func (c *fakeConn) RemoteAddr() netip.AddrPort { return c.addr }
func (c *fakeConn) HELO() string               { return c.helo }
func (c *fakeConn) Extended() bool             { return !c.plain }
func (c *fakeConn) Protocol() string           { return "ESMTP" }
func (c *fakeConn) ReverseName() string        { return c.reverse }
func (c *fakeConn) Forwarded() wire.Forwarded  { return c.forwarded }
func (c *fakeConn) Login() string              { return c.login }
func (c *fakeConn) TLS() *tls.ConnectionState  { return c.tls }

// world is a front with all its fakes.
type world struct {
	t     *testing.T
	queue *memQueue
	logs  *syncBuffer
	front *Front
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t *testing.T, change func(*Config, *Deps)) *world {
	t.Helper()
	w := &world{t: t, queue: &memQueue{}, logs: &syncBuffer{}}
	domains, err := NewDomains([]string{"example.com", "Bücher.example"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Peers = []string{"192.0.2.250"}
	deps := Deps{
		Hostname: "mx2.example.com",
		Domains:  domains,
		Recipients: listed{
			"user@example.com":                 Exists,
			"other@example.com":                Exists,
			"stale@example.com":                Unsure,
			"user@xn--bcher-kva.example":       Exists,
			`"a b"@example.com`:                Exists,
			`quoted@example.com`:               Exists,
			"postmaster-is-not-this@x.invalid": Unknown,
		},
		Queue:  w.queue,
		Logger: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg, &deps)
	}
	w.front, err = NewFront(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// dial opens a session from addr; it is logged out when the test ends.
func (w *world) dial(addr string) (*session, error) {
	w.t.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		ap = netip.AddrPortFrom(netip.MustParseAddr(addr), 4711)
	}
	s, err := w.front.connect(w.t.Context(), &fakeConn{id: "S-" + addr, addr: ap, helo: "client.example.net"})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (w *world) session(addr string) *session {
	w.t.Helper()
	s, err := w.dial(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// reply writes an answer as "550 5.1.1 text"; nil is "250".
func reply(err error) string {
	if err == nil {
		return "250"
	}
	var se *gosmtp.SMTPError
	if !errors.As(err, &se) {
		return "not an SMTPError: " + err.Error()
	}
	return fmt.Sprintf("%d %s %s", se.Code, formatEnhanced(se.EnhancedCode), se.Message)
}

// send runs one whole message and returns the answer to its end.
func send(t *testing.T, s *session, from string, to []string, body string) string {
	t.Helper()
	if err := s.Mail(from, nil); err != nil {
		t.Fatalf("MAIL: %s", reply(err))
	}
	for _, r := range to {
		if err := s.Rcpt(r, nil); err != nil {
			t.Fatalf("RCPT %s: %s", r, reply(err))
		}
	}
	err := s.Data(strings.NewReader(body))
	s.Reset()
	return reply(err)
}
