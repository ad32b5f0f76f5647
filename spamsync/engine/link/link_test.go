package link

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"127.0.0.1:783": "tcp 127.0.0.1:783", "tcp://[::1]:783": "tcp [::1]:783", "inet:host:1": "tcp host:1",
		"/run/x": "unix /run/x", "unix:/run/x": "unix /run/x", "unix:///run/x": "unix /run/x",
		"host": "", "": "", ":25": "", "unix:run/x": "", "host:": "",
	} {
		network, address, err := Parse(in)
		got := strings.TrimSpace(network + " " + address)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
}

// listen accepts and does what serve does.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed by the test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestDial(t *testing.T) {
	t.Parallel()
	hang := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	flood := listen(t, func(c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	read := func(ctx context.Context, server string) (int64, error) {
		c, err := Dial(ctx, server, 10_000)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetReadDeadline(time.Time{}) // the context's stays
		return io.Copy(io.Discard, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := read(ctx, hang); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hung server: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	timer := time.AfterFunc(20*time.Millisecond, cancel)
	defer timer.Stop()
	if _, err := read(ctx, hang); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if n, err := read(t.Context(), flood); !errors.Is(err, ErrTooLong) || n != 10_000 {
		t.Errorf("flood: %d, %v", n, err)
	}
}

func TestServers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := NewServers([]string{"a", "b", "c"}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var asked []string
		down := map[string]bool{"a": true}
		ask := func(ctx context.Context, server string) error {
			asked = append(asked, server)
			if down[server] {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		try := func(want string, took time.Duration, ok bool) {
			t.Helper()
			asked = nil
			began := time.Now()
			err := s.Try(t.Context(), 9*time.Second, ask)
			if got := strings.Join(asked, ""); got != want || (err == nil) != ok || time.Since(began) != took {
				t.Errorf("asked %s in %v: %v; want %s in %v", got, time.Since(began), err, want, took)
			}
		}
		try("ab", 3*time.Second, true)
		try("b", 0, true) // a rests
		down["b"], down["c"] = true, true
		try("bca", 9*time.Second, false)
		down = nil
		try("a", 0, true) // all rest: in order
		try("a", 0, true)
		<-time.After(time.Minute)
		try("a", 0, true)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		asked = nil
		if err := s.Try(ctx, time.Second, func(ctx context.Context, server string) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		try("a", 0, true) // who gave up is not the server
	})
	if _, err := NewServers(nil, 0); err == nil {
		t.Error("no servers are fine")
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		" a\r\nb\x00c\x7f\xff ": "a b?c??", "ünï": "ünï", strings.Repeat("ü", 100): strings.Repeat("ü", 10), "\u0085": "?",
	} {
		if got := Text(in, 21); got != want {
			t.Errorf("%q: got %q", in, got)
		}
	}
	if got := Name("A B\r\n(1)" + strings.Repeat("x", 200)); got != "A_B___1_"+strings.Repeat("x", 120) {
		t.Errorf("got %q", got)
	}
	if got := Redact("http://u:secret@h/"); strings.Contains(got, "secret") {
		t.Error(got)
	}
}
