package wire_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"understudy/imapsync/wire"
)

// peer is a server that plays a script, the hazards of real ones among them.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

const modern = "IMAP4rev1 SASL-IR AUTH=PLAIN ENABLE QRESYNC CONDSTORE UIDPLUS MOVE MULTIAPPEND LITERAL+ ESEARCH LIST-EXTENDED LIST-STATUS IDLE NOTIFY NAMESPACE UNSELECT"

// scripted starts a server with these capabilities, which lets anybody in and then plays
// script; the connection ends with it.
func scripted(t *testing.T, caps string, script func(p *peer)) wire.Config {
	t.Helper()
	return raw(t, func(p *peer) {
		p.say("* OK [CAPABILITY " + caps + "] ready")
		p.say(p.want("AUTHENTICATE PLAIN") + " OK [CAPABILITY " + caps + "] logged in")
		if strings.Contains(caps, "ENABLE") && strings.Contains(caps, "CONDSTORE") {
			tag := p.want("ENABLE")
			if strings.Contains(caps, "QRESYNC") {
				p.say("* ENABLED QRESYNC CONDSTORE")
			}
			p.ok(tag)
		}
		script(p)
	})
}

// raw starts a server that plays script from the greeting on, for one connection.
func raw(t *testing.T, script func(p *peer)) wire.Config {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		defer func() {
			if r := recover(); r != nil && r != any(errGone) {
				panic(r)
			}
		}()
		script(&peer{t: t, conn: conn, r: bufio.NewReader(conn)})
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return wire.Config{Address: "imap://" + l.Addr().String(), Timeout: 5 * time.Second}
}

var errGone = errors.New("client is gone")

// say sends lines.
func (p *peer) say(lines ...string) {
	for _, line := range lines {
		if _, err := io.WriteString(p.conn, line+"\r\n"); err != nil {
			panic(errGone)
		}
	}
}

func (p *peer) line() string {
	s, err := p.r.ReadString('\n')
	if err != nil {
		panic(errGone)
	}
	return strings.TrimRight(s, "\r\n")
}

// want reads a command that must start with this, and returns its tag.
func (p *peer) want(command string) string {
	tag, rest, _ := strings.Cut(p.line(), " ")
	if !strings.HasPrefix(rest, command) {
		p.t.Errorf("client says %q where %q should come", rest, command)
		panic(errGone)
	}
	return tag
}

func (p *peer) ok(tag string) { p.say(tag + " OK done") }

// literal reads one of the length that the line ends with.
func (p *peer) literal(line string) string {
	digits := strings.TrimRight(line[strings.LastIndexByte(line, '{')+1:], "+}")
	n, err := strconv.Atoi(digits)
	if err != nil {
		p.t.Errorf("no literal in %q", line)
		panic(errGone)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		panic(errGone)
	}
	return string(b)
}

// selects answers a SELECT.
func (p *peer) selects(extra ...string) {
	tag := p.want("SELECT")
	p.say("* FLAGS (\\Seen \\Deleted)", "* 3 EXISTS", "* OK [UIDVALIDITY 77] v", "* OK [UIDNEXT 10] n", "* OK [HIGHESTMODSEQ 500] m")
	p.say(extra...)
	p.say(tag + " OK [READ-WRITE] selected")
}

func dial(t *testing.T, conf wire.Config) *wire.Client {
	t.Helper()
	c, err := wire.Dial(t.Context(), conf, wire.Login{User: "eva", Secret: "s"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func opened(t *testing.T, conf wire.Config) *wire.Client {
	t.Helper()
	c := dial(t, conf)
	if _, err := c.Select("INBOX", wire.SelectOptions{}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, not %v", err, want)
	}
}
