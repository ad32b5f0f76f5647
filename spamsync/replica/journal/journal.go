package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/durable"
	"understudy/spamsync/replica/stream"
)

const (
	// chunkBytes is the most that one record holds.
	chunkBytes = 256 << 10
	// A journal has some 16 segments, so that it shrinks by little at a time.
	segmentsWanted               = 16
	minSegment, maxSegment int64 = 1 << 20, 64 << 20
	// behindLimit is how long Open waits for the journal to reach the end.
	behindLimit = 5 * time.Second
)

// Options are what a journal works with.
type Options struct {
	// Dir is its directory, for this process alone.
	Dir string
	// FS is the file system; nil is the real one.
	FS durable.FS
	// Config bounds it.
	Config Config
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Journal is the history of one Redis server on disk. Status and Open may be called
// concurrently, also while Run is at work and before it.
type Journal struct {
	opts         Options
	log          *durable.Log
	segmentBytes int64
	met          metrics

	mu        sync.Mutex
	runs      []*run // oldest first
	gaps      []Gap
	following bool
	lastErr   error
	changed   chan struct{} // closed and renewed when the end moves
	wanted    bool          // somebody waits for what is not written yet
}

// run is an unbroken piece of one history.
type run struct {
	seq    uint32
	id     string
	how    how
	parent string // the id before, where how says that it goes on from there
	start  int64
	end    int64
	chunks []chunk
}

func (r *run) last() stream.Point { return stream.Point{ID: r.id, Offset: r.end} }

// chunk is one record.
type chunk struct {
	pos   durable.Pos
	start int64 // offset of the first byte
	at    int64 // when, Unix milliseconds
	whole bool  // it starts with a command
}

// Open opens the journal in a directory and reads what it holds. It does not dial.
func Open(o Options) (*Journal, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("open redis journal: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = durable.OS()
	}
	met, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("open redis journal: %w", err)
	}
	segment := min(max(o.Config.MaxBytes/segmentsWanted, minSegment), maxSegment) &^ (4<<10 - 1)
	log, err := durable.OpenLog(durable.LogConfig{
		Dir: o.Dir, FS: o.FS, Name: "redis", SegmentBytes: segment, MaxRecordBytes: chunkBytes + headerBytes,
		MaxBatchBytes: 1 << 20, NoSpare: true, Logger: o.Logger, Registerer: o.Registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("open redis journal: %w", err)
	}
	j := &Journal{opts: o, log: log, segmentBytes: segment, met: met, changed: make(chan struct{})}
	if _, err := log.Replay(durable.Pos{}, j.found); err != nil {
		return nil, fmt.Errorf("read redis journal: %w", errors.Join(err, log.Close()))
	}
	return j, nil
}

// found takes a record of an earlier process.
func (j *Journal) found(r durable.Record) error {
	switch r.Kind {
	case kindGap:
		if g, ok := parseGap(r.Payload); ok {
			j.gaps = append(j.gaps, g)
		}
	case kindBytes:
		h, raw, ok := parseHeader(r.Payload)
		if !ok {
			return nil
		}
		j.place(h, len(raw), r.Pos)
	}
	return nil
}

// place adds a chunk to its run. A chunk that does not fit its run (a record between
// was damaged) starts one of its own, after a gap.
func (j *Journal) place(h header, size int, pos durable.Pos) {
	r := j.newest()
	switch {
	case r == nil || r.seq != h.run:
		r = &run{seq: h.run, id: h.id, how: h.how, parent: h.parent, start: h.start, end: h.start}
		if h.start != h.runStart {
			r.how, r.parent = fresh, "" // its beginning is gone
		}
		j.runs = append(j.runs, r)
	case r.end != h.start:
		r = &run{seq: h.run, id: h.id, how: fresh, start: h.start, end: h.start}
		j.runs = append(j.runs, r)
	}
	r.chunks = append(r.chunks, chunk{pos: pos, start: h.start, at: h.at, whole: h.whole})
	r.end += int64(size)
}

func (j *Journal) newest() *run {
	if len(j.runs) == 0 {
		return nil
	}
	return j.runs[len(j.runs)-1]
}

// Close closes the files after Run has returned, or instead of it.
func (j *Journal) Close() error {
	if err := j.log.Close(); err != nil {
		return fmt.Errorf("close redis journal: %w", err)
	}
	return nil
}

// Status tells what it holds.
func (j *Journal) Status() Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Status{
		Following: j.following, Gaps: append([]Gap(nil), j.gaps...),
		Bytes: int64(len(j.log.Segments())) * j.segmentBytes,
	}
	if j.lastErr != nil {
		s.Err = j.lastErr.Error()
	}
	if r := j.newest(); r != nil {
		s.End = r.last()
	}
	s.First, s.Oldest = j.first()
	return s
}

