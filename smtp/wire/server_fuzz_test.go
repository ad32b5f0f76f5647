package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// feed is a connection that yields given bytes in given pieces, then ends.
type feed struct {
	net.Conn
	r   io.Reader
	out bytes.Buffer
}

func (f *feed) Read(p []byte) (int, error)       { return f.r.Read(p) }
func (f *feed) Write(p []byte) (int, error)      { return f.out.Write(p) }
func (f *feed) Close() error                     { return nil }
func (f *feed) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }
func (f *feed) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (f *feed) SetDeadline(time.Time) error      { return nil }
func (f *feed) SetReadDeadline(time.Time) error  { return nil }
func (f *feed) SetWriteDeadline(time.Time) error { return nil }

// pieces cuts reads into n bytes; 0 leaves them whole.
type pieces struct {
	r io.Reader
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.n > 0 && len(b) > p.n {
		b = b[:p.n]
	}
	return p.r.Read(b)
}

// talk runs one connection over in, without sockets, and returns what was said.
func talk(t *testing.T, b Backend, in []byte, piece int) string {
	t.Helper()
	cfg := DefaultServerConfig()
	cfg.XClientFrom = []string{"127.0.0.1"}
	s, err := NewServer(cfg, "mx.example.com", nil, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{r: &pieces{iotest.DataErrReader(bytes.NewReader(in)), piece}}
	if piece > 0 {
		f.r = &pieces{bytes.NewReader(in), piece}
	}
	newConn(context.Background(), s, f).serve()
	return f.out.String()
}

// plainContent is the slow, plain reading of RFC 5321, section 4.5.2: the content of
// DATA at the start of in, what follows it, and whether it is clean and complete.
func plainContent(in []byte) (content, rest []byte, clean, complete bool) {
	i := bytes.Index(append([]byte("\r\n"), in...), []byte("\r\n.\r\n"))
	if i < 0 {
		return nil, nil, false, false
	}
	raw, rest := in[:i], in[i+3:]
	clean = isClean(raw)
	content = bytes.ReplaceAll(append([]byte("\r\n"), raw...), []byte("\r\n."), []byte("\r\n"))[2:]
	return content, rest, clean, true
}

func isClean(raw []byte) bool {
	return !bytes.ContainsAny(bytes.ReplaceAll(raw, []byte("\r\n"), nil), "\r\n\x00")
}

func FuzzDataReader(f *testing.F) {
	for _, s := range badEndings {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(1))
	}
	for _, s := range []string{".\r\n", "..\r\n.\r\n", "a\r\n..b\r\n...\r\n.\r\nNOOP\r\n", "a\r\n.\r", "", ".x\r\n.\r\n", "\r\n.\r\n"} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(2))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		content, rest, clean, complete := plainContent(in)
		in = in[:len(in)-len(rest)]
		b := &once{copies: piece%2 == 1}
		input := append([]byte("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"), in...)
		if complete {
			input = append(input, "VRFY x\r\n"...)
		}
		said := talk(t, b, input, int(piece))
		_, said, _ = strings.Cut(said, "\r\n354 ")
		if lines := strings.Split(said, "\r\n"); complete && (len(lines) != 4 || !strings.HasPrefix(lines[2], "252 ")) {
			t.Fatalf("%q: out of step: %q", in, said)
		}
		switch {
		case !b.called:
			t.Fatal("Data was not called")
		case complete && clean:
			if b.err != nil || !bytes.Equal(b.got, content) {
				t.Fatalf("%q: got %q, %v; want %q", in, b.got, b.err, content)
			}
		case b.err == nil:
			t.Fatalf("%q: taken as %q", in, b.got)
		case complete && !errors.Is(b.err, ErrBadBytes):
			t.Fatalf("%q: error %v", in, b.err)
		}
	})
}

// once keeps what the first message of a connection was.
type once struct {
	sinkSession
	called bool
	got    []byte
	err    error
	copies bool
}

func (o *once) Connect(context.Context, *Conn) (Session, error) {
	o.sink = &sink{data: o.read}
	return &o.sinkSession, nil
}

