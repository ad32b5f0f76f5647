package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp/wire"
)

func TestReceived(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 13, 44, 24, 0, time.FixedZone("CET", 3600))
	env := func(change func(*Envelope)) *Envelope {
		e := &Envelope{
			ID: "0K3", Received: at,
			Client:     Client{Addr: netip.MustParseAddrPort("192.0.2.1:25"), HELO: "mail.example.net", Protocol: "ESMTP"},
			Recipients: []Recipient{{Address: "u@example.com"}},
		}
		if change != nil {
			change(e)
		}
		return e
	}
	const tail = ";\r\n\tTue, 24 Nov 2026 12:44:24 +0000\r\n"
	for _, tc := range []struct {
		name string
		env  *Envelope
		want string
	}{
		{
			"plain", env(nil),
			"Received: from mail.example.net (unknown [192.0.2.1])\r\n\tby mx2.example.com (understudy) with ESMTP id 0K3\r\n\tfor <u@example.com>" + tail,
		},
		{
			"TLS, name and IPv6", env(func(e *Envelope) {
				e.Client.Addr = netip.MustParseAddrPort("[2001:db8::1]:25")
				e.Client.ReverseName = "m.example.net"
				e.Client.Protocol = "ESMTPS"
				e.Client.TLS = "TLS1.3 TLS_AES_128_GCM_SHA256"
			}),
			"Received: from mail.example.net (m.example.net [IPv6:2001:db8::1])\r\n\t(using TLS1.3 TLS_AES_128_GCM_SHA256)\r\n" +
				"\tby mx2.example.com (understudy) with ESMTPS id 0K3\r\n\tfor <u@example.com>" + tail,
		},
		{
			"two recipients are told nothing of each other", env(func(e *Envelope) { e.Recipients = append(e.Recipients, Recipient{Address: "x@y"}) }),
			"Received: from mail.example.net (unknown [192.0.2.1])\r\n\tby mx2.example.com (understudy) with ESMTP id 0K3" + tail,
		},
		{
			"hostile HELO", env(func(e *Envelope) { e.Client.HELO = "a) b\r\nX: (y <z>" }),
			"Received: from a??b??X:??y??z? (unknown [192.0.2.1])\r\n\tby mx2.example.com (understudy) with ESMTP id 0K3\r\n\tfor <u@example.com>" + tail,
		},
		{
			"no HELO, mapped address", env(func(e *Envelope) {
				e.Client.HELO = ""
				e.Client.Addr = netip.MustParseAddrPort("[::ffff:192.0.2.1]:25")
			}),
			"Received: from unknown (unknown [192.0.2.1])\r\n\tby mx2.example.com (understudy) with ESMTP id 0K3\r\n\tfor <u@example.com>" + tail,
		},
		{
			"address literal", env(func(e *Envelope) { e.Client.HELO = "[192.0.2.1]" }),
			"Received: from [192.0.2.1] (unknown [192.0.2.1])\r\n\tby mx2.example.com (understudy) with ESMTP id 0K3\r\n\tfor <u@example.com>" + tail,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := received("mx2.example.com", tc.env.Client, tc.env)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			for line := range strings.SplitSeq(got, "\r\n") {
				if len(line) > 998 {
					t.Errorf("line of %d bytes", len(line))
				}
			}
			scan := newTraceScan(traceMark("MX2.example.com"))
			scan.scan([]byte(got + "\r\n"))
			if scan.hops != 1 || scan.own != 1 {
				t.Errorf("own line is not recognised: %d hops, %d own", scan.hops, scan.own)
			}
		})
	}
	long := Client{HELO: strings.Repeat("a", 5000)}
	if got := received("h", long, env(nil)); len(got) > 998 {
		t.Errorf("long HELO makes %d bytes", len(got))
	}
}

func TestTraceScan(t *testing.T) {
	t.Parallel()
	own := "Received: from x\r\n\tby mx2.example.com (understudy) with SMTP id 1;\r\n\tdate\r\n"
	other := "Received: from x by mx1.example.com (Postfix) with SMTP id 1; date\r\n"
	for _, tc := range []struct {
		name, msg string
		hops, own int
	}{
		{"empty", "", 0, 0},
		{"none", "Subject: x\r\n\r\nReceived: y\r\n", 0, 0},
		{"mixed", other + own + "X: y\r\n" + other + "\r\n" + own, 3, 1},
		{"case and space", "RECEIVED : a\r\nreceived:\r\n b\r\nReceivedX: c\r\nX-Received: d\r\n\r\n", 2, 0},
		{"same host, other program", strings.ReplaceAll(own, "understudy", "Postfix") + "\r\n", 1, 0},
		{"another host with the same ending", strings.ReplaceAll(own, "by mx2", "by amx2") + "\r\n", 1, 0},
		{"no body, no final newline", other + strings.TrimSuffix(own, "\r\n"), 2, 1},
		{"folded at the start", " continuation\r\n" + own + "\r\n", 1, 1},
		{"very long", "Received: " + strings.Repeat("x", 1<<20) + "\r\n" + own + "\r\n", 2, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, step := range []int{1, 2, 7, 1 << 30} {
				s := newTraceScan(traceMark("mx2.example.com"))
				for msg := []byte(tc.msg); len(msg) > 0; {
					n := min(step, len(msg))
					s.scan(msg[:n])
					msg = msg[n:]
				}
				s.end()
				if s.hops != tc.hops || s.own != tc.own {
					t.Errorf("step %d: %d hops, %d own, want %d, %d", step, s.hops, s.own, tc.hops, tc.own)
				}
			}
		})
	}
}

