package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// The tests of this file are named after measured defects of an SMTP library that
// faced the network; each one holds the opposite.

func TestFinding01TruncatedBDATIsNotAccepted(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, cmd := range []string{"BDAT 1000 LAST\r\n", "BDAT 1000\r\n", "BDAT 4 LAST\r\n"} {
			b := &sink{}
			_, addr := serve(t, b, nil)
			c := dial(t, addr)
			c.expect("220 ")
			c.hello()
			if secure {
				c.startTLS()
				c.hello()
			}
			c.envelope()
			c.send(cmd + "a\r\n"[:3])
			c.half() // FIN, or close_notify
			c.closed()
			wait(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.ended == 1 })
			b.bodies(t)
			if len(b.broken) != 1 || !errors.Is(b.broken[0], io.ErrUnexpectedEOF) {
				t.Errorf("TLS %v, %q: the session saw %v", secure, cmd, b.broken)
			}
		}
	}
}

func TestFinding02SlowDataIsTakenAndATimeoutNeverRunsBodyLines(t *testing.T) {
	t.Parallel()
	t.Run("slow but live", func(t *testing.T) {
		inBubble(t, func(t *testing.T, dial func() *talker, b *sink) {
			t.Helper()
			c := dial()
			c.ready()
			c.data("")
			for range 14 { // 4.2 s with a time-out of 2 s
				time.Sleep(300 * time.Millisecond) //nolint:forbidigo // a synctest bubble's clock
				c.send("one line of a slow sender\r\n")
			}
			c.send(".\r\n")
			c.expect("250 2.0.0")
			b.bodies(t, strings.Repeat("one line of a slow sender\r\n", 14))
		}, func(cfg *ServerConfig) { cfg.DataTimeout, cfg.MinDataRate = 2*time.Second, 50 })
	})
	t.Run("silent", func(t *testing.T) {
		inBubble(t, func(t *testing.T, dial func() *talker, b *sink) {
			t.Helper()
			c := dial()
			c.ready()
			start := time.Now()
			c.data("first line\r\n")
			c.expect("421 4.4.2")
			if d := time.Since(start); d != 2*time.Second {
				t.Errorf("cut after %v", d)
			}
			go func() { _, _ = io.WriteString(c.nc, "MAIL FROM:<evil@example.org>\r\n") }()
			c.closed()
			b.bodies(t)
			if len(b.broken) != 1 || !isTimeout(b.broken[0]) {
				t.Errorf("the session saw %v", b.broken)
			}
		}, func(cfg *ServerConfig) { cfg.DataTimeout = 2 * time.Second })
	})
}

func TestFinding03UnknownErrorIs451WithoutItsText(t *testing.T) {
	t.Parallel()
	boom := errors.New("write /var/lib/secret: no space left on device")
	b := &sink{
		data: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return errors.Join(err, boom) },
		rcpt: func(to string) error {
			if strings.HasPrefix(to, "odd") {
				return boom
			}
			return nil
		},
	}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.ready()
	for _, r := range []string{
		func() string { c.send("RCPT TO:<odd@example.com>\r\n"); return c.reply() }(),
		func() string { c.data("x\r\n.\r\n"); return c.reply() }(),
		func() string { c.envelope(); c.send("BDAT 3 LAST\r\nx\r\n"); return c.reply() }(),
	} {
		if r != "451 4.3.0 Temporary local error, try again later\r\n" {
			t.Errorf("got %q", r)
		}
	}
	b2 := &sink{connect: func(*Conn) error { return boom }}
	_, addr = serve(t, b2, nil)
	c = dial(t, addr)
	if r := c.expect("421 4.3.0"); strings.Contains(r, "secret") {
		t.Errorf("got %q", r)
	}
	c.closed()
}

