package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds how long a socket may take to say that somebody listens.
const dialTimeout = 2 * time.Second

// unixSocket is a bound admin socket: it owns the file at path and the lock
// beside it.
type unixSocket struct {
	*net.UnixListener
	path string
	lock *os.File
	// ino tells our socket from one that replaced it.
	ino uint64
}

// listenUnix binds cfg.Socket. A socket left by a dead daemon is replaced; a live
// one is ErrInUse; any other file is left alone. The socket is bound under
// another name, given its owner and mode, and only then renamed into place.
func listenUnix(cfg Config) (_ *unixSocket, err error) {
	mode, err := cfg.mode()
	if err != nil {
		return nil, err
	}
	uid, err := lookupOwner(cfg.Owner)
	if err != nil {
		return nil, fmt.Errorf("admin.owner: %w", err)
	}
	gid, err := lookupGroup(cfg.Group)
	if err != nil {
		return nil, fmt.Errorf("admin.group: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("create directory of admin.socket: %w", err)
	}
	lock, err := lockSocket(cfg.Socket)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := checkStale(cfg.Socket); err != nil {
		return nil, err
	}

	temp := cfg.Socket + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove left-over socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on admin.socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			_ = ln.Close()
			_ = os.Remove(temp)
		}
	}()
	// The mode last: until then only the daemon's own user may connect, as the
	// umask allows at most that much to others.
	if err := os.Chmod(temp, mode&0o700); err != nil {
		return nil, fmt.Errorf("set mode of admin.socket: %w", err)
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(temp, uid, gid); err != nil {
			return nil, fmt.Errorf("set owner of admin.socket (admin.owner, admin.group): %w", err)
		}
	}
	if err := os.Chmod(temp, mode); err != nil {
		return nil, fmt.Errorf("set mode of admin.socket: %w", err)
	}
	ino, err := inode(temp)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(temp, cfg.Socket); err != nil {
		return nil, fmt.Errorf("put admin.socket in place: %w", err)
	}
	return &unixSocket{UnixListener: ln, path: cfg.Socket, lock: lock, ino: ino}, nil
}

// Close stops listening, and removes the socket if it is still ours.
func (s *unixSocket) Close() error {
	err := s.UnixListener.Close()
	if ino, statErr := inode(s.path); statErr == nil && ino == s.ino {
		err = errors.Join(err, os.Remove(s.path))
	}
	// The lock file stays: removing it would let two daemons lock two files.
	return errors.Join(err, s.lock.Close())
}

// lockSocket takes the lock that makes two daemons starting at the same moment
// safe: between looking at a stale socket and replacing it nobody else may.
func lockSocket(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock admin.socket: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s%s", ErrInUse, path, holder(path))
		}
		return nil, fmt.Errorf("lock admin.socket: %w", err)
	}
	return f, nil
}

// checkStale returns nil where path is free or a socket nobody listens on.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at admin.socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("admin.socket: %s exists and is not a socket", path)
	}
	conn, err := dialUnix(path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%w: %s%s", ErrInUse, path, holder(path))
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("look at admin.socket: %w", err)
}

// dialUnix connects to the socket at path.
func dialUnix(path string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(context.Background(), "unix", path)
}

// holder names the process that listens on path, as far as the kernel says.
func holder(path string) string {
	conn, err := dialUnix(path)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	if c := peerOf(conn); c.PID > 0 {
		return fmt.Sprintf(" (process %d)", c.PID)
	}
	return ""
}

// inode returns the file's inode number.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Ino, nil
}
