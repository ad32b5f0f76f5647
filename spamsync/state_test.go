package spamsync_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"understudy/spamsync"
	"understudy/spamsync/statetest"
)

func TestMemoryConforms(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(*testing.T) statetest.Subject {
		now := time.Now()
		m := spamsync.NewMemory(func() time.Time { return now })
		return statetest.Subject{State: m, Advance: func(d time.Duration) { now = now.Add(d) }}
	})
}

func TestRedisConformsOnMiniredis(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(t *testing.T) statetest.Subject {
		t.Helper()
		m := miniredis.RunT(t)
		return statetest.Subject{State: openState(t, spamsync.RedisConfig{Address: m.Addr()}), Advance: m.FastForward}
	})
}

func TestRedisConformsOnRedis(t *testing.T) {
	t.Parallel()
	address := realRedis(t)
	statetest.Run(t, func(t *testing.T) statetest.Subject {
		t.Helper()
		c := redis.NewClient(&redis.Options{Addr: "unix", Dialer: unixDialer(address)})
		t.Cleanup(func() { _ = c.Close() })
		if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		return statetest.Subject{State: spamsync.NewRedis(c, c, 5*time.Second, 24*time.Hour)}
	})
}

// openState opens a configured state with a patient time-out.
func openState(t *testing.T, c spamsync.RedisConfig) *spamsync.Redis {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	c.TokenTTL = 24 * time.Hour
	s, closeState, err := spamsync.OpenRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeState() })
	return s
}

// realRedis starts redis-server on a socket of its own.
func realRedis(t *testing.T, args ...string) (socket string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	dir := t.TempDir()
	socket = filepath.Join(dir, "s")
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, append([]string{"--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready to accept connections") {
			go func() { // ends with the process
				for lines.Scan() {
				}
			}()
			return socket
		}
	}
	t.Fatal("redis-server did not start")
	return ""
}

func unixDialer(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
}

// TestWriteRefused: a replica that refuses writes is ErrReadOnly at once, and its
// reads go on.
func TestWriteRefused(t *testing.T) {
	t.Parallel()
	socket := realRedis(t, "--replicaof", "127.0.0.1", "1", "--replica-read-only", "yes")
	c := redis.NewClient(&redis.Options{Addr: "unix", Dialer: unixDialer(socket)})
	defer c.Close() //nolint:errcheck // test
	s := spamsync.NewRedis(c, c, 5*time.Second, 24*time.Hour)
	writes := map[string]func() error{
		"learn": func() error { _, err := s.Learn(t.Context(), "d", spamsync.Spam, []uint64{1}); return err },
		"touch": func() error { _, err := s.Touch(t.Context(), "k", time.Now(), time.Hour); return err },
		"add": func() error {
			return s.Add(t.Context(), []spamsync.Counter{{Key: "k", Field: "f", Delta: 1, TTL: time.Hour}})
		},
	}
	for name, write := range writes {
		if err := write(); !errors.Is(err, spamsync.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.First(t.Context(), "k"); err != nil {
		t.Errorf("read: %v", err)
	}
}

// TestAway: a server that takes connections and never answers costs the
// configured time and is ErrAway; one that refuses connections is, too.
func TestAway(t *testing.T) {
	t.Parallel()
	hung, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // test
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()                            //nolint:errcheck // test
	gone, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // test
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	for _, address := range []string{hung.Addr().String(), gone.Addr().String()} {
		m := miniredis.RunT(t)
		s := openState(t, spamsync.RedisConfig{Address: m.Addr(), WriteAddress: address, Timeout: 100 * time.Millisecond})
		start := time.Now()
		if _, err := s.Touch(t.Context(), "k", time.Now(), time.Hour); !errors.Is(err, spamsync.ErrAway) {
			t.Errorf("touch: %v", err)
		}
		if _, err := s.Learn(t.Context(), "d", spamsync.Ham, []uint64{1}); !errors.Is(err, spamsync.ErrAway) {
			t.Errorf("learn: %v", err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("two writes took %v", d)
		}
		// A server that did not answer is left alone for a while.
		start = time.Now()
		for range 100 {
			if err := s.Add(t.Context(), []spamsync.Counter{{Key: "k", Field: "f", Delta: 1, TTL: time.Hour}}); !errors.Is(err, spamsync.ErrAway) {
				t.Errorf("add: %v", err)
			}
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("a hundred writes took %v", d)
		}
		if _, err := s.First(t.Context(), "k"); err != nil {
			t.Errorf("reads go to the replica: %v", err)
		}
	}
}

func TestRedisConfigFaults(t *testing.T) {
	t.Parallel()
	c := spamsync.DefaultRedisConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for i, want := range []string{"", "a:1", "b:2", "c:3"} {
		c.Address, c.WriteListen, c.WriteAddress = []string{"", "a:1", "a:1", "a:1"}[i], []string{"", "", "b:2", "b:2"}[i], []string{"", "", "", "c:3"}[i]
		if got := c.WritesTo(); got != want {
			t.Errorf("writes to %q, want %q", got, want)
		}
	}
	err := spamsync.RedisConfig{Peer: "nowhere", DB: -1}.Validate()
	if err == nil {
		t.Fatal("no fault")
	}
	for _, key := range []string{"address:", "peer:", "timeout:", "token_ttl:", "db:"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%v: lacks %s", err, key)
		}
	}
}

// TestComesBack: after its rest a server is asked again.
func TestComesBack(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	s := openState(t, spamsync.RedisConfig{Address: m.Addr(), Timeout: 2 * time.Second})
	m.Close()
	if _, err := s.First(t.Context(), "k"); !errors.Is(err, spamsync.ErrAway) {
		t.Fatalf("closed: %v", err)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.First(t.Context(), "k"); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never asked again")
		}
	}
}

func TestMemoryForgetsExpired(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := spamsync.NewMemory(func() time.Time { return now })
	for i := range 200_000 {
		now = now.Add(time.Second)
		if err := m.Add(t.Context(), []spamsync.Counter{{Key: strconv.Itoa(i), Field: "n", Delta: 1, TTL: time.Minute}}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Touch(t.Context(), strconv.Itoa(i), now, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Records(); n > 5000 {
		t.Errorf("%d records of 200,000 are kept", n)
	}
}
