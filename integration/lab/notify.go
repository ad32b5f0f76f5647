package lab

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Notify is a service manager's end of sd_notify(3): it remembers what a daemon
// told it. Its methods may be called concurrently.
type Notify struct {
	// Socket is the value of NOTIFY_SOCKET.
	Socket string

	conn *net.UnixConn
	done sync.WaitGroup

	mu   sync.Mutex
	told []string
	news chan struct{}
}

// StartNotify listens in dir.
func StartNotify(h Host, dir string) *Notify {
	h.Helper()
	n := &Notify{Socket: filepath.Join(dir, "notify"), news: make(chan struct{})}
	var err error
	n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.Socket, Net: "unixgram"})
	if err != nil {
		h.Fatalf("listen for notifications: %v", err)
	}
	n.done.Go(n.read)
	h.Cleanup(func() {
		_ = n.conn.Close()
		n.done.Wait()
	})
	return n
}

func (n *Notify) read() {
	buf := make([]byte, 4096)
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.told = append(n.told, strings.Split(strings.TrimSpace(string(buf[:size])), "\n")...)
		close(n.news)
		n.news = make(chan struct{})
		n.mu.Unlock()
	}
}

// Told returns every assignment received since the last Forget, in order.
func (n *Notify) Told() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told)
}

// Forget drops what was told so far.
func (n *Notify) Forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = nil
}

// Wait waits for an assignment such as "READY=1"; false when limit passed.
func (n *Notify) Wait(assignment string, limit time.Duration) bool {
	return n.wait(assignment, limit, nil)
}

// wait waits for an assignment; false when limit passed or gone was closed first.
func (n *Notify) wait(assignment string, limit time.Duration, gone <-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		n.mu.Lock()
		told, news := slices.Contains(n.told, assignment), n.news
		n.mu.Unlock()
		if told {
			return true
		}
		select {
		case <-news:
		case <-gone:
			return false
		case <-timer.C:
			return false
		}
	}
}