// badEndings are contents with a bare CR, a bare LF or NUL.
var badEndings = map[string]string{
	"CR CRLF . CRLF":  "text\r\r\n.\r\n",
	"LF . LF":         "text\n.\nMAIL FROM:<evil@example.org>\r\n.\r\n",
	"LF . CRLF":       "text\n.\r\nMAIL FROM:<evil@example.org>\r\n.\r\n",
	"CRLF . LF":       "text\r\n.\nMAIL FROM:<evil@example.org>\r\n.\r\n",
	"CR . CR":         "text\r.\rMAIL FROM:<evil@example.org>\r\n.\r\n",
	"CRLF . CR":       "text\r\n.\rMAIL FROM:<evil@example.org>\r\n.\r\n",
	"CR . CRLF":       "text\r.\r\nRSET\r\n.\r\n",
	"CR LF . CR CRLF": "text\r\n.\r\r\nRSET\r\n.\r\n",
	"dots after CR":   "text\r\r\n..x\r\n.\r\n",
	". CR x":          ".\rx\r\n.\r\n",
	"NUL":             "te\x00xt\r\n.\r\n",
	"LF NUL":          "text\n\x00.\r\n.\r\n",
	"bare CR":         "te\rxt\r\n.\r\n",
	"bare LF first":   "\n.\r\nRSET\r\n.\r\n",
	"LF after a dot":  ".\n.\r\nRSET\r\n.\r\n",
	"NUL . CRLF":      "text\x00\r\n.\r\n",
}

func TestFinding04EndOfDataIsAlwaysSeen(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, func(cfg *ServerConfig) { cfg.MaxBadCommands = 100 })
	for name, body := range badEndings {
		c := dial(t, addr)
		c.ready()
		c.data(body)
		if r := c.reply(); !strings.HasPrefix(r, "550 5.6.11 ") {
			t.Errorf("%s: got %q", name, r)
		}
		c.envelope() // still in step
		c.data("fine\r\n.\r\n")
		c.expect("250 ")
	}
	for _, m := range b.all() {
		if string(m.body) != "fine\r\n" || m.from != "a@example.org" {
			t.Errorf("taken: %+v", m)
		}
	}
}

func TestFinding05BytesAreExactOrRefused(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	good := []string{
		"", "\r\n", "..\r\n", ".x\r\n..\r\n", "a\r\n\r\n.\r\n...\r\n", "8-bit \xff\xfe\x80\r\n", "tab\t\x01\x1f\r\n",
		strings.Repeat("x", 200_000) + "\r\n.y\r\n", strings.Repeat(".\r\n", 30_000),
	}
	for _, body := range good {
		c.envelope()
		c.data(stuff(body) + ".\r\n")
		c.expect("250 ")
		c.envelope()
		c.send("BDAT " + itoa(len(body)) + " LAST\r\n" + body)
		c.expect("250 ")
	}
	c.envelope()
	c.send("BDAT 8 LAST\r\nno final")
	c.expect("250 ")
	var want []string
	for _, s := range good {
		want = append(want, s, s)
	}
	b.bodies(t, append(want, "no final")...)

	for _, body := range []string{"a\rb\r\n", "a\nb\r\n", "a\x00b\r\n", "a\r", "\n", "\r", "a\r\r\n"} {
		c.envelope()
		c.send("BDAT " + itoa(len(body)) + " LAST\r\n" + body)
		c.expect("550 5.6.11 ")
		// The same, one byte a chunk.
		c.envelope()
		reply := ""
		for i := range len(body) {
			last := ""
			if i == len(body)-1 {
				last = " LAST"
			}
			c.send("BDAT 1" + last + "\r\n" + body[i:i+1])
			if reply = c.reply(); !strings.HasPrefix(reply, "250 ") {
				break
			}
		}
		if !strings.HasPrefix(reply, "550 5.6.11 ") {
			t.Errorf("%q in chunks: %q", body, reply)
		}
		c.send("RSET\r\n")
		c.expect("250 ")
	}
	c.envelope()
	c.send("BDAT 2\r\na\r") // the CR stays alone
	c.expect("250 ")
	c.send("BDAT 0 LAST\r\n")
	c.expect("550 5.6.11 ")
	b.bodies(t, append(want, "no final")...)
}

