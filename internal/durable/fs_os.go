package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// osFS is FS over the os package.
type osFS struct{}

var _ FS = osFS{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm) //nolint:gosec // names come from the owner of the directory
	if err != nil {
		return nil, wrapSpace(err)
	}
	return osFile{f}, nil
}

func (osFS) Rename(oldName, newName string) error { return wrapSpace(os.Rename(oldName, newName)) }

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// MkdirAll syncs the parent of every directory it creates: a spool that vanishes
// with its directory has lost what it answered for.
func (o osFS) MkdirAll(name string, perm fs.FileMode) error {
	err := os.Mkdir(name, perm)
	if errors.Is(err, fs.ErrNotExist) {
		if err = o.MkdirAll(filepath.Dir(name), perm); err != nil {
			return err
		}
		err = os.Mkdir(name, perm)
	}
	if errors.Is(err, fs.ErrExist) {
		info, statErr := os.Stat(name)
		if statErr == nil && info.IsDir() {
			return nil
		}
	}
	if err != nil {
		return wrapSpace(err)
	}
	return o.SyncDir(filepath.Dir(name))
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name) //nolint:gosec // as above
	if err != nil {
		return err
	}
	return wrapSpace(errors.Join(d.Sync(), d.Close()))
}

// osFile adds what os.File does not have.
type osFile struct{ *os.File }

var _ File = osFile{}

func (f osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, wrapSpace(err)
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Sync() error { return wrapSpace(control(f.File, syncData)) }

func (f osFile) Allocate(size int64) error {
	err := control(f.File, func(fd int) error { return allocate(fd, size) })
	if !errors.Is(err, errors.ErrUnsupported) {
		return wrapSpace(err)
	}
	return wrapSpace(f.fillZeros(size))
}

// fillZeros reserves space where fallocate does not exist: by writing it.
func (f osFile) fillZeros(size int64) error {
	have, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 256<<10)
	for have < size {
		n := min(int64(len(zeros)), size-have)
		if _, err := f.File.WriteAt(zeros[:n], have); err != nil {
			return err
		}
		have += n
	}
	return nil
}

// control runs fn on the descriptor, again as long as a signal interrupts it.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		for {
			if inner = fn(int(fd)); !errors.Is(inner, syscall.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return inner
}

// wrapSpace gives ENOSPC and EDQUOT their sentinel.
func wrapSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the types differ between systems
}
