package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// lockName is the lock file inside a locked directory. It stays after release:
// removing it would let two processes lock two different files of that name.
const lockName = "lock"

// Lock makes the caller the only process that writes in dir, until release or the
// end of the process, however it ends (flock: no stale locks). ErrLocked names the
// process that holds it. release may be called more than once.
func Lock(dir string) (release func(), err error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the owner's own directory
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := make([]byte, 20)
		n, _ := io.ReadFull(f, holder) // best effort: it only names the holder
		pid := strings.TrimSpace(string(holder[:n]))
		return nil, errors.Join(fmt.Errorf("%w: %s is held by process %s", ErrLocked, dir, pid), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	// The pid is information only, so it is not synced.
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
	}
	return sync.OnceFunc(func() {
		// Closing is not enough: a child that was forked and has not reached its exec
		// yet holds a copy of the descriptor, and with it the lock.
		_ = control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_UN) })
		_ = f.Close()
	}), nil
}
