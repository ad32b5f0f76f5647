package replica

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
	"understudy/spamsync"
)

// fakeRedis answers what this package asks, and notes it.
type fakeRedis struct {
	addr string

	mu   sync.Mutex
	role string
	said []string
	// before, where set, runs before a command is answered; false hangs up.
	before func(command string) bool
}

func newFakeRedis(t *testing.T, role string) *fakeRedis {
	t.Helper()
	f := &fakeRedis{role: role}
	f.addr = serve(t, f.handle)
	return f
}

// commands are those that were sent, without what every look asks.
func (f *fakeRedis) commands() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.said)
}

func (f *fakeRedis) handle(c net.Conn) {
	for r := bufio.NewReader(c); ; {
		words, err := readWords(r)
		if err != nil {
			return
		}
		command := strings.ToUpper(strings.Join(words, " "))
		f.mu.Lock()
		before, role := f.before, f.role
		switch strings.ToLower(words[0]) {
		case "hello", "client", "ping", "info", "get":
		default:
			f.said = append(f.said, command)
		}
		if strings.HasPrefix(command, "CLIENT PAUSE") || command == "CLIENT UNPAUSE" {
			f.said = append(f.said, command)
		}
		f.mu.Unlock()
		if before != nil && !before(command) {
			return
		}
		answer := "+OK\r\n"
		switch {
		case strings.HasPrefix(command, "HELLO"), strings.HasPrefix(command, "FAILOVER"):
			answer = "-ERR unknown command\r\n"
		case command == "INFO REPLICATION":
			answer = bulk("# Replication\r\nrole:" + role + "\r\nmaster_replid:" + strings.Repeat("a", 40) +
				"\r\nmaster_replid2:" + strings.Repeat("b", 40) + "\r\nmaster_repl_offset:100\r\nsecond_repl_offset:51\r\nrepl_backlog_first_byte_offset:1\r\nrepl_backlog_histlen:100\r\n" +
				"connected_slaves:1\r\nslave0:ip=127.0.0.1,port=6380,state=online,offset=100,lag=0\r\n")
		case strings.HasPrefix(command, "INFO"):
			answer = bulk("# Nothing\r\n")
		case strings.HasPrefix(command, "GET"):
			answer = "$-1\r\n"
		case strings.HasPrefix(command, "CONFIG GET"):
			answer = "*0\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

// readWords reads one command.
func readWords(r *bufio.Reader) ([]string, error) {
	number := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil || len(line) < 3 {
			return 0, io.ErrUnexpectedEOF
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number()
	if err != nil || n < 1 {
		return nil, io.ErrUnexpectedEOF
	}
	words := make([]string, n)
	for i := range words {
		size, err := number()
		if err != nil {
			return nil, err
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(r, word); err != nil {
			return nil, err
		}
		words[i] = string(word[:size])
	}
	return words, nil
}

// noAlarms ignores alarms.
type noAlarms struct{}

var _ smtp.Alarms = noAlarms{}

func (noAlarms) Raise(string, string) {}
func (noAlarms) Clear(string)         {}

// newTestKeeper is a keeper of two servers. It listens, and does not run.
func newTestKeeper(t *testing.T, local, peer string) *Keeper {
	t.Helper()
	k, err := New(Config{GateListen: "127.0.0.1:0", DetachAfter: time.Second}, Deps{
		Site: "b", Peer: "a", Redis: spamsync.RedisConfig{Address: local, Peer: peer, WriteListen: "127.0.0.1:0"},
		Dir: t.TempDir(), Alarms: noAlarms{}, Logger: quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = k.Close()
		_ = k.endpoint.l.Close()
		_ = k.gate.l.Close()
	})
	return k
}

// TestCutoverEndsBeforeThePause: while writes are held back nothing is set that can be
// set before, and a REPLICAOF without an answer is given up before the pause ends.
func TestCutoverEndsBeforeThePause(t *testing.T) {
	t.Parallel()
	local, home := newFakeRedis(t, "master"), newFakeRedis(t, "master")
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	local.before = func(command string) bool {
		if strings.HasPrefix(command, "REPLICAOF") {
			<-done
		}
		return true
	}
	k := newTestKeeper(t, local.addr, home.addr)
	const limit = 300 * time.Millisecond
	began := time.Now()
	err := k.cutover(t.Context(), look(t.Context(), k.peer), limit, func(context.Context) error { return nil })
	took := time.Since(began)
	if err == nil || took > limit+700*time.Millisecond {
		t.Errorf("%v after %v, with writes held back for %v", err, took, limit+time.Second)
	}
	said := local.commands()
	paused := slices.IndexFunc(said, func(s string) bool { return strings.HasPrefix(s, "CLIENT PAUSE") })
	if paused < 0 || len(said) < paused+3 || !strings.HasPrefix(said[paused+1], "REPLICAOF") || said[len(said)-1] != "CLIENT UNPAUSE" {
		t.Errorf("commands: %q", said)
	}
	// A REPLICAOF that is executed late must not have what is here replaced.
	k.gate.mu.Lock()
	defer k.gate.mu.Unlock()
	if k.gate.open {
		t.Error("the gate is open")
	}
}