func TestFinding06CommandLinesEndInCRLF(t *testing.T) {
	t.Parallel()
	for _, cmd := range []string{"EHLO x\n", "NOOP\nMAIL FROM:<a@example.org>\r\n", "\n"} {
		_, addr := serve(t, &sink{}, nil)
		c := dial(t, addr)
		c.expect("220 ")
		c.send(cmd)
		c.expect("500 5.5.2 ")
		c.closed()
	}
	_, addr := serve(t, &sink{}, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.send("NOOP \rRSET\r\n") // a bare CR ends nothing
	c.expect("500 5.5.2 ")
	c.send("NOOP\r\n")
	c.expect("250 ")
}

func TestFinding07LongLines(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.ready()
	long := strings.Repeat("y", 3000) + "\r\n" + strings.Repeat("z", 1<<20) + "\r\n"
	c.data(long + ".\r\n")
	c.expect("250 ")
	b.bodies(t, long)
	c.send("NOOP " + strings.Repeat("x", 1<<20) + "\r\n")
	c.expect("500 5.5.2 Line too long")
	c.send("NOOP " + strings.Repeat("x", 4096-7) + "\r\n")
	c.expect("250 ")
	c.send("NOOP " + strings.Repeat("x", 4096-6) + "\r\n")
	c.expect("500 5.5.2 Line too long")
	c.send("NOOP\r\n")
	c.expect("250 ")
}

func TestFinding08ExactlyTheLimitIsTaken(t *testing.T) {
	t.Parallel()
	const limit = 1 << 16
	b := &sink{}
	_, addr := serve(t, b, func(c *ServerConfig) { c.MaxMessageBytes = limit })
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	exact := strings.Repeat("0123456789abcd\r\n", limit/16)
	c.envelope()
	c.data(exact + ".\r\n")
	c.expect("250 ")
	c.envelope()
	c.data("." + exact + ".\r\n") // a stuffed dot does not count
	c.expect("250 ")
	c.envelope()
	c.data("x" + exact + ".\r\n")
	c.expect("552 5.3.4 ")
	c.envelope()
	c.send("BDAT 65536 LAST\r\n" + exact)
	c.expect("250 ")
	c.envelope()
	c.send("BDAT 65537 LAST\r\nx" + exact)
	c.expect("552 5.3.4 ")
	c.envelope()
	c.send("BDAT 65536\r\n" + exact)
	c.expect("250 ")
	c.send("BDAT 1 LAST\r\nx")
	c.expect("552 5.3.4 ")
	c.send("MAIL FROM:<a@example.org> SIZE=65536\r\n")
	c.expect("250 ")
	c.send("RSET\r\n")
	c.expect("250 ")
	for _, size := range []string{"65537", "4294967296", "18446744073709551616", "99999999999999999999"} {
		c.send("MAIL FROM:<a@example.org> SIZE=" + size + "\r\n")
		c.expect("552 5.3.4 ")
	}
	b.bodies(t, exact, exact, exact)
}

func TestFinding09PostmasterNestedMailAddresses(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, func(c *ServerConfig) { c.MaxBadCommands = 100 })
	c := dial(t, addr)
	c.expect("220 ")
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("503 5.5.1 ")
	c.hello()
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("250 ")
	c.send("MAIL FROM:<b@example.org>\r\n")
	c.expect("503 5.5.1 ")
	for _, to := range []string{"postmaster", "POSTMaster"} {
		c.send("RCPT TO:<" + to + ">\r\n")
		c.expect("250 ")
	}
	for cmd, want := range map[string]string{
		"RCPT TO:<j\u00f6rg@example.com>":                   "553 5.6.7 ",
		"RCPT TO:<b@ex\u00e4mple.com>":                      "553 5.6.7 ",
		"RCPT TO:<a\x01b@example.com>":                      "500 5.5.2 ",
		"RCPT TO:<a\x7fb@example.com>":                      "500 5.5.2 ",
		"RCPT TO:<>":                                        "501 5.1.3 ",
		"RCPT TO:<b>":                                       "501 5.1.3 ",
		"RCPT TO:<b@>":                                      "501 5.1.3 ",
		"RCPT TO:b@example.com":                             "501 5.5.4 ",
		"RCPT TO:<b@example.com":                            "501 5.5.4 ",
		"RCPT TO:<b@example.com>x":                          "501 5.5.4 ",
		"RCPT TO:<b@-._-..com>":                             "501 5.1.3 ",
		"RCPT TO:<\"a b@example.com>":                       "501 5.5.4 ",
		"RCPT TO:<b@example.com> NOTIFY=NEVER,SUCCESS":      "501 5.5.4 ",
		"RCPT TO:<b@example.com> ORCPT=rfc822":              "501 5.5.4 ",
		"RCPT TO:<b@example.com> ORCPT=rfc822;a+b":          "501 5.5.4 ",
		"RCPT TO:<b@example.com> FOO=bar":                   "555 5.5.4 ",
		"RCPT TO:<b@example.com> NOTIFY=DELAY NOTIFY=NEVER": "501 5.5.4 ",
	} {
		c.send(cmd + "\r\n")
		if r := c.reply(); !strings.HasPrefix(r, want) {
			t.Errorf("%q: got %q, want %q", cmd, r, want)
		}
	}
	c.send("RCPT TO:<@relay.example,@two.example:\"a b\"@[192.0.2.1]> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb@example.com\r\n")
	c.expect("250 ")
	c.data("x\r\n.\r\n")
	c.expect("250 ")
	c.send("MAIL FROM:<j\u00f6rg@example.org>\r\n")
	c.expect("553 5.6.7 ")
	c.send("MAIL FROM:<j\u00f6rg@example.org> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=a+20b\r\n")
	c.expect("250 ")
	c.send("RCPT TO:<\u00fc@ex\u00e4mple.com> ORCPT=utf-8;\\x{FC}@ex\\x{E4}mple.com\r\n")
	c.expect("250 ")
	c.send("RCPT TO:<\xff@example.com>\r\n")
	c.expect("501 5.1.3 ")
	c.data("x\r\n.\r\n")
	c.expect("250 ")
	got := b.all()
	if to := got[0].to; len(to) != 3 || to[2] != `"a b"@[192.0.2.1]` {
		t.Errorf("recipients %q", to)
	}
	o := got[0].rcpts[2]
	if o.OriginalRecipient != "a+b@example.com" || o.OriginalRecipientType != gosmtp.DSNAddressTypeRFC822 || len(o.Notify) != 2 {
		t.Errorf("options %+v", o)
	}
	if m := got[1]; !m.mail.UTF8 || m.mail.EnvelopeID != "a b" || m.mail.Return != "HDRS" || m.proto != "UTF8SMTP" ||
		m.rcpts[0].OriginalRecipient != "\u00fc@ex\u00e4mple.com" {
		t.Errorf("message %+v", m)
	}
}

