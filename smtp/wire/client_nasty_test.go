package wire

import (
	"errors"
	"strings"
	"testing"
)

// nasty is a script for a server that misbehaves, and what the recipients of two
// messages sent one behind the other get to hear.
type nasty struct {
	name      string
	ext       []string
	script    func(p *clientPeer)
	first     string // body of the first message
	one, two  string
	err       error
	stillGood bool
}

var (
	nastyChunked = []string{"PIPELINING", "CHUNKING"}
	nastyPlain   = []string{"PIPELINING"}
	nastyBig     = strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", 20_000)
)

// nastyBoth reads what is sent ahead of any answer with CHUNKING.
func nastyBoth(p *clientPeer) {
	p.hear("MAIL")
	p.hear("RCPT TO:<a@x>")
	p.hear("RCPT TO:<b@x>")
	p.chunk()
	p.hear("RSET")
	p.hear("MAIL")
	p.hear("RCPT TO:<c@x>")
	p.chunk()
}

// nastyHead is the same with DATA.
func nastyHead(p *clientPeer) {
	p.hear("MAIL")
	p.hear("RCPT TO:<a@x>")
	p.hear("RCPT TO:<b@x>")
	p.hear("DATA")
}

func nastyWithChunks() []nasty {
	return []nasty{
		{"421 instead of MAIL's answer", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("421 4.3.2 bye")
		}, "x\r\n", "421@MAIL 421@MAIL", "-@MAIL(behind)", ErrClosing, false},
		{"421 at the second RCPT", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok", "421 4.3.2 bye")
		}, "x\r\n", "421@RCPT 421@RCPT", "-@MAIL(behind)", ErrClosing, false},
		{"421 at the end", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok", "550 no", "421 4.3.2 bye")
		}, "x\r\n", "421 550@RCPT", "-@MAIL(behind)", ErrClosing, false},
		{"421 between messages", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok", "250 ok", "250 done", "421 enough")
		}, "x\r\n", "250 250", "421@MAIL", ErrClosing, false},
		{"closes in mid-pipeline", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok")
		}, "x\r\n", "-@RCPT -@RCPT", "-@MAIL(behind)", nil, false},
		{"closes after the first answer", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok", "250 ok", "250 done")
		}, "x\r\n", "250 250", "-@MAIL", nil, false},
		{"nobody accepted, then a good one", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "550 5.1.1 no", "450 4.2.1 later", "554 5.5.1 no valid recipients", "250 reset", "250 ok", "250 ok", "250 done")
			p.drain()
		}, "x\r\n", "550@RCPT 450@RCPT", "250", nil, true},
		{"MAIL refused", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("550 5.7.1 no", "503 what", "503 what", "503 what", "250 reset", "250 ok", "250 ok", "250 done")
			p.drain()
		}, "x\r\n", "550@MAIL 550@MAIL", "250", nil, true},
		{"a chunk before the last is refused", nastyChunked, func(p *clientPeer) {
			p.hear("MAIL")
			p.hear("RCPT")
			p.hear("RCPT")
			p.chunk()
			p.say("250 ok", "250 ok", "250 ok", "452 4.3.1 full")
			for {
				if line := p.hear(""); line == "RSET" {
					break
				} else {
					p.content(line) // more chunks may be on their way
					p.say("503 skipped")
				}
			}
			p.say("250 reset")
			p.drain()
		}, nastyBig, "452@DATA 452@DATA", "-@connect", nil, false},
		{"RSET refused", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok", "250 ok", "250 done", "500 what?")
			p.drain()
		}, "x\r\n", "250 250", "-@MAIL", ErrReply, false},
		{"an answer too many", nastyChunked, func(p *clientPeer) {
			p.say("250 surprise")
			p.drain()
		}, "x\r\n", "", "", ErrReply, false},
		{"no SMTP any more", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "<html>")
			p.drain()
		}, "x\r\n", "-@MAIL -@MAIL", "-@MAIL(behind)", ErrReply, false},
	}
}

