package durable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Log is a segment log. Append, AppendLazy, Read, Payload, Segments, End, Seal and
// Remove may be called concurrently; the life of a log is OpenLog, Replay, Run,
// Close.
type Log struct {
	cfg LogConfig
	met *metrics

	mu       sync.Mutex
	segments []*segment // ascending ids
	nextID   uint64
	lost     []lostSegment
	replayed bool
	state    runState
	pending  []*request
	lazy     lazyQueue

	wake chan struct{} // capacity 1: something is pending
	done chan struct{} // closed when Run has ended

	w writer // Run's own
}

// lostSegment has no readable header.
type lostSegment struct {
	span Span
	// aside: it must be renamed. Not where the disk refused to read: it may
	// succeed at the next start.
	aside bool
}

type runState uint8

const (
	stateOpened runState = iota
	stateRunning
	stateStopped
)

// OpenLog opens the directory, creates it where missing, reads the segment
// headers and removes unfinished files. It starts no goroutine and appends nothing.
// A segment of another log or of an unknown version is an error, and is left alone.
func OpenLog(cfg LogConfig) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Name, err)
	}
	cfg = cfg.withDefaults()
	met, err := newMetrics(cfg)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Name, err)
	}
	l := &Log{
		cfg: cfg, met: met, nextID: 1,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", cfg.Name, err), l.Close())
	}
	return l, nil
}

func (l *Log) open() error {
	if err := l.cfg.FS.MkdirAll(l.cfg.Dir, l.cfg.Perm|l.cfg.Perm>>2&0o111); err != nil {
		return err
	}
	entries, err := l.cfg.FS.ReadDir(l.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.openEntry(e.Name()); err != nil {
			return err
		}
	}
	slices.SortFunc(l.segments, func(a, b *segment) int { return cmp.Compare(a.id, b.id) })
	// Later headers first: where two speak of the same segment, the oldest was
	// written first and knows best.
	for i, s := range slices.Backward(l.segments) {
		for _, earlier := range l.segments[:i] {
			earlier.believe(s.header.prev)
		}
	}
	l.met.segments.Set(float64(len(l.segments)))
	return nil
}

func (l *Log) openEntry(name string) error {
	path := filepath.Join(l.cfg.Dir, name)
	if isLeftover(name) {
		return ignoreNotExist(l.cfg.FS.Remove(path))
	}
	if id, ok := parseSegmentName(name, segmentSuffix+quarantineSuffix); ok {
		l.nextID = max(l.nextID, id+1)
		l.lost = append(l.lost, lostSegment{span: Span{Segment: id, File: path}})
		return nil
	}
	id, ok := parseSegmentName(name, segmentSuffix)
	if !ok {
		return nil // not ours: the owner of the directory may keep other files here
	}
	l.nextID = max(l.nextID, id+1)
	s, err := openSegment(l.cfg.FS, path, id, l.cfg.Name)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, errUnreadable) {
		l.lost = append(l.lost, lostSegment{
			span:  Span{Segment: id, File: path, New: true},
			aside: !errors.Is(err, errUnreadable),
		})
		return nil
	}
	if err != nil {
		return err
	}
	l.segments = append(l.segments, s)
	return nil
}

// isLeftover recognises the unfinished files of a log, and only those.
func isLeftover(name string) bool {
	stem, ok := strings.CutSuffix(name, tmpSuffix)
	if !ok {
		return false
	}
	_, isSegment := parseSegmentName(stem, segmentSuffix)
	return isSegment || name == spareName || isQuarantineName(stem)
}

// Segments lists the segments, oldest first.
func (l *Log) Segments() []SegmentStat {
	l.mu.Lock()
	defer l.mu.Unlock()
	stats := make([]SegmentStat, len(l.segments))
	for i, s := range l.segments {
		stats[i] = SegmentStat{ID: s.id, UsedBytes: s.end, Sealed: s.sealed, Poisoned: s.poisoned}
	}
	return stats
}

// End is the position after the last synced record: what a checkpoint remembers.
func (l *Log) End() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endLocked()
}

func (l *Log) endLocked() Pos {
	if len(l.segments) == 0 {
		return Pos{}
	}
	s := l.segments[len(l.segments)-1]
	return Pos{Segment: s.id, Offset: s.end}
}

// find returns the segment with that id, or nil. l.mu is held.
func (l *Log) find(id uint64) *segment {
	i, ok := slices.BinarySearchFunc(l.segments, id, func(s *segment, id uint64) int { return cmp.Compare(s.id, id) })
	if !ok {
		return nil
	}
	return l.segments[i]
}

// Remove deletes a sealed segment, durably. The newest segment is ErrActive (its
// id keeps positions from being used twice), an unknown one ErrNoSegment. Readers
// of its payloads get errors from now on.
func (l *Log) Remove(id uint64) error {
	l.mu.Lock()
	s := l.find(id)
	if s == nil {
		l.mu.Unlock()
		return fmt.Errorf("remove segment %d: %w", id, ErrNoSegment)
	}
	if !s.sealed || s == l.segments[len(l.segments)-1] {
		l.mu.Unlock()
		return fmt.Errorf("remove segment %d: %w", id, ErrActive)
	}
	l.segments = slices.DeleteFunc(l.segments, func(x *segment) bool { return x == s })
	l.met.segments.Set(float64(len(l.segments)))
	l.mu.Unlock()
	if err := errors.Join(l.cfg.FS.Remove(s.name), l.cfg.FS.SyncDir(l.cfg.Dir), s.file.Close()); err != nil {
		return fmt.Errorf("remove segment %d: %w", id, err)
	}
	return nil
}

// Close closes the files. It is called after Run has returned, or instead of it.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != stateStopped {
		l.state = stateStopped
		close(l.done)
	}
	var errs []error
	for _, s := range l.segments {
		errs = append(errs, s.file.Close())
	}
	l.segments = nil
	return errors.Join(errs...)
}

// Seal starts a new segment where the newest one has records, so that the old one
// can be compacted and removed also on a quiet machine.
func (l *Log) Seal(ctx context.Context) error {
	r := newRequest(0, nil)
	r.seal = true
	_, err := l.submit(ctx, r)
	return err
}

// lazyQueue holds lazy records until a batch takes them.
type lazyQueue struct {
	records []*request
	bytes   int64
	// due is when they must be written; failures stretch it.
	due      time.Time
	failures int
	dropped  bool // the drop was logged
}