func TestFinding10Counters(t *testing.T) {
	t.Parallel()
	unknown := &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "unknown"}
	b := &sink{rcpt: func(string) error { return unknown }}
	_, addr := serve(t, b, func(c *ServerConfig) { c.MaxIdleCommands, c.MaxTransactions = 15, 3 })
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("250 ")
	for range 20 {
		c.send("RCPT TO:<b@example.com>\r\n")
		c.expect("550 5.1.1 ")
	}
	c.send("RCPT TO:<b@example.com>\r\n")
	c.expect("421 4.7.0 ")
	c.closed()

	c = dial(t, addr)
	c.expect("220 ")
	for range 10 {
		c.send("WHAT\r\n")
		c.expect("500 5.5.2 ")
	}
	c.send("WHAT\r\n")
	c.expect("421 4.7.0 ")
	c.closed()

	c = dial(t, addr)
	c.expect("220 ")
	c.hello()
	for range 14 {
		c.send("NOOP\r\n")
		c.expect("250 ")
	}
	c.send("NOOP\r\n")
	c.expect("421 4.7.0 ")
	c.closed()

	b.rcpt = nil
	_, addr = serve(t, &sink{}, func(c *ServerConfig) { c.MaxTransactions = 2 })
	c = dial(t, addr)
	c.ready()
	c.data(".\r\n")
	c.expect("250 ")
	c.envelope()
	c.data(".\r\n")
	c.expect("250 ")
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("421 4.7.0 ")
	c.closed()
}