// first is the oldest place that can be read without a break.
func (j *Journal) first() (stream.Point, time.Time) {
	for i, r := range slices.Backward(j.runs) {
		if r.how != fresh && i > 0 {
			continue
		}
		p := stream.Point{ID: r.id, Offset: r.start}
		if len(r.chunks) == 0 {
			return p, time.Time{}
		}
		return p, time.UnixMilli(r.chunks[0].at)
	}
	return stream.Point{}, time.Time{}
}

// append writes a chunk and moves the end.
func (j *Journal) append(ctx context.Context, r *run, h header, raw []byte) error {
	pos, err := j.log.Append(ctx, kindBytes, h.bytes(), raw)
	if err != nil {
		return fmt.Errorf("write redis journal: %w", err)
	}
	j.met.bytes.Add(float64(len(raw)))
	j.mu.Lock()
	defer j.mu.Unlock()
	r.chunks = append(r.chunks, chunk{pos: pos, start: h.start, at: h.at, whole: h.whole})
	r.end += int64(len(raw))
	close(j.changed)
	j.changed = make(chan struct{})
	return nil
}

// trim removes what is too much or too old.
func (j *Journal) trim(ctx context.Context, now time.Time) error {
	old := now.Add(-j.opts.Config.MaxAge).UnixMilli()
	segments := j.log.Segments()
	for len(segments) > 1 && segments[0].Sealed {
		s := segments[0]
		if int64(len(segments))*j.segmentBytes <= j.opts.Config.MaxBytes && j.youngest(s.ID) > old {
			break
		}
		j.forget(s.ID)
		if err := j.log.Remove(s.ID); err != nil {
			return fmt.Errorf("trim redis journal: %w", err)
		}
		segments = segments[1:]
	}
	if len(segments) == 1 && j.eldest() < now.Add(-j.opts.Config.MaxAge/4).UnixMilli() {
		if err := j.log.Seal(ctx); err != nil {
			return fmt.Errorf("trim redis journal: %w", err)
		}
	}
	return nil
}

// youngest is when the last chunk of a segment was written, 0 for none.
func (j *Journal) youngest(segment uint64) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	var at int64
	for _, r := range j.runs {
		for _, c := range r.chunks {
			if c.pos.Segment == segment {
				at = max(at, c.at)
			}
			if c.pos.Segment > segment {
				return at
			}
		}
	}
	return at
}

// eldest is when the first chunk was written; the future for none.
func (j *Journal) eldest() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.runs {
		if len(r.chunks) > 0 {
			return r.chunks[0].at
		}
	}
	return 1 << 62
}

// forget drops the chunks of a segment. The newest run stays, empty if need be: it
// is where the journal goes on.
func (j *Journal) forget(segment uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.runs) > 0 {
		r := j.runs[0]
		n := 0
		for n < len(r.chunks) && r.chunks[n].pos.Segment <= segment {
			n++
		}
		if n > 0 {
			r.start, r.how, r.parent = r.end, fresh, ""
			if n < len(r.chunks) {
				r.start = r.chunks[n].start
			}
			r.chunks = append([]chunk(nil), r.chunks[n:]...)
		}
		if len(r.chunks) > 0 || len(j.runs) == 1 {
			break
		}
		j.runs = j.runs[1:]
	}
	first := int64(0)
	if r := j.newest(); r != nil && len(j.runs[0].chunks) > 0 {
		first = j.runs[0].chunks[0].at
	}
	for len(j.gaps) > 0 && j.gaps[0].At.UnixMilli() < first {
		j.gaps = j.gaps[1:]
	}
}

// setState records whether the journal follows, and why not.
func (j *Journal) setState(following bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.following = following
	j.lastErr = cmp.Or(err, error(nil))
	if following {
		j.met.following.Set(1)
	} else {
		j.met.following.Set(0)
	}
}
