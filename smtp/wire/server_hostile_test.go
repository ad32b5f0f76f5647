package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"
)

func TestForeignProtocolsAreClosedAtOnce(t *testing.T) {
	t.Parallel()
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: mx\r\n\r\n",
		"POST / HTTP/1.0\r\n\r\nMAIL FROM:<a@example.org>\r\n",
		"Host: mx.example.com\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
		"\x00\x0d\x0aQUIT\r\n",
		"SSH-2.0-OpenSSH_9.2\r\n",
		"MAIL\tFROM:<a@example.org>\r\n",
	} {
		_, addr := serve(t, &sink{}, nil)
		c := dial(t, addr)
		c.expect("220 ")
		c.send(garbage)
		c.expect("554 5.5.1 ")
		c.closed()
	}
}

func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.send("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nx\r\n.\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 2 LAST\r\nhi")
	c.half()
	for _, want := range []string{"250-", "250 ", "250 ", "354 ", "250 2.0.0", "250 ", "250 ", "250 2.0.0"} {
		c.expect(want)
	}
	c.closed()
	b.bodies(t, "x\r\n", "hi")
}

func TestTruncatedDATAIsNotAccepted(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "x", "x\r\n", "x\r\n.", "x\r\n.\r", ".", "x\r\n.\n"} {
		b := &sink{}
		_, addr := serve(t, b, nil)
		c := dial(t, addr)
		c.ready()
		c.data(body)
		c.half()
		c.closed()
		wait(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.ended == 1 })
		if len(b.messages) != 0 || len(b.broken) != 1 {
			t.Errorf("%q: taken %d, broken %v", body, len(b.messages), b.broken)
		}
	}
}

func TestStartTLSInjection(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
	c.expect("554 5.5.1 ")
	c.closed()

	// State is reset: neither greeting nor transaction survive.
	c = dial(t, addr)
	c.ready()
	c.send("STARTTLS\r\n")
	c.expect("503 5.5.1 ")
	c.send("RSET\r\n")
	c.expect("250 ")
	c.send("MAIL FROM:<a@example.org> REQUIRETLS\r\n")
	c.expect("530 5.7.0 ")
	c.startTLS()
	c.send("RCPT TO:<b@example.com>\r\n")
	c.expect("503 5.5.1 ")
	c.send("STARTTLS\r\n")
	c.expect("503 5.5.1 ")
	c.hello()
	c.send("MAIL FROM:<a@example.org> REQUIRETLS\r\n")
	c.expect("250 ")
	c.send("RSET\r\n")
	c.expect("250 ")
	c.send("RCPT TO:<b@example.com>\r\n")
	c.expect("503 5.5.1 ")
	c.envelope()
	c.hello() // EHLO resets as RSET does
	c.send("DATA\r\n")
	c.expect("503 5.5.1 ")
}

func TestSlowLoris(t *testing.T) {
	t.Parallel()
	type step struct {
		name  string
		begin func(*talker)
		drip  string
		every time.Duration
		limit time.Duration
	}
	for _, s := range []step{
		{"command", func(c *talker) { c.expect("220 ") }, "N", time.Minute, 5 * time.Minute},
		{"data", func(c *talker) { c.ready(); c.data("") }, "a line that is too short for its time\r\n", time.Minute, 4 * time.Minute},
		{"chunk", func(c *talker) { c.ready(); c.send("BDAT 100000 LAST\r\n") }, "xx\r\n", time.Minute, 4 * time.Minute},
		{"total", func(c *talker) { c.ready(); c.data("") }, strings.Repeat("x", 7000) + "\r\n", time.Minute, time.Hour},
		{"refused", func(c *talker) { c.ready(); c.data("bare\n") }, strings.Repeat("x", 7000) + "\r\n", time.Minute, 5 * time.Minute},
	} {
		t.Run(s.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, dial func() *talker, b *sink) {
				t.Helper()
				c := dial()
				s.begin(c)
				start := time.Now()
				dripped := make(chan struct{})
				defer func() { _ = c.nc.Close(); <-dripped }()
				go func() {
					defer close(dripped)
					for {
						if _, err := io.WriteString(c.nc, s.drip); err != nil {
							return
						}
						time.Sleep(s.every) //nolint:forbidigo // a synctest bubble's clock
					}
				}()
				c.expect("421 4.4.2 ")
				if d := time.Since(start); d < s.limit-time.Minute || d > s.limit {
					t.Errorf("cut after %v, want about %v", d, s.limit)
				}
				b.bodies(t)
			}, nil)
		})
	}
}