func TestFinding11EarlyTalker(t *testing.T) {
	t.Parallel()
	t.Run("delay", func(t *testing.T) {
		b := &sink{}
		_, addr := serve(t, b, func(c *ServerConfig) { c.GreetDelay = 10 * time.Second })
		c := dial(t, addr)
		c.send("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
		c.expect("554 5.5.1 ")
		c.closed()
		b.bodies(t)
	})
	t.Run("no delay", func(t *testing.T) {
		sent := make(chan struct{})
		b := &sink{connect: func(*Conn) error { <-sent; return nil }}
		_, addr := serve(t, b, nil)
		c := dial(t, addr)
		c.send("EHLO x\r\n")
		close(sent)
		c.expect("554 5.5.1 ")
		c.closed()
	})
	t.Run("patient", func(t *testing.T) {
		inBubble(t, func(t *testing.T, dial func() *talker, _ *sink) {
			t.Helper()
			start := time.Now()
			dial().expect("220 ")
			if d := time.Since(start); d != 10*time.Second {
				t.Errorf("banner after %v", d)
			}
		}, func(c *ServerConfig) { c.GreetDelay = 10 * time.Second })
	})
}

// etrnSink adds ETRN.
type etrnSink struct{ sink }

type etrnSession struct{ Session }

func (e *etrnSink) Connect(ctx context.Context, c *Conn) (Session, error) {
	s, err := e.sink.Connect(ctx, c)
	return etrnSession{s}, err
}

func (etrnSession) ETRN(arg string) error {
	if arg != "example.com" {
		return &gosmtp.SMTPError{Code: 459, EnhancedCode: gosmtp.EnhancedCode{4, 7, 0}, Message: "not yours"}
	}
	return &gosmtp.SMTPError{Code: 253, EnhancedCode: gosmtp.EnhancedCode{2, 0, 0}, Message: "3 messages pending"}
}

func TestFinding12XClientAndETRN(t *testing.T) {
	t.Parallel()
	b := &etrnSink{}
	_, addr := serve(t, b, func(c *ServerConfig) { c.XClientFrom = []string{"127.0.0.0/8"} })
	c := dial(t, addr)
	c.expect("220 ")
	c.send("EHLO front.example\r\n")
	if r := c.expect("250-"); !strings.Contains(r, "XCLIENT NAME ADDR") || !strings.Contains(r, "ETRN") {
		t.Errorf("got %q", r)
	}
	c.send("ETRN example.com\r\n")
	c.expect("253 2.0.0 3 messages")
	c.send("ETRN other.example\r\n")
	c.expect("459 4.7.0 ")
	c.send("XCLIENT NAME=mail.example.org ADDR=IPV6:2001:db8::1 PORT=4711 PROTO=ESMTP HELO=spike LOGIN=jo+2Bx DESTADDR=192.0.2.9 DESTPORT=25\r\n")
	c.expect("220 ")
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("503 ")
	c.hello()
	x := b.sessions[1].conn
	if x.RemoteAddr().String() != "[2001:db8::1]:4711" || x.LocalAddr().String() != "192.0.2.9:25" || !x.Trusted() ||
		x.HELO() != "spike" || x.ReverseName() != "mail.example.org" || x.Login() != "jo+x" || x.Protocol() != "ESMTP" {
		t.Errorf("after XCLIENT: %+v", x)
	}
	if b.ended != 1 {
		t.Errorf("%d sessions ended, want the one before XCLIENT", b.ended)
	}
	c.send("XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 HELO=a\r\n")
	c.expect("250 ")
	if f := x.Forwarded(); f.Addr.Addr().String() != "192.0.2.7" || f.HELO != "a" || f.Name != "" {
		t.Errorf("forwarded %+v", f)
	}
	for _, bad := range []string{"XCLIENT", "XCLIENT FOO=bar", "XCLIENT ADDR=hello", "XCLIENT PROTO=LMTP", "XCLIENT NAME=a+00b"} {
		c.send(bad + "\r\n")
		c.expect("501 5.5.4 ")
	}

	_, addr = serve(t, &sink{}, func(c *ServerConfig) { c.XClientFrom = []string{"192.0.2.0/24"} })
	c = dial(t, addr)
	c.expect("220 ")
	c.send("EHLO x\r\n")
	if r := c.reply(); strings.Contains(r, "XCLIENT") || strings.Contains(r, "ETRN") {
		t.Errorf("got %q", r)
	}
	c.send("XCLIENT ADDR=192.0.2.1\r\n")
	c.expect("550 5.7.0 ")
	c.send("XFORWARD ADDR=192.0.2.1\r\n")
	c.expect("550 5.7.0 ")
	c.send("ETRN example.com\r\n")
	c.expect("502 5.5.1 ")
	c.send("VRFY b\r\n")
	c.expect("252 2.0.0 ")
}

func TestFinding13ShutdownEndsIdleClientsAndLetsDataFinish(t *testing.T) {
	t.Parallel()
	b := &sink{}
	s, addr := serve(t, b, nil)
	idle := dial(t, addr)
	idle.ready()
	busy := dial(t, addr)
	busy.ready()
	busy.data("first\r\n")
	chunks := dial(t, addr)
	chunks.ready()
	chunks.send("BDAT 3\r\na\r\n")
	chunks.expect("250 ")
	silent := dial(t, addr)
	silent.ready()
	silent.data("first\r\n")

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	idle.expect("421 4.3.2 ")
	idle.closed()
	if nc, err := net.Dial("tcp", addr); err == nil { //nolint:noctx // loopback, in a test
		_ = nc.Close()
		t.Error("the listener is still open")
	}
	busy.send("second\r\n.\r\nMAIL FROM:<a@example.org>\r\n")
	busy.expect("250 ")
	busy.expect("421 4.3.2 ")
	busy.closed()
	chunks.send("BDAT 3 LAST\r\nb\r\n")
	chunks.expect("250 ")
	chunks.expect("421 4.3.2 ")
	b.bodies(t, "first\r\nsecond\r\n", "a\r\nb\r\n")
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v before the last message ended", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	silent.closed()
	if len(b.broken) != 1 {
		t.Errorf("broken readers: %v", b.broken)
	}
}

func TestFinding14RepliesOfAGroupAreOneWrite(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, dial func() *talker, _ *sink) {
		t.Helper()
		c := dial()
		c.expect("220 ")
		one := func(cmd, want string) {
			t.Helper()
			c.send(cmd)
			buf := make([]byte, 4096)
			n, err := c.nc.Read(buf) // a pipe keeps writes apart
			if err != nil || strings.Count(string(buf[:n]), want) == 0 || !strings.HasSuffix(string(buf[:n]), "\r\n") {
				t.Errorf("%q: one read gave %q, %v", cmd, buf[:n], err)
			}
		}
		one("EHLO x\r\n", "SMTPUTF8")
		one("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n", "\r\n354 ")
		one(".\r\n", "250 ")
		one("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\nNOOP\r\n", "\r\n250 2.0.0 OK\r\n250 ")
	}, nil)
}

