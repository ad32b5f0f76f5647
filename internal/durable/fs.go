package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is the file-system seam: everything the log, the spill files and the
// checkpoints do to a disk passes here, so that tests can cut the power at any
// step (package simfs). Methods may be called concurrently. Names are paths as
// the os package takes them.
type FS interface {
	// OpenFile opens name with the flags of os.OpenFile. A new name is durable
	// only after SyncDir of its directory.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newName by oldName; durable after SyncDir.
	Rename(oldName, newName string) error
	// Remove removes a file; durable after SyncDir.
	Remove(name string) error
	// ReadDir lists a directory sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// MkdirAll creates a directory and its parents. The new entries are synced.
	MkdirAll(name string, perm fs.FileMode) error
	// SyncDir makes the entries of a directory durable. Nil promises it.
	SyncDir(name string) error
}

// File is an open file. ReadAt and WriteAt may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sizer
	// Sync makes data and length durable (fdatasync). After an error the state of
	// the written pages is unknown: do not call it again and hope.
	Sync() error
}

// Sizer is the part of File that is about its length.
type Sizer interface {
	// Size is the length in bytes.
	Size() (int64, error)
	// Allocate reserves blocks so that the file is at least size bytes long and
	// writing into it needs no further space (where the file system can promise
	// that; copy-on-write ones cannot). New bytes read as zero. ErrNoSpace where
	// the space is missing; the length is then unspecified.
	Allocate(size int64) error
	// Truncate sets the length in bytes.
	Truncate(size int64) error
}

// OS is the real file system.
func OS() FS { return osFS{} }

// Free returns the bytes an ordinary process can still write in the file system
// that holds dir.
func Free(dir string) (bytes int64, err error) {
	n, err := freeBytes(dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return n, nil
}

// WriteFile replaces name by data, all or nothing: temporary file, sync, rename,
// sync of the directory. Nil promises that the new content is durable; after an
// error name holds the old or the new content, never a mixture. Calls for the
// same name must not overlap.
func WriteFile(fsys FS, name string, perm fs.FileMode, data []byte) error {
	tmp := name + tmpSuffix
	if err := writeSynced(fsys, tmp, perm, data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", tmp, err), ignoreNotExist(fsys.Remove(tmp)))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return errors.Join(fmt.Errorf("rename %s: %w", tmp, err), ignoreNotExist(fsys.Remove(tmp)))
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("sync directory of %s: %w", name, err)
	}
	return nil
}

// tmpSuffix marks files that are not complete. OpenLog removes its own leftovers.
const tmpSuffix = ".tmp"

func writeSynced(fsys FS, name string, perm fs.FileMode, data []byte) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// ReadFile returns the content of name, at most limitBytes of it: a longer file
// is ErrCorrupt.
func ReadFile(fsys FS, name string, limitBytes int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f, limitBytes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	return data, f.Close()
}

func readAll(f File, limitBytes int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limitBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d expected", ErrCorrupt, size, limitBytes)
	}
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
