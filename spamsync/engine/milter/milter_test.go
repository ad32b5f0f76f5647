package milter

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
)

// The library's server logs every connection that ends.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	m.Run()
}

// script is what a milter does, and what it saw.
type script struct {
	mu     sync.Mutex
	saw    []string
	macros map[string]string

	rcpt   func(string) gomilter.Response
	header func(name string) gomilter.Response
	body   func(*gomilter.Modifier) (gomilter.Response, error)
}

// peer is one conversation of a script, by the library's server side.
type peer struct {
	s    *script
	data bytes.Buffer
}

func (p *peer) note(m *gomilter.Modifier, format string, args ...any) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.saw = append(p.s.saw, fmt.Sprintf(format, args...))
	if p.s.macros == nil {
		p.s.macros = make(map[string]string)
	}
	maps.Copy(p.s.macros, m.Macros)
}

func (p *peer) Connect(host, family string, port uint16, addr net.IP, m *gomilter.Modifier) (gomilter.Response, error) {
	p.note(m, "connect %s %s %d %s", host, family, port, addr)
	return gomilter.RespContinue, nil
}

func (p *peer) Helo(name string, m *gomilter.Modifier) (gomilter.Response, error) {
	p.note(m, "helo %s", name)
	return gomilter.RespContinue, nil
}

func (p *peer) MailFrom(from string, m *gomilter.Modifier) (gomilter.Response, error) {
	p.note(m, "mail %s", from)
	return gomilter.RespContinue, nil
}

func (p *peer) RcptTo(to string, m *gomilter.Modifier) (gomilter.Response, error) {
	p.note(m, "rcpt %s", to)
	if p.s.rcpt != nil {
		return p.s.rcpt(to), nil
	}
	return gomilter.RespContinue, nil
}

func (p *peer) Header(name, value string, m *gomilter.Modifier) (gomilter.Response, error) {
	p.note(m, "%s:%s", name, value)
	if p.s.header != nil {
		return p.s.header(name), nil
	}
	return gomilter.RespContinue, nil
}

func (p *peer) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespContinue, nil
}

func (p *peer) BodyChunk(chunk []byte, _ *gomilter.Modifier) (gomilter.Response, error) {
	p.data.Write(chunk)
	return gomilter.RespContinue, nil
}

func (p *peer) Body(m *gomilter.Modifier) (gomilter.Response, error) {
	p.note(m, "body %s", p.data.String())
	if p.s.body != nil {
		return p.s.body(m)
	}
	if strings.Contains(p.data.String(), "SPAMWORD") {
		return gomilter.NewResponseStr('y', "550 5.7.13 no\r\nthanks"), nil
	}
	return gomilter.RespAccept, nil
}

func (p *peer) Abort(*gomilter.Modifier) error { return nil }

// once is a listener with one connection.
type once struct {
	conn chan net.Conn
	net.Listener
}

func (o once) Accept() (net.Conn, error) {
	c, ok := <-o.conn
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (o once) Close() error { return nil }

// wrapped writes to w and tells when it is closed.
type wrapped struct {
	net.Conn
	w    io.Writer
	done chan struct{}
	once sync.Once
}

func (c *wrapped) Write(p []byte) (int, error) { return c.w.Write(p) }

func (c *wrapped) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

func (s *script) serve(c net.Conn, w io.Writer) {
	server := gomilter.Server{NewMilter: func() gomilter.Milter { return &peer{s: s} }, Actions: gomilter.OptAddHeader | gomilter.OptChangeHeader | gomilter.OptQuarantine}
	wc := &wrapped{Conn: c, w: w, done: make(chan struct{})}
	l := once{conn: make(chan net.Conn, 1)}
	l.conn <- wc
	close(l.conn)
	_ = server.Serve(l)
	<-wc.done
}

func (s *script) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.saw)
}

func newFilter(t *testing.T, timeout time.Duration, addresses ...string) *Filter {
	t.Helper()
	f, err := New(Options{Addresses: addresses, Timeout: timeout, Hostname: "mx2.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T, b enginetest.Behaviour, timeout time.Duration) enginetest.Subject {
		t.Helper()
		s := &script{}
		return enginetest.Subject{Filter: newFilter(t, timeout, enginetest.Start(t, b, s.serve)), Rejects: true}
	})
}

