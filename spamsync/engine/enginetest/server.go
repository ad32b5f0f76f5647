package enginetest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Listen accepts on a port of its own and serves each connection, until the end
// of the test; then it waits for all of them.
func Listen(tb testing.TB, serve func(net.Conn)) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed by the test's end
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	ended := false
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if ended {
				mu.Unlock()
				_ = c.Close()
				continue
			}
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		ended = true
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// Start starts a server that behaves as told; judge serves one connection as the
// protocol wants it, and is given a writer that ends early where the answer is to
// be cut.
func Start(tb testing.TB, b Behaviour, judge func(r net.Conn, w io.Writer)) string {
	tb.Helper()
	switch b {
	case Judge:
		return Listen(tb, func(c net.Conn) { judge(c, c) })
	case Truncated:
		return Listen(tb, func(c net.Conn) { judge(c, &cut{c: c, left: 9}) })
	case Garbage:
		return Listen(tb, func(c net.Conn) {
			_, _ = io.WriteString(c, "\x00\x00\x00\x02\xff\xfe SSH-2.0 \r\n\r\n{\"action\":\r\n")
			_, _ = io.Copy(io.Discard, c)
		})
	case Hang:
		return Listen(tb, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	case Deaf:
		return listenDeaf(tb)
	case Closed:
		return Listen(tb, func(net.Conn) {})
	case Flood:
		return Listen(tb, func(c net.Conn) {
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
			defer wg.Wait()
			defer func() { _ = c.Close() }()
			line := []byte("HTTP/1.1 200 OK\r\nSPAMD/1.1 0 EX_OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
			for {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		})
	case Refuse:
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
		if err != nil {
			tb.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}
	tb.Fatalf("unknown behaviour %d", b)
	return ""
}

// listenDeaf lets the kernel accept and does nothing itself.
func listenDeaf(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed by the test's end
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// cut ends the connection in the middle of what is written.
type cut struct {
	c    net.Conn
	left int
}

func (w *cut) Write(p []byte) (int, error) {
	if len(p) < w.left {
		w.left -= len(p)
		return w.c.Write(p)
	}
	_, _ = w.c.Write(p[:w.left])
	w.left = 0
	_ = w.c.Close()
	return 0, io.ErrClosedPipe
}
