package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var everything = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE 1000000", "DSN", "ENHANCEDSTATUSCODES"}

// C1 of the findings: no pipelining, and a stuck peer hangs the delivery.
func TestC1WindowedBDAT(t *testing.T) {
	t.Parallel()
	const n = 5
	c, _ := mustPeer(t, ClientConfig{Window: n}, func(p *clientPeer) {
		p.greet(everything...)
		for i := range n { // nothing is answered until all five have come
			if i > 0 {
				p.hear("RSET")
			}
			p.hear("MAIL FROM:<s@src.test> SIZE=")
			p.hear("RCPT TO:<a@x.test>")
			if got, want := p.chunk(), fmt.Sprintf("message %d", i); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		for i := range n {
			if i > 0 {
				p.say("250 2.0.0 reset")
			}
			p.say("250 2.1.0 ok", "250 2.1.5 ok", fmt.Sprintf("250 2.0.0 queued %d", i))
		}
		p.drain()
	})
	got := make(chan string, n)
	for i := range n {
		err := c.Send(t.Context(), text(fmt.Sprintf("message %d", i), "a@x.test"), func(a []Answer) { got <- a[0].String() })
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if s := receive(t, got); s != fmt.Sprintf("250 2.0.0 queued %d", i) {
			t.Errorf("answer %d: %s", i, s)
		}
	}
}

func TestC1PipelinedDATA(t *testing.T) {
	t.Parallel()
	c, p := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
		p.greet("PIPELINING")
		p.hear("MAIL")
		p.hear("RCPT")
		p.hear("RCPT")
		p.hear("DATA")
		p.say("250 ok", "250 ok", "550 5.1.1 no", "354 go")
		p.body()
		p.hear("RSET") // the next message comes with the end of this one
		p.hear("MAIL")
		p.hear("RCPT")
		p.hear("DATA")
		p.say("250 2.0.0 one", "250 reset", "250 ok", "250 ok", "354 go")
		p.body()
		p.say("250 2.0.0 two")
		p.drain()
	})
	got := make(chan string, 2)
	for _, m := range []*Outgoing{text("one\r\n", "a@x", "b@x"), text(".two", "a@x")} {
		if err := c.Send(t.Context(), m, func(a []Answer) { got <- codes(a) }); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := receive(t, got), receive(t, got); a != "250 550@RCPT" || b != "250" {
		t.Errorf("got %q and %q", a, b)
	}
	c.Abort()
	if !strings.Contains(strings.Join(p.got, "|"), "..two\r\n") {
		t.Errorf("dot not doubled: %q", p.got)
	}
}

func TestC1StuckPeerHasADeadline(t *testing.T) {
	t.Parallel()
	for _, ext := range [][]string{{"PIPELINING"}, {"PIPELINING", "CHUNKING"}} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := mustPeer(t, ClientConfig{ProgressTimeout: time.Minute, CommandTimeout: time.Hour}, func(p *clientPeer) {
				p.greet(ext...)
				p.hear("MAIL")
				p.hear("RCPT")
				p.hear("")
				p.say("250 ok", "250 ok")
				if len(ext) == 1 {
					p.say("354 go")
				}
				// and reads nothing more
				<-t.Context().Done()
			})
			start := time.Now()
			a := sendOne(t, c, text(strings.Repeat("x\r\n", 100_000), "a@x"))
			if a[0].Err == nil || a[0].Code != 0 {
				t.Errorf("got %s, %v", codes(a), a[0].Err)
			}
			if d := time.Since(start); d > 61*time.Second {
				t.Errorf("hung for %v", d)
			}
		})
	}
}

