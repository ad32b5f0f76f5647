package peer

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCarry(t *testing.T) {
	t.Parallel()
	server, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, "redis\n")
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	keyA, keyB := newTestKey(t), newTestKey(t)
	a, err := New(Config{
		Listen: []string{"127.0.0.1:0"}, Pins: []string{keyB.Pin().String()}, Ping: 50 * time.Millisecond, Silence: 2 * time.Second,
		Carry: map[string]CarryConfig{"redis": {Local: server.Addr().String()}},
	}, Deps{Site: "a", Key: keyA})
	if err != nil {
		t.Fatal(err)
	}
	runLink(t, a)
	b, err := New(Config{
		Address: a.Addrs()[0].String(), Pins: []string{keyA.Pin().String()}, Ping: 50 * time.Millisecond, Silence: 2 * time.Second,
		Carry: map[string]CarryConfig{"redis": {Listen: "127.0.0.1:0"}, "imap": {Listen: "127.0.0.1:0"}},
	}, Deps{Site: "b", Key: keyB})
	if err != nil {
		t.Fatal(err)
	}
	runLink(t, b)
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.Carrying()[Redis].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "redis\n" {
		t.Fatalf("%q, %v", line, err)
	}
	big := strings.Repeat("x", 1<<20)
	go func() {
		_, _ = io.WriteString(c, big)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(r); err != nil || string(got) != big {
		t.Errorf("%d bytes of %d, %v", len(got), len(big), err)
	}
	// What the other site does not offer ends at once.
	n, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.Carrying()[IMAP].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	_ = n.SetDeadline(time.Now().Add(10 * time.Second))
	if got, _ := io.ReadAll(n); len(got) != 0 {
		t.Errorf("a service that is not offered says %q", got)
	}
	for _, bad := range []Config{
		{Address: "h:1", Carry: map[string]CarryConfig{"redis": {Listen: "0.0.0.0:6380"}}},
		{Address: "h:1", Carry: map[string]CarryConfig{"ldap": {Local: "127.0.0.1:389"}}},
		{Address: "h:1", Carry: map[string]CarryConfig{"redis": {}}},
	} {
		if bad.withDefaults().Validate() == nil {
			t.Errorf("accepted: %+v", bad.Carry)
		}
	}
}
