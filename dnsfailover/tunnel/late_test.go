package tunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"understudy/dnsfailover"
	"understudy/internal/peer/peertest"
)

// A forged header is one also where it comes in pieces.
func TestForgedHeaderInPieces(t *testing.T) {
	t.Parallel()
	w := start(t, "imap", nil, peertest.Options{})
	w.move(0)
	for _, pieces := range [][2]string{
		{"PRO", "XY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"\r\n\r\n\x00\r\n", "QUIT\n\x21\x11\x00\x0c............"},
	} {
		for at := range 2 {
			c, r := w.connect(t, at)
			greeting(t, c, r)
			if _, err := io.WriteString(c, pieces[0]); err != nil {
				t.Fatal(err)
			}
			// The echo says that the first piece has passed.
			if _, err := io.ReadFull(r, make([]byte, len(pieces[0]))); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, pieces[1]); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(r); !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
				t.Errorf("site %d, a forged header in pieces: %q, %v", at, rest, err)
			}
		}
	}
	// What only begins like one is passed on.
	c, r := w.connect(t, 0)
	greeting(t, c, r)
	for _, piece := range []string{"PR", "OBE\r\n", "PROXY\r\n"} {
		if _, err := io.WriteString(c, piece); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, len(piece))); err != nil {
			t.Fatalf("%q: %v", piece, err)
		}
	}
}

// A client whose way is found after the daemon's patience is over does not keep it.
func TestLateClientDoesNotKeepADaemonThatStops(t *testing.T) {
	t.Parallel()
	b := newBackend(t, "a")
	tn, err := New(Config{StopDrain: 50 * time.Millisecond, Services: map[string]ServiceConfig{"imap": {
		Listen: []string{"127.0.0.1:0"}, Local: b.l.Addr().String(), AcceptProxyFrom: []string{"127.0.0.0/8"},
	}}}, Deps{Site: "a", View: func() dnsfailover.View { return dnsfailover.View{Active: "a", Role: dnsfailover.Active} }})
	if err != nil {
		t.Fatal(err)
	}
	if err := tn.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- tn.Run(ctx) }()
	dial := func() net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", tn.Addrs()["imap"][0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	late, served := dial(), dial()
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 143\r\n"
	// It was accepted after the late one.
	r := bufio.NewReader(served)
	if _, err := io.WriteString(served, header); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	// Its end says that the patience is over.
	if _, err := io.ReadAll(r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if _, err := io.WriteString(late, header); err != nil {
		t.Fatal(err)
	}
	limit := time.NewTimer(8 * time.Second)
	defer limit.Stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-limit.C:
		t.Error("a late client keeps the daemon")
		_ = late.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