// A silent server is given the time the RFC wants, and not more; a slow but
// live reader is given as long as it takes.
func TestClientDeadlineFollowsProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := mustPeer(t, ClientConfig{ProgressTimeout: time.Minute, CommandTimeout: time.Minute, FinalTimeout: time.Minute}, func(p *clientPeer) {
			p.greet("PIPELINING")
			p.hear("MAIL")
			p.hear("RCPT")
			p.hear("DATA")
			p.say("250 ok", "250 ok", "354 go")
			buf := make([]byte, 30<<10)
			for total := 0; total < 400_000; { // 50 s for each 30 KiB
				<-time.After(50 * time.Second)
				n, err := io.ReadFull(p.br, buf)
				if err != nil {
					t.Errorf("peer: %v", err)
					return
				}
				total += n
			}
			p.body()
			p.say("250 2.0.0 ok")
			p.hear("RSET")
			p.drain() // silent
		})
		if a := sendOne(t, c, text(strings.Repeat("12345678\r\n", 50_000), "a@x")); codes(a) != "250" {
			t.Fatalf("slow reader: %s %v", codes(a), a[0].Err)
		}
		c.mu.Lock()
		c.last.good = false // make the next message begin with RSET
		c.mu.Unlock()
		start := time.Now()
		a := sendOne(t, c, text("x\r\n", "a@x"))
		if d := time.Since(start); a[0].Err == nil || d < time.Minute || d > 61*time.Second {
			t.Errorf("silent server: %s %v after %v", codes(a), a[0].Err, d)
		}
	})
}

func TestClientIdleConnectionEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := mustPeer(t, ClientConfig{IdleTimeout: time.Minute}, func(p *clientPeer) {
			p.greet()
			p.drain()
		})
		<-c.Done()
		if !errors.Is(c.Err(), ErrIdle) {
			t.Error(c.Err())
		}
	})
}

func TestClientLMTP(t *testing.T) {
	t.Parallel()
	for _, ext := range [][]string{{"PIPELINING"}, {"PIPELINING", "CHUNKING"}, nil} {
		c, p := mustPeer(t, ClientConfig{LMTP: true}, func(p *clientPeer) {
			p.say("220 lmtp")
			p.hear("LHLO ")
			p.ehlo(ext...)
			step := func(prefix, reply string) {
				p.hear(prefix)
				p.say(reply)
			}
			step("MAIL", "250 ok")
			step("RCPT TO:<a@x>", "250 ok")
			step("RCPT TO:<b@x>", "550 5.1.1 no")
			step("RCPT TO:<c@x>", "250 ok")
			if len(ext) == 2 {
				p.chunk()
			} else {
				step("DATA", "354 go")
				p.body()
			}
			p.say("250 2.0.0 a", "452 4.2.2 c is full")
			p.drain()
		})
		a := sendOne(t, c, text("x\r\n", "a@x", "b@x", "c@x"))
		if codes(a) != "250 550@RCPT 452" || a[2].Enhanced != "4.2.2" {
			t.Errorf("%v: %s; server saw %q", ext, codes(a), p.got)
		}
	}
}