func TestProxyHeader(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, func(c *ServerConfig) {
		c.ProxyFrom, c.XClientFrom = []string{"127.0.0.1"}, []string{"127.0.0.1"}
	})
	src := &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 4711}
	dst := &net.TCPAddr{IP: net.ParseIP("2001:db8::25"), Port: 25}
	for version := range byte(2) {
		c := dial(t, addr)
		head, err := proxyproto.HeaderProxyFromAddrs(version+1, src, dst).Format()
		if err != nil {
			t.Fatal(err)
		}
		c.send(string(head))
		c.ready()
		c.data(".\r\n")
		c.expect("250 ")
		x := b.sessions[version].conn
		if x.RemoteAddr().String() != "[2001:db8::7]:4711" || x.LocalAddr().String() != "[2001:db8::25]:25" || !x.Trusted() {
			t.Errorf("version %d: %v %v", version+1, x.RemoteAddr(), x.LocalAddr())
		}
		// What follows the header at once is an early talker.
		c = dial(t, addr)
		c.send(string(head) + "EHLO x\r\n")
		c.expect("554 5.5.1 ")
		c.closed()
	}
	c := dial(t, addr)
	c.send("PROXY UNKNOWN\r\n")
	c.expect("220 ")
	c.hello()
	c.send("XCLIENT ADDR=192.0.2.1\r\n")
	c.expect("220 ") // the proxy itself may
	c = dial(t, addr)
	c.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n")
	c.expect("220 ")
	c.hello()
	c.send("XCLIENT ADDR=127.0.0.1\r\n")
	c.expect("550 ") // its client may not
	c = dial(t, addr)
	c.send("EHLO x\r\n")
	c.expect("421 4.7.0 ")
	c.closed()
}

func TestBDATSequences(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("BDAT 5 LAST\r\nQUIT\n") // the bytes are not commands
	c.expect("503 5.5.1 ")
	c.envelope()
	c.send("BDAT 3\r\na\r\n")
	c.expect("250 ")
	for _, cmd := range []string{"DATA", "MAIL FROM:<x@example.org>", "RCPT TO:<x@example.org>", "VRFY x"} {
		c.send(cmd + "\r\n")
		c.expect("503 5.5.1 ")
	}
	c.send("NOOP\r\n")
	c.expect("250 ")
	c.send("BDAT 0 LAST\r\n")
	c.expect("250 ")
	c.envelope()
	c.send("BDAT 3\r\na\r\n")
	c.expect("250 ")
	c.send("RSET\r\n")
	c.expect("250 2.0.0 OK")
	c.send("BDAT 3 LAST\r\na\r\n")
	c.expect("503 5.5.1 ")
	c.envelope()
	c.send("BDAT 3\r\na\r\n")
	c.expect("250 ")
	c.send("QUIT\r\n")
	c.expect("221 ")
	c.closed()
	b.bodies(t, "a\r\n")
	if !errors.Is(b.broken[0], errAbandoned) || len(b.broken) != 2 {
		t.Errorf("broken: %v", b.broken)
	}
	for _, bad := range []string{"BDAT", "BDAT x", "BDAT -1", "BDAT 5 FIRST", "BDAT 5 LAST LAST", "BDAT 999999999999999999999"} {
		c = dial(t, addr)
		c.ready()
		c.send(bad + "\r\nhello")
		c.expect("501 5.5.4 ")
		c.closed()
	}
}