func nastyOthers() []nasty {
	return []nasty{
		{"354 in answer to BDAT", nastyChunked, func(p *clientPeer) {
			nastyBoth(p)
			p.say("250 ok", "250 ok", "250 ok", "354 go on")
			p.drain()
		}, "x\r\n", "-@RCPT -@RCPT", "-@MAIL(behind)", ErrReply, false},
		{"DATA accepted for nobody", nastyPlain, func(p *clientPeer) {
			nastyHead(p)
			p.say("250 ok", "550 no", "550 no", "354 go")
			if b := p.body(); b != "" {
				p.t.Errorf("content for nobody: %q", b)
			}
			p.say("554 no valid recipients")
			p.hear("RSET")
			p.hear("MAIL")
			p.hear("RCPT")
			p.hear("DATA")
			p.say("250 reset", "250 ok", "250 ok", "354 go")
			p.body()
			p.say("250 done")
			p.drain()
		}, "x\r\n", "550@RCPT 550@RCPT", "250", nil, true},
		{"DATA refused", nastyPlain, func(p *clientPeer) {
			nastyHead(p)
			p.say("250 ok", "250 ok", "550 no", "451 4.3.0 not now")
			p.hear("RSET")
			p.hear("MAIL")
			p.hear("RCPT")
			p.hear("DATA")
			p.say("250 reset", "250 ok", "250 ok", "354 go")
			p.body()
			p.say("250 done")
			p.drain()
		}, "x\r\n", "451@DATA 550@RCPT", "250", nil, true},
		{"250 in answer to DATA", nastyPlain, func(p *clientPeer) {
			nastyHead(p)
			p.say("250 ok", "250 ok", "250 ok", "250 thanks")
			p.drain()
		}, "x\r\n", "-@DATA -@DATA", "-@connect", ErrReply, false},
		{"552 before the end of data", nastyPlain, func(p *clientPeer) {
			nastyHead(p)
			p.say("250 ok", "250 ok", "250 ok", "354 go")
			p.hear("0123")
			p.say("552 5.3.4 too big")
			p.drain()
		}, nastyBig, "552 552", "-@connect", ErrReply, false},
		{"250 before the end of data", nastyPlain, func(p *clientPeer) {
			nastyHead(p)
			p.say("250 ok", "250 ok", "250 ok", "354 go")
			p.hear("0123")
			p.say("250 2.0.0 that will do")
			p.drain()
		}, nastyBig, "-@DATA -@DATA", "-@connect", ErrReply, false},
		{"421 in the middle of the data", nastyPlain, func(p *clientPeer) {
			nastyHead(p)
			p.say("250 ok", "250 ok", "250 ok", "354 go")
			p.hear("0123")
			p.say("421 4.3.2 shutting down")
		}, nastyBig, "421 421", "-@connect", ErrClosing, false},
		{"one step at a time", nil, func(p *clientPeer) {
			for _, s := range [][2]string{
				{"MAIL", "250 ok"},
				{"RCPT TO:<a@x>", "250 ok"},
				{"RCPT TO:<b@x>", "550 no"},
				{"DATA", "354 go"},
			} {
				p.hear(s[0])
				p.say(s[1])
			}
			p.body()
			p.say("250 done")
			p.hear("MAIL")
			p.say("550 no")
			p.drain()
		}, "x\r\n", "250 550@RCPT", "550@MAIL", nil, true},
	}
}

func TestNastyServers(t *testing.T) {
	t.Parallel()
	for _, tt := range append(nastyWithChunks(), nastyOthers()...) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, p := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
				p.greet(tt.ext...)
				tt.script(p)
			})
			if tt.one == "" {
				<-c.Done()
			} else {
				one, two := make(chan []Answer, 1), make(chan []Answer, 1)
				_ = c.Send(t.Context(), text(tt.first, "a@x", "b@x"), func(a []Answer) { one <- a })
				_ = c.Send(t.Context(), text("y\r\n", "c@x"), func(a []Answer) { two <- a })
				a, b := receive(t, one), receive(t, two)
				if codes(a) != tt.one || codes(b) != tt.two {
					t.Errorf("got %q and %q, want %q and %q (%v, %v)", codes(a), codes(b), tt.one, tt.two, a[0].Err, b[0].Err)
				}
				for _, x := range append(a, b...) {
					if x.Code == 0 && x.Err == nil {
						t.Error("an answer with neither code nor error")
					}
				}
			}
			err := c.Err()
			if tt.stillGood && err != nil {
				t.Errorf("connection lost: %v; server saw %q", err, p.got)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

func TestNastyGreetings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		cfg    ClientConfig
		script func(p *clientPeer)
		check  func(err error) bool
	}{
		{"554 banner", ClientConfig{}, func(p *clientPeer) { p.say("554 5.3.2 go away") }, func(err error) bool {
			var r *ReplyError
			return errors.As(err, &r) && r.Reply.Code == 554 && r.Command == "banner"
		}},
		{"closes at once", ClientConfig{}, func(*clientPeer) {}, func(err error) bool { return err != nil }},
		{"speaks HTTP", ClientConfig{}, func(p *clientPeer) { p.say("HTTP/1.1 400 Bad Request") }, func(err error) bool { return errors.Is(err, ErrReply) }},
		{"EHLO refused for good", ClientConfig{}, func(p *clientPeer) {
			p.say("220 hi")
			p.hear("EHLO")
			p.say("550 5.7.1 bad name")
		}, func(err error) bool {
			var r *ReplyError
			return errors.As(err, &r) && r.Reply.Code == 550 && r.Command == "EHLO"
		}},
		{"only HELO", ClientConfig{}, func(p *clientPeer) {
			p.say("220 hi")
			p.hear("EHLO")
			p.say("502 what?")
			p.hear("HELO")
			p.say("250 hello")
		}, func(err error) bool { return err == nil }},
		{"TLS required, not offered", ClientConfig{RequireTLS: true}, func(p *clientPeer) { p.greet("PIPELINING") }, func(err error) bool { return errors.Is(err, ErrNoTLS) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := withPeer(t, tt.cfg, tt.script); !tt.check(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An answer to the last chunk that comes before the chunk has been sent is not one
// to the whole message: server and client are out of step.
func TestAcceptanceBeforeTheLastChunkIsSent(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"one chunk": nastyBig[:100_000], "several": nastyBig} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := mustPeer(t, ClientConfig{}, func(p *clientPeer) {
				p.greet(nastyChunked...)
				p.hear("MAIL")
				p.hear("RCPT")
				p.say("250 ok", "250 ok")
				for {
					command := p.hear("BDAT ")
					if strings.HasSuffix(command, "LAST") {
						break
					}
					p.content(command)
					p.say("250 ok")
				}
				p.say("250 queued")
				p.drain()
			})
			if a := sendOne(t, c, text(body, "a@x")); a[0].Positive() || !errors.Is(a[0].Err, ErrReply) {
				t.Errorf("got %s %v; the server has seen %d lines", codes(a), a[0].Err, len(p.got))
			}
		})
	}
}
