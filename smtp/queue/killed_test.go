package queue

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"understudy/internal/durable"
	"understudy/internal/durable/simfs"
)

var errKilled = errors.New("process killed")

// killable is a file system whose process can be killed: nothing more is done, and
// what was written stays in the page cache.
type killable struct {
	durable.FS
	atSync atomic.Bool // the next Sync of a file kills
	dead   atomic.Bool
}

func (k *killable) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if k.dead.Load() {
		return nil, errKilled
	}
	f, err := k.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &killableFile{f, k}, nil
}

func (k *killable) Rename(from, to string) error {
	if k.dead.Load() {
		return errKilled
	}
	return k.FS.Rename(from, to)
}

func (k *killable) Remove(name string) error {
	if k.dead.Load() {
		return errKilled
	}
	return k.FS.Remove(name)
}

type killableFile struct {
	durable.File
	k *killable
}

func (f *killableFile) WriteAt(p []byte, off int64) (int, error) {
	if f.k.dead.Load() {
		return 0, errKilled
	}
	return f.File.WriteAt(p, off)
}

func (f *killableFile) Truncate(size int64) error {
	if f.k.dead.Load() {
		return errKilled
	}
	return f.File.Truncate(size)
}

func (f *killableFile) Sync() error {
	if f.k.atSync.Load() {
		f.k.dead.Store(true)
	}
	if f.k.dead.Load() {
		return errKilled
	}
	return f.File.Sync()
}

// The process is killed before a sync, and the next one reads from the page cache
// what is not on disk. When the power is cut then, that may be gone; it was never
// answered 250, so nobody may find damage.
func TestPowerCutAfterKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := simfs.New()
		k := &killable{FS: disk}
		first, err := openManual(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store(first.Spool, envelope("s@x.example", "a@y.example"), "before"); err != nil {
			t.Fatal(err)
		}
		k.atSync.Store(true)
		if _, err := store(first.Spool, envelope("s@x.example", "a@y.example"), "not synced"); err == nil {
			t.Fatal("stored without a sync")
		}
		_ = first.close() // it is dead

		second, err := openManual(disk)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := second.List(t.Context(), Selection{}); err != nil || len(list) != 2 {
			t.Fatalf("%d messages after the kill, %v", len(list), err)
		}
		if err := second.writeCheckpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(20) {
			third, err := openManual(disk.Restart(seed))
			if err != nil {
				t.Fatal(err)
			}
			list, err := third.List(t.Context(), Selection{})
			if err != nil || len(list) == 0 {
				t.Fatalf("%d messages, %v", len(list), err)
			}
			for _, m := range list {
				if _, err := readAllOf(third.Spool, m.ID); err != nil {
					t.Errorf("seed %d: %s (%s): %v", seed, m.ID, m.State, err)
				}
			}
			if err := third.close(); err != nil {
				t.Error(err)
			}
		}
		if err := second.close(); err != nil {
			t.Error(err)
		}
	})
}
