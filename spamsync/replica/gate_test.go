package replica

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// master answers the handshake, and PSYNC with answer.
func master(answer string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			_, words, err := readCommand(r)
			if err != nil {
				return
			}
			if words[0] == "PSYNC" {
				_, _ = io.WriteString(c, "\n"+answer)
				_, _ = io.Copy(io.Discard, r)
				return
			}
			_, _ = io.WriteString(c, "+OK "+words[0]+"\r\n")
		}
	}
}

func startGate(t *testing.T, answer string) *Gate {
	t.Helper()
	g := NewGate("127.0.0.1:0", Address{Addr: serve(t, master(answer))}, quiet())
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, g.Run)
	g.Open()
	return g
}

const handshake = "*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n*3\r\n$8\r\nREPLCONF\r\n$4\r\ncapa\r\n$6\r\npsync2\r\n*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"

// through says what a replica reads before the gate goes silent or closes.
func through(t *testing.T, g *Gate, send string) (text string, closed bool) {
	t.Helper()
	c := dialTest(t, g.Addr())
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	_, _ = io.WriteString(c, send)
	var got bytes.Buffer
	_, err := io.Copy(&got, c)
	var timeout net.Error
	return got.String(), !errors.As(err, &timeout) || !timeout.Timeout()
}

func TestGate(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("a", 40)
	mark := strings.Repeat("e", 40)
	set := "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8\r\nFLUSHALL\r\n"
	for name, tc := range map[string]struct {
		answer, permit string
		passes         string // of what PSYNC was answered with; "" is none of it
		closed         bool
		refused        string
	}{
		"continue":           {"+CONTINUE " + id + "\r\n" + set, "", "+CONTINUE " + id + "\r\n" + set, false, ""},
		"full, not wanted":   {"+FULLRESYNC " + id + " 1\r\n$3\r\nRDB", "", "", true, "full copy"},
		"full of another":    {"+FULLRESYNC " + id + " 1\r\n$3\r\nRDB", strings.Repeat("b", 40), "", true, "full copy"},
		"full, wanted":       {"+FULLRESYNC " + id + " 1\r\n\n$3\r\nRDB" + set, id, "+FULLRESYNC " + id + " 1\r\n\n$3\r\nRDB" + set, false, ""},
		"full, diskless":     {"+FULLRESYNC " + id + " 1\r\n$EOF:" + mark + "\r\nRDB*1\r\n" + mark + set, id, "+FULLRESYNC " + id + " 1\r\n$EOF:" + mark + "\r\nRDB*1\r\n" + mark + set, false, ""},
		"flush":              {"+CONTINUE\r\n" + set + "*1\r\n$8\r\nflushall\r\n", "", "+CONTINUE\r\n" + set, true, "emptied (FLUSHALL)"},
		"flush after a full": {"+FULLRESYNC " + id + " 1\r\n$3\r\nRDB*1\r\n$7\r\nFLUSHDB\r\n", id, "+FULLRESYNC " + id + " 1\r\n$3\r\nRDB", true, "emptied"},
		"error":              {"-LOADING a moment\r\n", "", "-LOADING a moment\r\n", false, "LOADING"},
		"nonsense":           {"hello there\r\n", "", "", true, "hello there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t, tc.answer)
			g.Permit(tc.permit)
			got, closed := through(t, g, handshake)
			want := "+OK PING\r\n+OK AUTH\r\n+OK REPLCONF\r\n\n" + tc.passes
			if got != want || closed != tc.closed {
				t.Errorf("passed %q, closed %v\nwant   %q", got, closed, want)
			}
			r := g.Refused()
			if (r.Text == "") != (tc.refused == "") || !strings.Contains(r.Text, tc.refused) {
				t.Errorf("refused %q, want %q", r.Text, tc.refused)
			}
		})
	}
}

func TestGateStrangersAndClosed(t *testing.T) {
	t.Parallel()
	g := startGate(t, "+CONTINUE\r\n")
	if got, closed := through(t, g, "*1\r\n$4\r\nKEYS\r\n"); got != "" || !closed {
		t.Errorf("KEYS passed: %q, closed %v", got, closed)
	}
	g.Close()
	if got, closed := through(t, g, handshake); got != "" || !closed {
		t.Errorf("a closed gate passed %q, closed %v", got, closed)
	}
}

// TestGuard: however the stream is cut, everything up to the flush passes, and
// nothing of it.
func TestGuard(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"SET", "FLUSHAL", "FLUSHALLX", "HINCRBY", "*1\r\n$8\r\nFLUSHALL\r\n", "", "x", strings.Repeat("v", 40)})
		var before strings.Builder
		for range rapid.IntRange(0, 6).Draw(t, "commands") {
			before.WriteString(respCommand(rapid.SliceOfN(word, 1, 4).Draw(t, "words")...))
			if rapid.Bool().Draw(t, "newline") {
				before.WriteString("\n")
			}
		}
		all := before.String()
		flush := rapid.Bool().Draw(t, "flush")
		if flush {
			all += respCommand(rapid.SampledFrom([]string{"FLUSHALL", "flushdb", "SwapDB"}).Draw(t, "how"), "x") + respCommand("SET", "k", "v")
		}
		var out bytes.Buffer
		g := guard{w: &out}
		var err error
		for rest := all; rest != "" && err == nil; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			err = g.write([]byte(rest[:n]))
			rest = rest[n:]
		}
		if got := out.String(); got != before.String() || errors.Is(err, errFlush) != flush {
			t.Fatalf("passed %q, err %v\nwant   %q", got, err, before.String())
		}
	})
}

func respCommand(words ...string) string {
	var b strings.Builder
	b.WriteString("*" + strconv.Itoa(len(words)) + "\r\n")
	for _, w := range words {
		b.WriteString("$" + strconv.Itoa(len(w)) + "\r\n" + w + "\r\n")
	}
	return b.String()
}
