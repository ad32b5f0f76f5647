package learn

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"understudy/spamsync"
)

// spamdSays serves one connection with an answer, and returns what was asked.
func spamdSays(t *testing.T, answer string) (address string, asked <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		r := bufio.NewReader(conn)
		var head strings.Builder
		for {
			line, err := r.ReadString('\n')
			head.WriteString(line)
			if err != nil || line == "\r\n" {
				break
			}
		}
		body := make([]byte, len(mail("x")))
		_, _ = io.ReadFull(r, body)
		out <- head.String() + string(body)
		_, _ = io.WriteString(conn, answer)
	}()
	return l.Addr().String(), out
}

func TestSpamd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer  string
		want    Outcome
		ok      bool
		waiting bool
	}{
		{"SPAMD/1.1 0 EX_OK\r\nDidSet: local\r\nContent-length: 2\r\n\r\n\r\n", Learned, true, false},
		{"SPAMD/1.1 0 EX_OK\r\nContent-length: 2\r\n\r\n\r\n", Known, true, false},
		{"SPAMD/1.0 69 Service Unavailable: TELL commands are not enabled\r\n", 0, false, true},
		{"SPAMD/1.0 65 Data format error\r\n", 0, false, false},
		{"220 mx ESMTP\r\n", 0, false, true},
		{"", 0, false, true},
	} {
		address, asked := spamdSays(t, c.answer)
		teacher, err := NewSpamd(address, "vmail")
		if err != nil {
			t.Fatal(err)
		}
		got, err := teacher.Teach(t.Context(), spamsync.Ham, "d", []byte(mail("x")))
		if got != c.want || (err == nil) != c.ok || errors.Is(err, ErrAway) != c.waiting {
			t.Errorf("%q: %v, %v", c.answer, got, err)
		}
		q := <-asked
		for _, part := range []string{"TELL SPAMC/1.5\r\n", "Message-class: ham\r\n", "Set: local\r\n", "User: vmail\r\n", "\r\n\r\n" + mail("x")} {
			if !strings.Contains(q, part) {
				t.Errorf("%q is missing in %q", part, q)
			}
		}
	}
}

func TestClassifier(t *testing.T) {
	t.Parallel()
	state := spamsync.NewMemory(nil)
	teacher := All{ClassifierTeacher{Classifier: &spamsync.Classifier{State: state, MinLearns: 1}}}
	teach := func(want Outcome) {
		t.Helper()
		if got, err := teacher.Teach(t.Context(), spamsync.Spam, "digest", []byte(mail("x"))); got != want || err != nil {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	teach(Learned)
	teach(Known)
	_, learned, err := state.Tokens(t.Context(), nil)
	if err != nil || learned.Spam != 1 {
		t.Errorf("%+v, %v", learned, err)
	}
	state.Fail(nil, spamsync.ErrReadOnly)
	if _, err := teacher.Teach(t.Context(), spamsync.Spam, "other", []byte(mail("y"))); !errors.Is(err, ErrAway) {
		t.Errorf("a read-only state: %v", err)
	}
}