func TestClientForwardsOrigin(t *testing.T) {
	t.Parallel()
	origin := func(ip, helo string) *Origin {
		return &Origin{Addr: netip.MustParseAddrPort(ip), HELO: helo, Name: "c+d.test", Protocol: "ESMTP", ID: "Q1"}
	}
	t.Run("xclient", func(t *testing.T) {
		t.Parallel()
		c, p := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
			ext := []string{"PIPELINING", "CHUNKING", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN", "XFORWARD NAME"}
			p.greet(ext...)
			for _, msgs := range []int{2, 1} {
				p.hear("XCLIENT")
				p.say("220 again")
				p.hear("EHLO")
				p.ehlo(ext...)
				for range msgs {
					if line := p.hear(""); line == "RSET" {
						p.say("250 ok")
						p.hear("MAIL")
					}
					p.hear("RCPT")
					p.chunk()
					p.say("250 ok", "250 ok", "250 ok")
				}
			}
			p.drain()
		})
		for _, o := range []*Origin{origin("192.0.2.1:25", "h"), origin("192.0.2.1:25", "h"), origin("[2001:db8::1]:7", "")} {
			m := text("x\r\n", "a@x")
			m.Origin = o
			if a := sendOne(t, c, m); codes(a) != "250" {
				t.Fatal(codes(a), a[0].Err)
			}
		}
		c.Abort()
		got := strings.Join(p.got, "|")
		for _, want := range []string{
			"XCLIENT NAME=c+2Bd.test ADDR=192.0.2.1 PORT=25 PROTO=ESMTP HELO=h LOGIN=[UNAVAILABLE]|",
			"XCLIENT NAME=c+2Bd.test ADDR=IPV6:2001:db8::1 PORT=7 PROTO=ESMTP HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]|",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
	})
	// A notification of our own comes from nobody. XCLIENT cannot be taken back:
	// only a new connection does not speak for the client before.
	t.Run("xclient, then a message of our own", func(t *testing.T) {
		t.Parallel()
		c, p := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
			ext := []string{"PIPELINING", "CHUNKING", "XCLIENT NAME ADDR"}
			p.greet(ext...)
			p.hear("XCLIENT")
			p.say("220 again")
			p.hear("EHLO")
			p.ehlo(ext...)
			p.hear("MAIL")
			p.hear("RCPT")
			p.chunk()
			p.say("250 ok", "250 ok", "250 ok")
			p.drain()
		})
		m := text("x\r\n", "a@x")
		m.Origin = origin("192.0.2.1:25", "h")
		if a := sendOne(t, c, m); codes(a) != "250" {
			t.Fatal(codes(a), a[0].Err)
		}
		if a := sendOne(t, c, text("y\r\n", "a@x")); codes(a) != "-@connect" || c.Err() == nil {
			t.Errorf("got %s, connection %v; server saw %q", codes(a), c.Err(), p.got)
		}
	})
	t.Run("xclient refused", func(t *testing.T) {
		t.Parallel()
		c, _ := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
			p.greet("PIPELINING", "CHUNKING", "XCLIENT ADDR")
			p.hear("XCLIENT ADDR=192.0.2.1")
			p.say("550 5.7.0 not you")
			p.hear("MAIL")
			p.hear("RCPT")
			p.chunk()
			p.say("250 ok", "250 ok", "250 ok")
			p.drain()
		})
		m := text("x\r\n", "a@x")
		m.Origin = origin("192.0.2.1:25", "h")
		if a := sendOne(t, c, m); codes(a) != "250" {
			t.Error(codes(a), a[0].Err)
		}
	})
	t.Run("xforward", func(t *testing.T) {
		t.Parallel()
		c, _ := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
			p.greet("PIPELINING", "CHUNKING", "XFORWARD NAME ADDR PROTO HELO SOURCE IDENT")
			p.hear("XFORWARD NAME=c+2Bd.test ADDR=192.0.2.1 PROTO=ESMTP HELO=h IDENT=Q1 SOURCE=REMOTE")
			p.hear("MAIL")
			p.hear("RCPT")
			p.chunk()
			p.say("550 no", "250 ok", "250 ok", "250 ok") // its refusal does not matter
			p.drain()
		})
		m := text("x\r\n", "a@x")
		m.Origin = origin("192.0.2.1:25", "h")
		if a := sendOne(t, c, m); codes(a) != "250" {
			t.Error(codes(a), a[0].Err)
		}
	})
}

func TestClientParameters(t *testing.T) {
	t.Parallel()
	m := text("x", "a@x")
	m.Body, m.UTF8, m.RequireTLS, m.Return, m.EnvelopeID = "8BITMIME", true, true, "HDRS", "id+2B"
	m.To[0].Notify, m.To[0].ORCPT = []string{"SUCCESS", "DELAY"}, "rfc822;o@x"
	all := parseExtensions("h\n8bitmime\nSMTPUTF8\nSIZE 100\nDSN\nREQUIRETLS")
	tests := []struct {
		ext        Extensions
		mail, rcpt string
	}{
		{all, "MAIL FROM:<s@src.test> SIZE=1 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=id+2B\r\n", "RCPT TO:<a@x> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o@x\r\n"},
		{Extensions{"DSN": ""}, "MAIL FROM:<s@src.test> SMTPUTF8 REQUIRETLS RET=HDRS ENVID=id+2B\r\n", "RCPT TO:<a@x> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o@x\r\n"},
		{Extensions{"SIZE": ""}, "MAIL FROM:<s@src.test> SIZE=1 SMTPUTF8 REQUIRETLS\r\n", "RCPT TO:<a@x>\r\n"},
	}
	for _, tt := range tests {
		if got := string(mailLine(m, tt.ext)); got != tt.mail {
			t.Errorf("%v: %q, want %q", tt.ext, got, tt.mail)
		}
		if got := rcptLine(m.To[0], tt.ext); got != tt.rcpt {
			t.Errorf("%v: %q, want %q", tt.ext, got, tt.rcpt)
		}
	}
}

