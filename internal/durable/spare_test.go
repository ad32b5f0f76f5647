package durable

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

// A spare that the writer has taken keeps its name until it gets that of a
// segment. Another spare must not be made of the same file meanwhile: it would
// zero what the segment holds.
func TestSpareIsNotMadeOfATakenOne(t *testing.T) {
	t.Parallel()
	cfg := LogConfig{Dir: t.TempDir(), Name: "t", SegmentBytes: 1 << 20}.withDefaults()
	taken, err := makeSpare(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := taken.WriteAt([]byte("header"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := makeSpare(t.Context(), cfg); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second spare: %v", err)
	}
	got := make([]byte, 6)
	if _, err := taken.ReadAt(got, 0); err != nil || string(got) != "header" {
		t.Errorf("the first holds %q, %v", got, err)
	}
}

// A segment that failed after it had its name must not take the next spare with it.
func TestFailedSegmentLeavesTheNextSpare(t *testing.T) {
	t.Parallel()
	fsys := &failingDir{FS: OS()}
	cfg := LogConfig{Dir: t.TempDir(), Name: "t", SegmentBytes: 1 << 20, FS: fsys}.withDefaults()
	first, err := makeSpare(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var next File
	fsys.sync = func() error {
		if next, err = makeSpare(t.Context(), cfg); err != nil {
			t.Error(err)
		}
		return errors.New("disk on fire")
	}
	if _, err := createSegment(cfg, 1, cfg.SegmentBytes, segmentEnd{}, first); err == nil {
		t.Fatal("no error")
	}
	fsys.sync = nil
	if _, err := createSegment(cfg, 2, cfg.SegmentBytes, segmentEnd{}, next); err != nil {
		t.Error(err)
	}
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "*"))
	if err != nil || len(names) != 1 || filepath.Base(names[0]) != segmentName(2) {
		t.Errorf("left: %v, %v", names, err)
	}
}

// failingDir lets syncs of directories fail.
type failingDir struct {
	FS
	sync func() error
}

func (f *failingDir) SyncDir(name string) error {
	if f.sync != nil {
		return f.sync()
	}
	return f.FS.SyncDir(name)
}