// A session that answers before it has read everything leaves the connection in
// step; one that claims success is not believed.
func TestSessionThatDoesNotRead(t *testing.T) {
	t.Parallel()
	full := &gosmtp.SMTPError{Code: 452, EnhancedCode: gosmtp.EnhancedCode{4, 3, 1}, Message: "full"}
	queued := &gosmtp.SMTPError{Code: 250, EnhancedCode: gosmtp.EnhancedCode{2, 0, 0}, Message: "queued"}
	var answer error
	b := &sink{data: func(r io.Reader) error { _, err := r.Read(make([]byte, 1)); return errors.Join(answer, err) }}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	big := strings.Repeat("0123456789\r\n", 20_000)
	for _, try := range []struct {
		err  error
		want string
	}{{full, "452 4.3.1 full"}, {nil, "451 4.3.0 "}, {queued, "451 4.3.0 "}} {
		answer = try.err
		c.envelope()
		c.data(big + ".\r\n")
		c.expect(try.want)
		c.envelope()
		c.send("BDAT " + itoa(len(big)) + "\r\n" + big + "BDAT 3 LAST\r\nx\r\n")
		c.expect(try.want)
		c.expect("503 5.5.1 ")
	}
}

func TestSessionPanicEndsOneConnectionOnly(t *testing.T) {
	t.Parallel()
	b := &sink{rcpt: func(string) error { panic("boom") }}
	_, addr := serve(t, b, nil)
	c := dial(t, addr)
	c.expect("220 ")
	c.hello()
	c.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n")
	c.expect("250 ")
	c.expect("421 4.3.0 ")
	c.closed()
	dial(t, addr).expect("220 ")
}

func TestTooManyConnectionsAndRecipients(t *testing.T) {
	t.Parallel()
	_, addr := serve(t, &sink{}, func(c *ServerConfig) { c.MaxConnections, c.MaxRecipients = 1, 100 })
	c := dial(t, addr)
	c.ready()
	d := dial(t, addr)
	d.expect("421 4.3.2 ")
	d.closed()
	for range 99 {
		c.send("RCPT TO:<b@example.com>\r\n")
		c.expect("250 ")
	}
	for range 5 {
		c.send("RCPT TO:<b@example.com>\r\n")
		c.expect("452 4.5.3 ")
	}
	c.data("x\r\n.\r\n")
	c.expect("250 ")
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, err := NewServer(DefaultServerConfig(), "mx.example.com", nil, &sink{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback, in a test
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	c := dial(t, l.Addr().String())
	c.expect("220 ")
	cancel()
	c.expect("421 4.3.2 ")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Serve(t.Context(), l); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestGoSMTPClient(t *testing.T) {
	t.Parallel()
	b := &sink{}
	_, addr := serve(t, b, nil)
	c, err := gosmtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("a@example.org", &gosmtp.MailOptions{UTF8: true, RequireTLS: true, EnvelopeID: "x y+z", Return: gosmtp.DSNReturnFull, Size: 12}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("b@example.com", &gosmtp.RcptOptions{
		Notify:                []gosmtp.DSNNotify{gosmtp.DSNNotifyDelayed, gosmtp.DSNNotifyFailure},
		OriginalRecipientType: gosmtp.DSNAddressTypeUTF8, OriginalRecipient: "\u00fc+x@example.com",
	}); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "Subject: x\r\n\r\n.dot\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
	b.bodies(t, "Subject: x\r\n\r\n.dot\r\n")
	m := b.all()[0]
	if m.mail.EnvelopeID != "x y+z" || !m.mail.RequireTLS || m.proto != "UTF8SMTPS" || m.rcpts[0].OriginalRecipient != "\u00fc+x@example.com" {
		t.Errorf("%+v", m)
	}
}
