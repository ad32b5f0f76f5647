package peer

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel bounds bytes that nobody acknowledges, also where the other site dialled.
func TestAcceptedConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	key := newTestKey(t)
	l := site(t, key, nil)
	c, err := client(t, l, key, nil)
	if err := answered(c, err); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) == 0 {
		t.Fatal("no connection")
	}
	for conn := range l.conns {
		rc, err := conn.raw.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if cerr := rc.Control(func(fd uintptr) {
			ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
			if err != nil || ms != int(unansweredLimit.Milliseconds()) {
				t.Errorf("TCP_USER_TIMEOUT is %d ms, %v", ms, err)
			}
		}); cerr != nil {
			t.Fatal(cerr)
		}
	}
}
