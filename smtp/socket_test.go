package smtp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"understudy/smtp"
	"understudy/smtp/queue/queuetest"
	"understudy/smtp/wire"
)

// everyone is a Recipients that knows user and other.
type everyone struct{}

func (everyone) Lookup(_ context.Context, a string) (smtp.Disposition, error) {
	switch a {
	case "user@example.com", "other@example.com":
		return smtp.Exists, nil
	case "later@example.com":
		return smtp.Unsure, nil
	}
	return smtp.Unknown, nil
}

// server is a front behind a real server on a real socket.
type server struct {
	t     *testing.T
	addr  string
	queue *queuetest.Queue
}

func serve(t *testing.T, change func(*smtp.Config, *smtp.Deps, *wire.ServerConfig)) *server {
	t.Helper()
	domains, err := smtp.NewDomains([]string{"example.com"})
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New()
	cfg, wcfg := smtp.DefaultConfig(), wire.DefaultServerConfig()
	deps := smtp.Deps{
		Hostname: "mx2.example.com", Domains: domains, Recipients: everyone{}, Queue: q,
		MaxMessageBytes: wcfg.MaxMessageBytes, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg, &deps, &wcfg)
	}
	front, err := smtp.NewFront(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := wire.NewServer(wcfg, deps.Hostname, nil, front, deps.Logger)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := q.OpenDrafts(); n != 0 {
			t.Errorf("%d drafts left", n)
		}
	})
	return &server{t: t, addr: l.Addr().String(), queue: q}
}

// dialog sends lines one by one and compares the beginnings of the replies.
func (s *server) dialog(steps ...string) {
	s.t.Helper()
	if len(steps)%2 != 0 {
		s.t.Fatal("lines and replies come in pairs")
	}
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(s.t.Context(), "tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for line, want := range pairs(steps) {
		if line != "" {
			if _, err := fmt.Fprint(c, line+"\r\n"); err != nil {
				s.t.Fatalf("%s: %v", line, err)
			}
		}
		got, err := reply(r)
		if err != nil || !strings.HasPrefix(got, want) {
			s.t.Errorf("%.60s: got %q %v, want %q", line, got, err, want)
			return
		}
	}
}

func pairs(list []string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for p := range slices.Chunk(list, 2) {
			if !yield(p[0], p[1]) {
				return
			}
		}
	}
}

func reply(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if len(line) > 3 && line[3] == ' ' {
			return strings.TrimRight(line, "\r\n"), nil
		}
	}
}

func TestSocketDialog(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.dialog(
		"", "220 mx2.example.com",
		"EHLO client.example.net", "250",
		"MAIL FROM:<a@b.example> SIZE=99999999", "552 5.3.4",
		"MAIL FROM:<a@b.example>", "250",
		"RCPT TO:<nobody@example.com>", "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown",
		"RCPT TO:<later@example.com>", "450 4.1.1",
		"RCPT TO:<user@elsewhere.example>", "554 5.7.1",
		"RCPT TO:<Postmaster>", "250",
		"RCPT TO:<user@example.com>", "250",
		"DATA", "354",
		"Subject: x\r\n\r\n..dot\r\n.", "250 2.0.0 queued as FAKE",
		"RCPT TO:<user@example.com>", "503",
		"QUIT", "221",
	)
}

func TestSocketMessage(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.dialog(
		"", "220",
		"EHLO client.example.net", "250",
		"MAIL FROM:<>", "250",
		"RCPT TO:<user@example.com>", "250",
		"BDAT 20 LAST\r\nSubject: x\r\n\r\nbody", "250 2.0.0 queued as FAKE",
		"QUIT", "221",
	)
	m := s.queue.Messages()
	if len(m) != 1 {
		t.Fatalf("%d messages", len(m))
	}
	body := string(m[0].Body)
	want := "Received: from client.example.net (unknown [127.0.0.1])\r\n\tby mx2.example.com (understudy) with ESMTP id " + m[0].Envelope.ID + "\r\n\tfor <user@example.com>;\r\n\t"
	if !strings.HasPrefix(body, want) || !strings.HasSuffix(body, "+0000\r\nSubject: x\r\n\r\nbody\r\n") {
		t.Errorf("stored %q", body)
	}
	if e := m[0].Envelope; e.Client.Addr.Addr().String() != "127.0.0.1" || e.Client.HELO != "client.example.net" || e.SizeBytes != int64(len(body)) {
		t.Errorf("envelope %+v", e)
	}
}