func TestDialogue(t *testing.T) {
	t.Parallel()
	s := &script{}
	filter := newFilter(t, 5*time.Second, enginetest.Start(t, enginetest.Judge, s.serve))
	message := "Subject:  a\r\n folded\r\nX-Empty:\r\nTo: b\r\n\r\nbody\r\n.\r\n"
	if _, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"connect client.example.org tcp4 40000 192.0.2.7", "helo client.example.org", "mail a@example.org",
		"rcpt b@example.com", "rcpt c@example.com", "Subject: a\n folded", "X-Empty:", "To:b", "body body\r\n.\r\n",
	}
	if d := cmp.Diff(want, s.seen()); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]string{
		"j": "mx2.example.com", "{daemon_name}": "mx2.example.com", "i": "4fXyZ1", "{client_addr}": "192.0.2.7", "{client_name}": "client.example.org",
		"{client_port}": "40000", "{tls_version}": "TLSv1.3", "{cipher}": "TLS_AES_128_GCM_SHA256", "{auth_authen}": "user", "{auth_type}": "PLAIN",
		"{mail_addr}": "a@example.org", "{rcpt_addr}": "c@example.com", "{rcpt_host}": "example.com",
	} {
		if got := s.macros[name]; got != want {
			t.Errorf("macro %s: got %q, want %q", name, got, want)
		}
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	respond := func(r gomilter.Response) func(*gomilter.Modifier) (gomilter.Response, error) {
		return func(*gomilter.Modifier) (gomilter.Response, error) { return r, nil }
	}
	refuse := func(r gomilter.Response, only string) func(string) gomilter.Response {
		return func(to string) gomilter.Response {
			if only == "" || to == only {
				return r
			}
			return gomilter.RespContinue
		}
	}
	for _, tc := range []struct {
		name string
		s    *script
		want smtp.Verdict
		fail bool
	}{
		{"continue", &script{body: respond(gomilter.RespContinue)}, smtp.Verdict{}, false},
		{"reject", &script{body: respond(gomilter.RespReject)}, smtp.Verdict{Action: smtp.Reject, Code: 554, Enhanced: "5.7.1", Text: "Command rejected"}, false},
		{"tempfail", &script{body: respond(gomilter.RespTempFail)}, smtp.Verdict{Action: smtp.Defer, Code: 451, Enhanced: "4.7.1", Text: "Service unavailable, try again later"}, false},
		{"discard", &script{body: respond(gomilter.RespDiscard)}, smtp.Verdict{Action: smtp.Quarantine, Text: "the milter said discard; nothing is dropped here"}, false},
		{"reply", &script{body: respond(gomilter.NewResponseStr('y', "550 5.7.13 100%% spam\r\nX"))}, smtp.Verdict{Action: smtp.Reject, Code: 550, Enhanced: "5.7.13", Text: "100% spam X"}, false},
		{"reply without an enhanced code", &script{body: respond(gomilter.NewResponseStr('y', "451 greylisted 5.7.1"))}, smtp.Verdict{Action: smtp.Defer, Code: 451, Enhanced: "4.7.1", Text: "greylisted 5.7.1"}, false},
		{"reply of the wrong class", &script{body: respond(gomilter.NewResponseStr('y', "421 5.7.1 bye"))}, smtp.Verdict{Action: smtp.Defer, Code: 451, Enhanced: "4.7.1", Text: "5.7.1 bye"}, false},
		{"reply that is none", &script{body: respond(gomilter.NewResponseStr('y', "250 2.0.0 ok"))}, smtp.Verdict{}, true},
		{"reply with garbage", &script{body: respond(gomilter.NewResponseStr('y', "abc def"))}, smtp.Verdict{}, true},
		{"unknown", &script{body: respond(gomilter.NewResponseStr('Z', "x"))}, smtp.Verdict{}, true},
		{"skip", &script{body: respond(gomilter.NewResponseStr('s', ""))}, smtp.Verdict{}, true},
		{"in the header", &script{header: func(string) gomilter.Response { return gomilter.RespReject }}, smtp.Verdict{Action: smtp.Reject, Code: 554, Enhanced: "5.7.1", Text: "Command rejected"}, false},
		{"accept in the header", &script{header: func(string) gomilter.Response { return gomilter.RespAccept }, body: respond(gomilter.RespReject)}, smtp.Verdict{}, false},
		{"one recipient refused", &script{rcpt: refuse(gomilter.RespReject, "b@example.com")}, smtp.Verdict{}, false},
		{"all recipients refused", &script{rcpt: refuse(gomilter.RespReject, "")}, smtp.Verdict{Action: smtp.Reject, Code: 554, Enhanced: "5.7.1", Text: "Command rejected"}, false},
		{"quarantine", &script{body: func(m *gomilter.Modifier) (gomilter.Response, error) {
			return gomilter.RespAccept, m.Quarantine("look\r\nat it")
		}}, smtp.Verdict{Action: smtp.Quarantine, Text: "look at it"}, false},
		{"headers", &script{body: func(m *gomilter.Modifier) (gomilter.Response, error) {
			return gomilter.RespAccept, errors.Join(
				m.AddHeader("X-Spam", "Yes"), m.ChangeHeader(1, "X-A", ""), m.ChangeHeader(2, "x-a", "two"), m.ChangeHeader(9, "X-A", "new\r\n\tfolded\r\n\r\nbody"),
				m.InsertHeader(0, "Front", "0"), m.InsertHeader(1, "Front", "1"), m.InsertHeader(3, "Mid", "m"), m.InsertHeader(99, "End", "e"), m.ChangeHeader(5, "X-A", ""))
		}}, smtp.Verdict{Spam: true, Header: "Front: 0\r\nFront: 1\r\n", Edits: []smtp.HeaderEdit{
			{Op: smtp.RemoveHeader, Name: "X-A", Index: 1},
			{Op: smtp.InsertHeader, Name: "Mid", Index: 3, Value: "m"},
			{Op: smtp.ReplaceHeader, Name: "x-a", Index: 2, Value: "two"},
			{Op: smtp.AppendHeader, Name: "X-Spam", Value: "Yes"},
			{Op: smtp.AppendHeader, Name: "X-A", Value: "new\n\tfolded\n\nbody"},
			{Op: smtp.AppendHeader, Name: "End", Value: "e"},
		}}, false},
		{"other recipients", &script{body: func(m *gomilter.Modifier) (gomilter.Response, error) {
			return gomilter.RespAccept, m.AddRecipient("x@example.com")
		}}, smtp.Verdict{}, true},
		{"another body", &script{body: func(m *gomilter.Modifier) (gomilter.Response, error) {
			return gomilter.RespAccept, m.ReplaceBody([]byte("x"))
		}}, smtp.Verdict{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			filter := newFilter(t, 5*time.Second, enginetest.Start(t, enginetest.Judge, tc.s.serve))
			got, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("X-A: 1\r\nTo: x\r\nX-A: 2\r\nX-Spam: Yes\r\n\r\nbody\r\n"))
			if !tc.fail {
				tc.want.Engine = "milter"
			}
			if (err != nil) != tc.fail {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Every milter sees what those before it did, and together they give one list of
// changes of the message as it came.
func TestChain(t *testing.T) {
	t.Parallel()
	first := &script{body: func(m *gomilter.Modifier) (gomilter.Response, error) {
		return gomilter.RespAccept, errors.Join(m.ChangeHeader(1, "X-A", ""), m.InsertHeader(0, "X-A", "0"), m.AddHeader("X-B", "b"), m.ChangeHeader(1, "Subject", "*** s"))
	}}
	second := &script{body: func(m *gomilter.Modifier) (gomilter.Response, error) {
		// X-A: 0, X-A: 2 and X-B: b are what it sees.
		return gomilter.RespAccept, errors.Join(m.ChangeHeader(2, "X-A", "two"), m.ChangeHeader(1, "X-B", ""), m.Quarantine("why"), m.InsertHeader(0, "Top", "t"))
	}}
	third := &script{}
	filter := newFilter(t, 5*time.Second,
		enginetest.Start(t, enginetest.Judge, first.serve), enginetest.Start(t, enginetest.Judge, second.serve), enginetest.Start(t, enginetest.Judge, third.serve))
	message := "X-A: 1\r\nSubject: s\r\nX-A: 2\r\n\r\nbody\r\n"
	v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(message))
	if err != nil || v.Action != smtp.Quarantine || v.Text != "why" {
		t.Fatalf("%+v, %v", v, err)
	}
	headers := third.seen()[5:]
	if d := cmp.Diff([]string{"Top:t", "X-A:0", "Subject:*** s", "X-A:two", "body body\r\n"}, headers); d != "" {
		t.Error(d)
	}
	var out bytes.Buffer
	if err := smtp.WriteEdited(&out, strings.NewReader(message), v.Edits); err != nil {
		t.Fatal(err)
	}
	if got, want := v.Header+out.String(), "Top: t\r\nX-A: 0\r\nSubject: *** s\r\nX-A: two\r\n\r\nbody\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	reject := &script{body: func(*gomilter.Modifier) (gomilter.Response, error) { return gomilter.RespReject, nil }}
	last := &script{}
	filter = newFilter(t, 5*time.Second, enginetest.Start(t, enginetest.Judge, reject.serve), enginetest.Start(t, enginetest.Judge, last.serve))
	if v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(message)); err != nil || v.Action != smtp.Reject || len(last.seen()) != 0 {
		t.Errorf("%+v, %v, %q", v, err, last.seen())
	}
	filter = newFilter(t, 5*time.Second, enginetest.Start(t, enginetest.Judge, last.serve), enginetest.Start(t, enginetest.Refuse, nil))
	if v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(message)); err == nil {
		t.Errorf("a verdict though one milter is away: %+v", v)
	}
}

func TestReadHeader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, tc := range []struct {
		in    string
		names string
		body  string
	}{
		{"A: 1\r\nB: 2\r\n\r\nbody", "A B", "body"},
		{"A: 1\r\nno field\r\nB: 2\r\n\r\nbody", "A", "no field\r\nB: 2\r\n\r\nbody"},
		{" x\r\nA: 1\r\n", "", " x\r\nA: 1\r\n"},
		{"", "", ""},
		{"A: 1", "A", ""},
		{"\r\nb", "", "b"},
		{"A: " + long + "\r\nB: 2\r\n\r\nbody", "A B", "body"},
		{"A: 1\r\nB: " + strings.Repeat(long, 2) + "\r\n\r\nbody", "A", "B: " + strings.Repeat(long, 2) + "\r\n\r\nbody"},
		{"A: 1\r\nB: " + strings.Repeat("x\r\n ", 50_000) + "\r\n\r\nbody", "A B", " \r\n\r\nbody"},
	} {
		h, at, err := readHeader(bufio.NewReader(strings.NewReader(tc.in)), 150_000)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for i, f := range h.fields {
			names = append(names, f.name)
			if f.at != i+1 || f.nth != 1 || len(f.value) > maxFieldBytes {
				t.Errorf("field %+v", f)
			}
		}
		if strings.HasPrefix(tc.body, " \r\n") {
			continue // only that it ends is of interest
		}
		if got := strings.Join(names, " "); got != tc.names || tc.in[at:] != tc.body {
			t.Errorf("%.40q: fields %q, body %.40q", tc.in, got, tc.in[at:])
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Addresses: []string{"/x"}}, {Addresses: []string{"x"}, Timeout: 1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is fine", o)
		}
	}
}

// FuzzPeer lets a milter say anything.
func FuzzPeer(f *testing.F) {
	neg := "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x0f\xff\xff" // no replies before the end
	f.Add([]byte(neg + "\x00\x00\x00\x01a"))
	f.Add([]byte(neg + "\x00\x00\x00\x08hX\x00Yes\x00\x00\x00\x00\x01c"))
	f.Add([]byte(neg + "\x00\x00\x00\x0ay550 5.7.1"))
	f.Fuzz(func(t *testing.T, says []byte) {
		addr := enginetest.Listen(t, func(c net.Conn) {
			_, _ = c.Write(says)
			if tc, ok := c.(*net.TCPConn); ok {
				_ = tc.CloseWrite()
			}
			_, _ = io.Copy(io.Discard, c)
		})
		filter := newFilter(t, time.Second, addr)
		v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\nc"))
		if err != nil {
			return
		}
		if strings.ContainsAny(v.Text, "\r\n\x00") || strings.Contains(v.Header, "\r\n\r\n") ||
			v.Action == smtp.Reject && v.Code/100 != 5 || v.Action == smtp.Defer && v.Code/100 != 4 {
			t.Errorf("%q: %+v", says, v)
		}
	})
}
