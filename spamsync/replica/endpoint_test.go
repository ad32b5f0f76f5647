package replica

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve starts a server that gives every connection to handle.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener
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
				handle(c)
			}()
		}
	}()
	return l.Addr().String()
}

// running runs fn until the test ends.
func running(t *testing.T, fn func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("end of run: %v", err)
		}
	})
}

func startEndpoint(t *testing.T) *Endpoint {
	t.Helper()
	e := NewEndpoint("127.0.0.1:0", quiet())
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, e.Run)
	return e
}

func dialTest(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

// named answers every line with its name and the line.
func named(name string) func(net.Conn) {
	return func(c net.Conn) {
		for s := bufio.NewScanner(c); s.Scan(); {
			_, _ = fmt.Fprintf(c, "%s %s\n", name, s.Text())
		}
	}
}

func ask(t *testing.T, c net.Conn, line string) (string, error) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestEndpointLeads(t *testing.T) {
	t.Parallel()
	a, b := serve(t, named("a")), serve(t, named("b"))
	e := startEndpoint(t)

	began := time.Now()
	if got, err := ask(t, dialTest(t, e.Addr()), "x"); err == nil {
		t.Errorf("without a home: answered %q", got)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("refused after %v", took)
	}

	e.Lead(Address{Addr: a})
	c := dialTest(t, e.Addr())
	if got, err := ask(t, c, "AUTH secret"); err != nil || got != "a AUTH secret\n" {
		t.Errorf("home a: %q, %v", got, err)
	}
	e.Lead(Address{Addr: b})
	if got, err := ask(t, c, "x"); err == nil {
		t.Errorf("a connection outlived its home: %q", got)
	}
	if got, err := ask(t, dialTest(t, e.Addr()), "x"); err != nil || got != "b x\n" {
		t.Errorf("home b: %q, %v", got, err)
	}
	e.Lead(Address{Addr: b}) // no change: nothing is closed
	if now, refused := e.Carried(); now == 0 || refused == 0 {
		t.Errorf("%d carried, %d refused", now, refused)
	}
}

func TestEndpointHomeThatDoesNotListen(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	e := startEndpoint(t)
	e.Lead(Address{Addr: addr})
	began := time.Now()
	if got, err := ask(t, dialTest(t, e.Addr()), "x"); err == nil {
		t.Errorf("answered %q", got)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("refused after %v", took)
	}
}