func TestSocketFull(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.queue.SetFull(true)
	s.dialog("", "220", "EHLO c", "250", "MAIL FROM:<>", "452 4.3.1", "QUIT", "221")
	s.queue.SetFull(false)
	s.queue.FailCommits(errors.New("/var/spool/secret: input/output error"))
	s.dialog("", "220", "EHLO c", "250", "MAIL FROM:<>", "250", "RCPT TO:<user@example.com>", "250", "DATA", "354",
		"A: b\r\n.", "451 4.3.0 <user@example.com>: Temporary local problem, please try later", "NOOP", "250", "QUIT", "221")
	s.queue.FailCommits(nil)
	s.dialog("", "220", "EHLO c", "250", "MAIL FROM:<>", "250", "RCPT TO:<user@example.com>", "250", "DATA", "354", "A: b\r\n.", "250", "QUIT", "221")
}

func TestSocketStandby(t *testing.T) {
	t.Parallel()
	var active atomic.Bool
	s := serve(t, func(c *smtp.Config, d *smtp.Deps, w *wire.ServerConfig) {
		c.Peers = []string{"127.0.0.1"}
		w.XClientFrom = []string{"127.0.0.1"}
		d.Active = active.Load
	})
	s.dialog("", "220", "EHLO c", "250", "MAIL FROM:<>", "451 4.3.2", "QUIT", "221")
	// The address of the origin does not hide the other understudy.
	s.dialog("", "220", "EHLO c", "250", "XCLIENT ADDR=203.0.113.9 NAME=o.example HELO=o.example PROTO=ESMTP", "220", "EHLO c", "250", "MAIL FROM:<>", "451 4.3.2", "QUIT", "221")
	active.Store(true)
	s.dialog("", "220", "EHLO c", "250", "XCLIENT ADDR=203.0.113.9 NAME=o.example HELO=o.example PROTO=ESMTP", "220", "EHLO c", "250",
		"MAIL FROM:<>", "250", "RCPT TO:<user@example.com>", "250", "DATA", "354", "A: b\r\n.", "250", "QUIT", "221")
	e := s.queue.Messages()[0].Envelope
	if e.Client.Addr.Addr().String() != "203.0.113.9" || e.Client.ReverseName != "o.example" || !e.Client.Peer {
		t.Errorf("client %+v", e.Client)
	}
}

func TestSocketConnectionLimit(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *smtp.Config, _ *smtp.Deps, _ *wire.ServerConfig) {
		c.Limits.Exempt = nil
		c.Limits.ConnectionsPerMinute = 3
	})
	for range 3 {
		s.dialog("", "220", "QUIT", "221")
	}
	s.dialog("", "421 4.7.0 ")
}

func TestSocketETRN(t *testing.T) {
	t.Parallel()
	flushed := make(chan string, 1)
	s := serve(t, func(c *smtp.Config, d *smtp.Deps, _ *wire.ServerConfig) {
		c.ETRNFrom = []string{"127.0.0.0/8"}
		d.Flush = func(domain string) error { flushed <- domain; return nil }
	})
	s.dialog("", "220", "EHLO c", "250", "ETRN other.example", "459", "ETRN example.com", "250", "QUIT", "221")
	if got := <-flushed; got != "example.com" {
		t.Errorf("flushed %q", got)
	}
}

// A message cut short is never stored.
func TestSocketCut(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, last := range []string{"DATA\r\nA: b\r\n\r\nbo", "BDAT 1000 LAST\r\nA: b\r\n"} {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<user@example.com>\r\n%s", last); err != nil {
			t.Fatal(err)
		}
		if tc, ok := c.(*net.TCPConn); ok {
			if err := tc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		for r := bufio.NewReader(c); ; {
			if line, err := r.ReadString('\n'); err != nil {
				break
			} else if strings.Contains(line, "queued as") {
				t.Errorf("%q", line)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(s.queue.Messages()); n != 0 {
		t.Errorf("%d messages stored", n)
	}
}
