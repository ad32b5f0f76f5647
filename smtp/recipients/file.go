package recipients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// filePoll is how often a file is looked at where no notification comes (NFS).
const filePoll = 15 * time.Second

// fileSettle is how long a file must be quiet before it is read: editors and
// rsync without --inplace need it not, others write in pieces.
const fileSettle = 200 * time.Millisecond

// file is a fetcher that reads a file, only when it has changed.
type file struct {
	path   string
	format string
	max    int64
	read   os.FileInfo // as of the last successful read
}

var (
	_ fetcher = (*file)(nil)
	_ watcher = (*file)(nil)
)

func (f *file) fetch(ctx context.Context, l *listing) (time.Time, error) {
	r, err := os.Open(f.path)
	if err != nil {
		return time.Time{}, fmt.Errorf("open list: %w", err)
	}
	defer r.Close() //nolint:errcheck // read only
	before, err := r.Stat()
	if err != nil {
		return time.Time{}, fmt.Errorf("stat list: %w", err)
	}
	if before.IsDir() {
		return time.Time{}, fmt.Errorf("%s is a directory", f.path)
	}
	if f.read != nil && unchanged(f.read, before) {
		return time.Time{}, errUnchanged
	}
	if err := l.read(ctx, r, f.format, f.max); err != nil {
		return time.Time{}, err
	}
	after, err := r.Stat()
	if err != nil {
		return time.Time{}, fmt.Errorf("stat list: %w", err)
	}
	if !unchanged(before, after) {
		return time.Time{}, errors.New("the file changed while it was read")
	}
	f.read = after
	asOf := after.ModTime()
	if now := time.Now(); asOf.After(now) {
		asOf = now
	}
	return asOf, nil
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (*file) pollEvery() time.Duration { return filePoll }

// watch follows the directory, because files are replaced by renaming.
func (f *file) watch(ctx context.Context, notify func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch file: %w", err)
	}
	defer w.Close() //nolint:errcheck // nothing is lost
	if err := w.Add(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("watch directory: %w", err)
	}
	notify() // what changed before the watch began
	name := filepath.Base(f.path)
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-w.Events:
			if !ok {
				return errors.New("watch ended")
			}
			if filepath.Base(ev.Name) == name {
				quiet.Reset(fileSettle)
			}
		case err, ok := <-w.Errors:
			if !ok {
				return errors.New("watch ended")
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch directory: %w", err)
			}
			quiet.Reset(fileSettle)
		case <-quiet.C:
			notify()
		}
	}
}