func TestClientLacking(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		edit   func(m *Outgoing)
		ext    Extensions
		secure bool
		want   string
	}{
		{"nothing needed", func(*Outgoing) {}, Extensions{}, false, ""},
		{"utf8", func(m *Outgoing) { m.UTF8 = true }, Extensions{}, true, "5.6.7"},
		{"utf8 offered", func(m *Outgoing) { m.UTF8 = true }, Extensions{"SMTPUTF8": ""}, true, ""},
		{"requiretls", func(m *Outgoing) { m.RequireTLS = true }, Extensions{}, true, "5.7.30"},
		{"requiretls in clear", func(m *Outgoing) { m.RequireTLS = true }, Extensions{"REQUIRETLS": ""}, false, "5.7.30"},
		{"requiretls offered", func(m *Outgoing) { m.RequireTLS = true }, Extensions{"REQUIRETLS": ""}, true, ""},
		{"binary", func(m *Outgoing) { m.Body = "BINARYMIME" }, Extensions{"CHUNKING": ""}, true, "5.6.1"},
		{"size", func(m *Outgoing) { m.SizeBytes = 11 }, Extensions{"SIZE": "10"}, true, "5.3.4"},
		{"size exactly", func(m *Outgoing) { m.SizeBytes = 10 }, Extensions{"SIZE": "10"}, true, ""},
		{"size unlimited", func(m *Outgoing) { m.SizeBytes = 11 }, Extensions{"SIZE": "0"}, true, ""},
	}
	for _, tt := range tests {
		m := text("x", "a@x")
		tt.edit(m)
		if rep, _ := lacking(m, tt.ext, tt.secure); rep.Enhanced != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, rep.Enhanced, tt.want)
		}
	}
}

// A label is not a need: 8BITMIME matters only where a byte has its high bit set.
func TestClientWithout8BITMIME(t *testing.T) {
	t.Parallel()
	c, _ := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
		p.greet("PIPELINING", "CHUNKING")
		if line := p.hear("MAIL"); strings.Contains(line, "BODY") {
			t.Errorf("BODY though not offered: %q", line)
		}
		p.hear("RCPT")
		p.chunk()
		p.say("250 ok", "250 ok", "250 ok")
		p.drain()
	})
	m := text("gr\xfc\xdfe\r\n", "a@x", "b@x")
	m.Body = "8BITMIME"
	a := sendOne(t, c, m)
	if codes(a) != "554@connect 554@connect" || a[0].Enhanced != "5.6.1" || !errors.Is(a[0].Err, ErrLacks) {
		t.Errorf("8-bit: %s %v", codes(a), a[0].Err)
	}
	m = text("plain\r\n", "a@x")
	m.Body = "8BITMIME"
	if a := sendOne(t, c, m); codes(a) != "250" {
		t.Errorf("7-bit: %s %v", codes(a), a[0].Err)
	}
}

func TestClientClose(t *testing.T) {
	t.Parallel()
	c, p := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
		p.greet("PIPELINING", "CHUNKING")
		p.hear("MAIL")
		p.hear("RCPT")
		p.chunk()
		p.say("250 ok", "250 ok", "250 ok")
		p.hear("QUIT")
		p.say("221 bye")
	})
	got := make(chan string, 1)
	if err := c.Send(t.Context(), text("x\r\n", "a@x"), func(a []Answer) { got <- codes(a) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s := receive(t, got); s != "250" {
		t.Errorf("%s; server saw %q", s, p.got)
	}
	if err := c.Send(t.Context(), text("x", "a@x"), func(a []Answer) { got <- codes(a) }); err == nil {
		t.Error("a closed client sends")
	}
	if s := receive(t, got); s != "-@connect" {
		t.Error(s)
	}
}

func TestClientContext(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close() //nolint:errcheck // a test
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := NewClient(ctx, near, ClientConfig{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("greeting: %v", err)
	}

	c, _ := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
		p.greet("PIPELINING", "CHUNKING")
		<-t.Context().Done()
	})
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got := make(chan []Answer, 1)
	if err := c.Send(ctx, text("x", "a@x"), func(a []Answer) { got <- a }); err == nil {
		t.Error("no error from a cancelled Send")
	}
	if a := receive(t, got); !errors.Is(a[0].Err, context.DeadlineExceeded) {
		t.Errorf("got %v", a[0].Err)
	}
}
