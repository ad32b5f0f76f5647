package durable

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process "+strings.TrimSpace(string(pid))) {
		t.Errorf("second lock: %v", err)
	}
	release()
	release()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// A copy of the descriptor, as a child has between fork and exec, does not keep the
// lock.
func TestLockIsReleasedForCopies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd:", err)
	}
	for _, e := range fds {
		name := filepath.Join("/proc/self/fd", e.Name())
		if target, err := os.Readlink(name); err != nil || target != filepath.Join(dir, lockName) {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		dup, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(dup) })
	}
	release()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := OS().MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "f")
	for _, want := range []string{"long content", "short", ""} {
		if err := WriteFile(OS(), name, 0o600, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(OS(), name, 100); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := ReadFile(OS(), filepath.Join(dir, "none"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if n, err := Free(dir); err != nil || n <= 0 {
		t.Errorf("free %d, %v", n, err)
	}
}

// TestConcurrent appends, reads, seals and removes at once; run it with -race.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	cfg := LogConfig{Dir: t.TempDir(), Name: "test", SegmentBytes: 1 << 20}
	l, _, stop := startLog(t, cfg, nil)
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 60 {
				body := strings.Repeat(string(rune('a'+w)), 100*(i+1))
				pos, err := l.Append(t.Context(), byte(w), []byte(body))
				if err != nil {
					t.Error(err)
					return
				}
				l.AppendLazy('L', []byte("done"))
				switch i % 20 {
				case 5:
					err = l.Seal(t.Context())
				case 7:
					l.Segments()
				default:
					var r Record
					if r, err = l.Read(pos); err == nil && string(r.Payload) != body {
						err = ErrCorrupt
					}
					if err == nil {
						_, err = l.Payload(pos)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range l.Segments() {
		err := l.Remove(s.ID)
		if s.Sealed == errors.Is(err, ErrActive) {
			t.Errorf("remove %+v: %v", s, err)
		}
	}
	stop()
}
