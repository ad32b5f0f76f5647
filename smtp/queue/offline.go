package queue

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"understudy/internal/durable"
)

// Offline reads the spool of a daemon that is not running. It writes nothing, not
// even a lock: what a running daemon changes meanwhile may be missed or fail to be
// read.
type Offline struct{ s *Spool }

// OpenOffline reads the spool in dir.
func OpenOffline(dir string) (*Offline, error) {
	return openOffline(dir, durable.OS())
}

func openOffline(dir string, fsys durable.FS) (*Offline, error) {
	cfg := DefaultConfig()
	cfg.Dir, cfg.AllowBodyAccess = dir, true
	s := newSpool(cfg, Deps{FS: readOnly{fsys}})
	for _, d := range []string{s.logDir(), s.spillDir()} {
		if _, err := s.fs.ReadDir(d); err != nil {
			return nil, fmt.Errorf("no spool in %s: %w", dir, err)
		}
	}
	if err := s.open(Deps{}); err != nil {
		return nil, err
	}
	return &Offline{s}, nil
}

// Close closes the files.
func (o *Offline) Close() error { return o.s.Close() }

// List returns the selected messages, oldest first. Nothing is active in a dead
// daemon.
func (o *Offline) List(ctx context.Context, sel Selection) ([]Summary, error) {
	return o.s.List(ctx, sel)
}

// Show returns all about one message. ErrNotFound.
func (o *Offline) Show(ctx context.Context, id string) (Detail, error) { return o.s.Show(ctx, id) }

// Body returns the stored bytes of one message. ErrNotFound.
func (o *Offline) Body(ctx context.Context, id string) (io.ReadCloser, error) {
	return o.s.Body(ctx, id)
}

// Stats counts the queue.
func (o *Offline) Stats(ctx context.Context) (Stats, error) { return o.s.Stats(ctx) }

// Export is as Spool.Export.
func (o *Offline) Export(ctx context.Context, w io.Writer, sel Selection) (int, error) {
	return o.s.Export(ctx, w, sel)
}

// readOnly is a file system that forgets what is written to it: recovery may keep
// damaged spans aside or tidy up, and here that must not happen.
type readOnly struct{ durable.FS }

var _ durable.FS = readOnly{}

func (r readOnly) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if flag&os.O_TRUNC == 0 {
		f, err := r.FS.OpenFile(name, os.O_RDONLY, 0)
		if err == nil {
			return unwritten{f}, nil
		}
		if flag&os.O_CREATE == 0 {
			return nil, err
		}
	}
	return nowhere{}, nil
}

func (readOnly) Rename(string, string) error        { return nil }
func (readOnly) Remove(string) error                { return nil }
func (readOnly) MkdirAll(string, fs.FileMode) error { return nil }
func (readOnly) SyncDir(string) error               { return nil }

// unwritten is a file that is only read.
type unwritten struct{ durable.File }

func (unwritten) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (unwritten) Sync() error                            { return nil }
func (unwritten) Allocate(int64) error                   { return nil }
func (unwritten) Truncate(int64) error                   { return nil }

// nowhere is a new file that does not come to be.
type nowhere struct{}

var _ durable.File = nowhere{}

func (nowhere) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Close() error                           { return nil }
func (nowhere) Size() (int64, error)                   { return 0, nil }
func (nowhere) Sync() error                            { return nil }
func (nowhere) Allocate(int64) error                   { return nil }
func (nowhere) Truncate(int64) error                   { return nil }
