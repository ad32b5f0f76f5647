package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

// Host is whoever tells a story: a *testing.T, or the benchmark program.
type Host interface {
	Helper()
	// Fatalf ends the story; it does not return.
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	// Cleanup registers f to run at the end of the story, last first.
	Cleanup(f func())
	// Context ends just before the cleanups run.
	Context() context.Context
	Failed() bool
}

// Dir makes a scratch directory that every user may enter. Its path is short
// enough for unix sockets within it (108 bytes).
func Dir(h Host) string {
	h.Helper()
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		h.Fatalf("make scratch directory: %v", err)
	}
	h.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			h.Logf("remove scratch directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		h.Fatalf("open scratch directory to daemons: %v", err)
	}
	return dir
}

// FreeAddr returns a loopback address nobody listens on, for a server that comes
// later. It is one of 127.0.0.0/8 other than 127.0.0.1: meanwhile no outgoing
// connection can be given its port.
func FreeAddr(h Host) string {
	h.Helper()
	l := Listen(h, fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// Listen listens on a TCP address.
func Listen(h Host, addr string) net.Listener {
	h.Helper()
	var config net.ListenConfig
	// A server that was just killed may hold its port for a moment.
	var l net.Listener
	Wait(h, 5*time.Second, "listen on "+addr, func() error {
		var err error
		l, err = config.Listen(h.Context(), "tcp", addr)
		return err
	})
	return l
}

// Wait asks check until it returns nil, and ends the story when limit has passed.
func Wait(h Host, limit time.Duration, what string, check func() error) {
	h.Helper()
	if err := poll(h.Context(), limit, check); err != nil {
		h.Fatalf("%s: %v", what, err)
	}
}

// poll asks check every few milliseconds until it returns nil; its last error
// comes back when limit has passed or ctx has ended.
func poll(ctx context.Context, limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-tick.C:
		}
	}
}

// write makes a file of a server's configuration.
func write(h Host, path, text string) {
	h.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.Fatalf("write configuration: %v", err)
	}
}

// mkdir makes directories, owned by uid where it is not negative.
func mkdir(h Host, uid int, paths ...string) {
	h.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(path, 0o755); err != nil {
			h.Fatalf("make directory: %v", err)
		}
		if uid >= 0 {
			if err := os.Chown(path, uid, uid); err != nil {
				h.Fatalf("give directory away: %v", err)
			}
		}
	}
}