func TestFinding15FinalReplyIsTheSessions(t *testing.T) {
	t.Parallel()
	b := &sink{data: func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return errors.Join(err, &gosmtp.SMTPError{Code: 250, EnhancedCode: gosmtp.EnhancedCode{2, 0, 0}, Message: "queued as 4ZX1"})
	}}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.ready()
	c.data("x\r\n.\r\n")
	c.expect("250 2.0.0 queued as 4ZX1\r\n")
}

func TestFinding16EnhancedCodeOnEveryLineAndNoWayBackFromTLS(t *testing.T) {
	t.Parallel()
	b := &sink{rcpt: func(string) error {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 7, 1}, Message: "one\ntwo\r\nthree\rx\x00"}
	}}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("MAIL FROM:<a@example.org>\r\n")
	c.expect("250 ")
	c.send("RCPT TO:<b@example.com>\r\n")
	if r := c.reply(); r != "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three?x?\r\n" {
		t.Errorf("got %q", r)
	}
	c = dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("STARTTLS\r\n")
	c.expect("220 ")
	c.send("EHLO again\r\nMAIL FROM:<a@example.org>\r\n") // no handshake
	rest, _ := io.ReadAll(c.r)
	if regexp.MustCompile(`\d{3}[ -]`).Match(rest) {
		t.Errorf("after a failed handshake the server said %q", rest)
	}
	// Old versions are refused.
	c = dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("STARTTLS\r\n")
	c.expect("220 ")
	old := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) //nolint:gosec // what is tested
	if err := old.HandshakeContext(t.Context()); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}