func TestLoops(t *testing.T) {
	t.Parallel()
	line := "Received: from a by b; c\r\n"
	body := "\r\nbody\r\n"
	own := "Received: from a by mx2.example.com (understudy) id 1; c\r\n"
	for _, tc := range []struct {
		name, addr, header, rest, want string
	}{
		{"50 hops", "192.0.2.1", strings.Repeat(line, 50), body, "250 2.0.0 queued as Q1"},
		{"51 hops", "192.0.2.1", strings.Repeat(line, 51), body, "554 5.4.6 <user@example.com>: Too many hops"},
		{"51 hops and no body", "192.0.2.1", strings.Repeat(line, 50), strings.TrimSuffix(line, "\r\n"), "554 5.4.6 <user@example.com>: Too many hops"},
		{"51 hops from the peer", "192.0.2.250", strings.Repeat(line, 51), body, "451 4.4.6 <user@example.com>: Too many hops"},
		{"passed once", "192.0.2.1", own, body, "250 2.0.0 queued as Q1"},
		{"passed twice", "192.0.2.1", own + line + own, body, "554 5.4.6 <user@example.com>: Message loops: it has passed this host before"},
		{"passed twice, from the peer", "192.0.2.250", own + own, body, "451 4.4.6 <user@example.com>: Message loops: it has passed this host before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			got := send(t, w.session(tc.addr), "", []string{"user@example.com"}, tc.header+tc.rest)
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if w.queue.openDrafts() != 0 {
				t.Error("a draft is left")
			}
		})
	}
}

// judge is a Filter that returns a fixed verdict.
type judge struct {
	v    Verdict
	err  error
	seen *string
}

func (j judge) Check(_ context.Context, env *Envelope, body io.ReadSeeker) (Verdict, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return Verdict{}, err
	}
	if j.seen != nil {
		*j.seen += env.ID + " " + env.Client.HELO + " " + string(b) + "\n"
	}
	return j.v, j.err
}

func TestFilter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		filter Filter
		want   string
		header string // of the stored message, behind Received
		action Action
	}{
		{"accept", judge{v: Verdict{Header: "X-Spam: no\r\n"}}, "250 2.0.0 queued as Q1", "X-Spam: no\r\n", Accept},
		{"quarantine", judge{v: Verdict{Action: Quarantine}}, "250 2.0.0 queued as Q1", "", Quarantine},
		{"reject", judge{v: Verdict{Action: Reject}}, "554 5.7.1 <user@example.com>: Message rejected by content filter", "", 0},
		{"reject in its own words", judge{v: Verdict{Action: Reject, Code: 550, Enhanced: "5.7.13", Text: "no\r\nthanks"}}, "550 5.7.13 <user@example.com>: no??thanks", "", 0},
		{"reject with a 4xx code", judge{v: Verdict{Action: Reject, Code: 451, Enhanced: "4.7.1"}}, "554 5.7.1 <user@example.com>: Message rejected by content filter", "", 0},
		{"defer", judge{v: Verdict{Action: Defer}}, "451 4.7.1 <user@example.com>: Message deferred by content filter, please try later", "", 0},
		{"defer with a 5xx code", judge{v: Verdict{Action: Defer, Code: 550, Text: "x"}}, "451 4.7.1 <user@example.com>: x", "", 0},
		{"error", judge{err: errors.New("secret")}, "451 4.7.1 <user@example.com>: The content of the message cannot be checked now, please try later", "", 0},
		{"hostile header", judge{v: Verdict{Header: " x\r\n\r\nA: b\n\tc\r\nno colon\r\n d\r\nE: f"}}, "250 2.0.0 queued as Q1", "A: b\r\n\tc\r\nE: f\r\n", Accept},
		{"chain: the sternest wins", Chain{judge{v: Verdict{Header: "A: 1\r\n"}}, judge{v: Verdict{Action: Quarantine, Header: "B: 2\r\n"}}, judge{v: Verdict{Header: "C: 3\r\n"}}}, "250 2.0.0 queued as Q1", "A: 1\r\nB: 2\r\nC: 3\r\n", Quarantine},
		{"chain: defer, then reject", Chain{judge{v: Verdict{Action: Defer, Text: "d"}}, judge{v: Verdict{Action: Reject, Text: "r"}}}, "554 5.7.1 <user@example.com>: r", "", 0},
		{"chain: defer keeps its words", Chain{judge{v: Verdict{Action: Defer, Text: "d"}}, judge{}}, "451 4.7.1 <user@example.com>: d", "", 0},
		{"chain: error", Chain{judge{}, judge{err: errors.New("secret")}}, "451 4.7.1 <user@example.com>: The content of the message cannot be checked now, please try later", "", 0},
		{"empty chain", Chain{}, "250 2.0.0 queued as Q1", "", Accept},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(_ *Config, d *Deps) { d.Filter = tc.filter })
			if got := send(t, w.session("192.0.2.1"), "", []string{"user@example.com"}, "Subject: x\r\n\r\nbody\r\n"); got != tc.want {
				t.Fatalf("got %q, want %q", got, tc.want)
			}
			if w.queue.openDrafts() != 0 {
				t.Error("a draft is left")
			}
			if !strings.HasPrefix(tc.want, "250") {
				if len(w.queue.messages()) != 0 {
					t.Error("refused and stored")
				}
				return
			}
			m := w.queue.messages()[0]
			if _, rest, _ := strings.Cut(m.data, "+0000\r\n"); rest != tc.header+"Subject: x\r\n\r\nbody\r\n" {
				t.Errorf("stored %q", m.data)
			}
			if m.env.Verdict == nil || m.env.Verdict.Action != tc.action {
				t.Errorf("verdict %+v", m.env.Verdict)
			}
		})
	}
}

