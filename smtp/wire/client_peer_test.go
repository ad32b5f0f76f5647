package wire

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clientPeer is the far end of a scripted conversation. A step that fails ends
// the script; the test sees it as a lost connection and by the recorded error.
type clientPeer struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
	got  []string // command lines and bodies, in order
}

// say writes lines, each ended by CRLF.
func (p *clientPeer) say(lines ...string) {
	_, _ = io.WriteString(p.conn, strings.Join(lines, "\r\n")+"\r\n") // the client may have gone
}

// hear reads one line and wants it to begin with prefix.
func (p *clientPeer) hear(prefix string) string {
	line, err := p.br.ReadString('\n')
	if err != nil {
		p.t.Errorf("peer: waiting for %q: %v", prefix, err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	if !strings.HasPrefix(line, prefix) {
		p.t.Errorf("peer: got %q, want %q", line, prefix)
	}
	p.got = append(p.got, line)
	return line
}

// chunk reads a BDAT command and its content.
func (p *clientPeer) chunk() string { return p.content(p.hear("BDAT ")) }

// content reads what a BDAT command announced.
func (p *clientPeer) content(command string) string {
	f := strings.Fields(command)
	if len(f) < 2 {
		return ""
	}
	n, _ := strconv.Atoi(f[1])
	b := make([]byte, n)
	if _, err := io.ReadFull(p.br, b); err != nil {
		p.t.Errorf("peer: chunk: %v", err)
	}
	p.got = append(p.got, string(b))
	return string(b)
}

// body reads up to the end of data.
func (p *clientPeer) body() string {
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		if err != nil || line == ".\r\n" {
			p.got = append(p.got, b.String())
			return b.String()
		}
		b.WriteString(line)
	}
}

// greet does banner and EHLO with the given extensions.
func (p *clientPeer) greet(ext ...string) {
	p.say("220 peer.test ESMTP")
	p.hear("")
	p.ehlo(ext...)
}

func (p *clientPeer) ehlo(ext ...string) {
	all := append([]string{"peer.test"}, ext...)
	for i, e := range all {
		sep := "-"
		if i == len(all)-1 {
			sep = " "
		}
		p.say("250" + sep + e)
	}
}

// drain reads whatever still comes.
func (p *clientPeer) drain() { _, _ = io.Copy(io.Discard, p.br) }

func newTestReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// withPeer runs script as the server of a new client.
func withPeer(t *testing.T, cfg ClientConfig, script func(p *clientPeer)) (*Client, *clientPeer, error) {
	t.Helper()
	near, far := net.Pipe()
	p := &clientPeer{t: t, conn: far, br: bufio.NewReader(far)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer far.Close() //nolint:errcheck // the end of a script
		script(p)
	}()
	c, err := NewClient(t.Context(), near, cfg)
	t.Cleanup(func() {
		if c != nil {
			c.Abort()
		}
		_ = near.Close()
		<-ended
	})
	return c, p, err
}

func mustPeer(t *testing.T, cfg ClientConfig, script func(p *clientPeer)) (*Client, *clientPeer) {
	t.Helper()
	c, p, err := withPeer(t, cfg, script)
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

// text makes a message to the given recipients.
func text(body string, to ...string) *Outgoing {
	m := &Outgoing{
		From: "s@src.test", SizeBytes: int64(len(body)),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil },
	}
	for _, a := range to {
		m.To = append(m.To, OutgoingRecipient{Address: a})
	}
	return m
}

// sendOne sends m and waits for its answers.
func sendOne(t *testing.T, c *Client, m *Outgoing) []Answer {
	t.Helper()
	ch := make(chan []Answer, 1)
	_ = c.Send(t.Context(), m, func(a []Answer) { ch <- a })
	return receive(t, ch)
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("no answer in 20 s")
		panic("unreachable")
	}
}

// codes renders answers for comparison: "250 550@RCPT -@DATA".
func codes(answers []Answer) string {
	var out []string
	for _, a := range answers {
		s := "-"
		if a.Code != 0 {
			s = strconv.Itoa(a.Code)
		}
		if a.Stage != StageFinal || a.Code == 0 {
			s += "@" + a.Stage.String()
		}
		if a.Behind {
			s += "(behind)"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}