func (o *once) read(r io.Reader) error {
	if o.called {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	o.called = true
	if o.copies {
		var buf bytes.Buffer
		_, o.err = io.Copy(&buf, r)
		o.got = buf.Bytes()
		return o.err
	}
	o.got, o.err = io.ReadAll(r)
	return o.err
}

func FuzzBDAT(f *testing.F) {
	f.Add([]byte("hello\r\nworld"), []byte{3, 4}, uint8(0), uint16(100))
	f.Add([]byte("a\r\n"), []byte{2}, uint8(1), uint16(100))
	f.Add([]byte("a\rb"), []byte{2, 0, 1}, uint8(1), uint16(100))
	f.Add([]byte("a\r\n.\r\nb\n"), []byte{1, 1, 1, 1}, uint8(3), uint16(20))
	f.Add([]byte(""), []byte{}, uint8(3), uint16(20))
	f.Add([]byte("a\r"), []byte{2}, uint8(0), uint16(100))
	f.Add([]byte("x\x00"), []byte{1}, uint8(3), uint16(20))
	f.Fuzz(func(t *testing.T, body, sizes []byte, piece uint8, cut uint16) {
		var wireBytes bytes.Buffer
		rest := body
		for _, n := range sizes {
			k := min(int(n), len(rest))
			wireBytes.WriteString("BDAT " + itoa(k) + "\r\n")
			wireBytes.Write(rest[:k])
			rest = rest[k:]
		}
		wireBytes.WriteString("BDAT " + itoa(len(rest)) + " LAST\r\n")
		wireBytes.Write(rest)
		sent := wireBytes.Bytes()
		whole := int(cut) >= len(sent)
		if !whole {
			sent = sent[:cut]
		}
		b := &once{copies: piece%2 == 0}
		said := talk(t, b, append([]byte("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"), sent...), int(piece))
		switch {
		case whole && isClean(body):
			if b.err != nil || !bytes.Equal(b.got, body) || !strings.HasSuffix(said, "250 2.0.0 OK\r\n") {
				t.Fatalf("%q: got %q, %v; said %q", body, b.got, b.err, said)
			}
		case b.called && b.err == nil:
			t.Fatalf("%q cut at %d: taken as %q", body, cut, b.got)
		case strings.Contains(said, "250 2.0.0 OK"):
			t.Fatalf("%q cut at %d: said %q", body, cut, said)
		}
	})
}

// FuzzCommand sends anything as commands: replies must be well formed, and what
// the parser lets through must be clean.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME RET=FULL ENVID=x+2By\r\nRCPT TO:<postmaster> NOTIFY=NEVER\r\n",
		"MAIL FROM:<\"a b\\\"c\"@[IPv6:::1]>\r\nRCPT TO:<@x,@y:a@b> ORCPT=utf-8;\\x{41}\r\n",
		"MAIL FROM:<\xc3\xa4@\xc3\xa4.example> SMTPUTF8\r\n", "VRFY x\r\nHELP\r\nNOOP\r\nRSET\r\nETRN x\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n",
		"XCLIENT ADDR=1.2.3.4 NAME=[UNAVAILABLE]\r\nEHLO x\r\n", "XFORWARD ADDR=IPV6:::1 PORT=1 HELO=a+2Bb\r\n", "STARTTLS\r\n", "GET / HTTP/1.1\r\n\r\n", "\r\n", "\n", "MAIL FROM:<>\r\nDATA\r\n.\r\nQUIT\r\n",
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		b := &watch{t: t}
		said := talk(t, b, append([]byte("EHLO x\r\n"), in...), int(piece))
		for line := range strings.SplitSeq(strings.TrimSuffix(said, "\r\n"), "\r\n") {
			if len(line) < 4 || line[0] < '2' || line[0] > '5' || line[3] != ' ' && line[3] != '-' || len(line) > 510 || hasControl(line) || !isASCII(line) {
				t.Fatalf("%q: malformed reply %q", in, line)
			}
		}
	})
}

// watch checks what reaches a session.
type watch struct {
	sinkSession
	t    *testing.T
	utf8 bool
}

func (w *watch) Connect(context.Context, *Conn) (Session, error) {
	w.sink = &sink{data: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }}
	return w, nil
}

func (w *watch) check(addr string, utf8 bool) {
	if hasControl(addr) || !utf8 && !isASCII(addr) || strings.HasPrefix(addr, "@") {
		w.t.Fatalf("address %q reached the session", addr)
	}
}

func (w *watch) Mail(from string, o *gosmtp.MailOptions) error {
	w.utf8 = o.UTF8
	w.check(from, w.utf8)
	return nil
}

func (w *watch) Rcpt(to string, o *gosmtp.RcptOptions) error {
	w.check(to, w.utf8)
	if o.OriginalRecipient != "" {
		kind, addr, err := ParseORCPT(FormatORCPT(o.OriginalRecipientType, o.OriginalRecipient))
		if err != nil || kind != o.OriginalRecipientType || addr != o.OriginalRecipient {
			w.t.Fatalf("ORCPT %q does not survive", o.OriginalRecipient)
		}
	}
	return nil
}