func TestFilterSeesTheMessage(t *testing.T) {
	t.Parallel()
	var seen string
	j := judge{seen: &seen}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Filter = Chain{j, j} })
	send(t, w.session("192.0.2.1"), "", []string{"user@example.com"}, "A: b\r\n")
	if want := strings.Repeat("Q1 client.example.net A: b\r\n\n", 2); seen != want {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

func TestDescribeTLS(t *testing.T) {
	t.Parallel()
	if got := describeTLS(nil); got != "" {
		t.Errorf("got %q", got)
	}
	got := describeTLS(&tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256})
	if got != "TLS1.3 TLS_AES_128_GCM_SHA256" {
		t.Errorf("got %q", got)
	}
}

// A front server that uses XFORWARD is in the trace; the origin is in the envelope.
func TestForwarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := w.session("192.0.2.1")
	c, ok := s.conn.(*fakeConn)
	if !ok {
		t.Fatal("not a fake")
	}
	c.forwarded = wire.Forwarded{Addr: netip.MustParseAddrPort("203.0.113.5:9"), HELO: "origin.example", Name: "o.example", Protocol: "ESMTP"}
	send(t, s, "", []string{"user@example.com"}, "A: b\r\n")
	m := w.queue.messages()[0]
	if got := m.env.Client; got.Addr.String() != "203.0.113.5:9" || got.HELO != "origin.example" || got.ReverseName != "o.example" {
		t.Errorf("client: %+v", got)
	}
	if !strings.HasPrefix(m.data, "Received: from client.example.net (unknown [192.0.2.1])") {
		t.Errorf("trace: %q", m.data)
	}
}

// discardQueue is a Queue without a cost of its own.
type discardQueue struct{}

type discardDraft struct{}

func (discardQueue) Room(int64) error                             { return nil }
func (discardQueue) Create(context.Context, int64) (Draft, error) { return discardDraft{}, nil }
func (discardDraft) Write(p []byte) (int, error)                  { return len(p), nil }
func (discardDraft) ID() string                                   { return "Q" }
func (discardDraft) Open() (io.ReadSeeker, error)                 { return strings.NewReader(""), nil }
func (discardDraft) Discard()                                     {}

func (discardDraft) Commit(_ context.Context, env *Envelope, _ []byte) error {
	env.ID = "Q"
	return nil
}

// BenchmarkMessage is the front's own share of one message of 4 KiB.
func BenchmarkMessage(b *testing.B) {
	domains, err := NewDomains([]string{"example.com"})
	if err != nil {
		b.Fatal(err)
	}
	f, err := NewFront(DefaultConfig(), Deps{
		Hostname: "mx2.example.com", Domains: domains, Recipients: listed{"user@example.com": Exists}, Queue: discardQueue{}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	s, err := f.connect(b.Context(), &fakeConn{id: "x", addr: netip.MustParseAddrPort("127.0.0.1:1"), helo: "client"})
	if err != nil {
		b.Fatal(err)
	}
	body := strings.Repeat("X-Header: some text that is of no interest\r\n", 10) + "\r\n" + strings.Repeat("body text of one line\r\n", 160)
	r := strings.NewReader("")
	b.ReportAllocs()
	for b.Loop() {
		if err := errors.Join(s.Mail("a@b.example", nil), s.Rcpt("user@example.com", nil)); err != nil {
			b.Fatal(err)
		}
		r.Reset(body)
		if got := s.Data(r); reply(got)[:3] != "250" {
			b.Fatal(got)
		}
	}
}
