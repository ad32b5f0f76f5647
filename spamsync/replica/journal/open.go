package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"understudy/internal/durable"
	"understudy/spamsync/replica/stream"
)

var _ stream.Source = (*Journal)(nil)

// Open implements stream.Source: everything that happened to the server after from.
// Where the server crashed and came back at an older place, that is what it did
// before the crash and what it did afterwards: both were acknowledged to somebody. A
// from beyond what the server did under that id is the end of it. A *GapError where
// bytes are missing, ErrBehind where to is not reached within 5 s.
func (j *Journal) Open(ctx context.Context, from, to stream.Point) (stream.Iterator, error) {
	if err := j.wait(ctx, to); err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.findFrom(from)
	if at < 0 {
		first, _ := j.first()
		return nil, &GapError{From: from, First: first}
	}
	it := &iterator{j: j, to: to}
	if to.IsZero() {
		it.to = j.newest().last()
	}
	for i, r := range j.runs[at:] {
		if i > 0 && r.how == fresh {
			return nil, j.gapError(from, at)
		}
		p := piece{id: r.id, from: r.start, chunks: r.chunks, end: r.end}
		if i == 0 && r.id == from.ID {
			p.from = min(max(from.Offset, r.start), r.end)
			// The last chunk at or before it that starts with a command.
			n := sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].start > p.from })
			for n > 0 && (n == len(p.chunks) || p.chunks[n].start > p.from || !p.chunks[n].whole) {
				n--
			}
			p.chunks = p.chunks[n:]
		}
		// A copy: the slices grow and shrink meanwhile.
		p.chunks = append([]chunk(nil), p.chunks...)
		it.pieces = append(it.pieces, p)
		if r.id == it.to.ID && r.end >= it.to.Offset {
			return it, nil
		}
	}
	return nil, fmt.Errorf("read journal up to %v: %w: it does not lie after %v", it.to, ErrBehind, from)
}

// findFrom returns the run that has place p; -1 for none.
func (j *Journal) findFrom(p stream.Point) int {
	for i, r := range slices.Backward(j.runs) {
		switch {
		case r.id == p.ID && r.start <= p.Offset && (p.Offset <= r.end || i+1 < len(j.runs) && j.runs[i+1].how != fresh):
			return i
		case r.how == goesOn && r.parent == p.ID && r.start <= p.Offset, r.how == rewound && r.parent == p.ID && r.start == p.Offset && (i == 0 || j.runs[i-1].id != p.ID):
			return i
		}
	}
	return -1
}

// gapError lists the breaks after run at.
func (j *Journal) gapError(from stream.Point, at int) error {
	e := &GapError{From: from}
	e.First, _ = j.first()
	for i := at + 1; i < len(j.runs); i++ {
		if r := j.runs[i]; r.how == fresh {
			g := Gap{After: j.runs[i-1].last(), Resumed: stream.Point{ID: r.id, Offset: r.start}, Reason: "bytes are missing"}
			for _, known := range j.gaps {
				if known.Resumed == g.Resumed {
					g = known
				}
			}
			e.Gaps = append(e.Gaps, g)
		}
	}
	return e
}

// wait waits until the journal has place to.
func (j *Journal) wait(ctx context.Context, to stream.Point) error {
	timer := time.NewTimer(behindLimit)
	defer timer.Stop()
	for {
		j.mu.Lock()
		reached := false
		if to.IsZero() {
			reached = true
		}
		for _, r := range j.runs {
			reached = reached || r.id == to.ID && r.end >= to.Offset
		}
		j.wanted = !reached
		changed := j.changed
		end := stream.Point{}
		if r := j.newest(); r != nil {
			end = r.last()
		}
		j.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("read journal up to %v: %w: it is at %v", to, ErrBehind, end)
		}
	}
}

func (j *Journal) isWanted() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.wanted
}

// piece is the part of a run to read.
type piece struct {
	id        string
	from, end int64
	chunks    []chunk
}

// iterator reads pieces one after another.
type iterator struct {
	j      *Journal
	to     stream.Point
	pieces []piece

	reader *stream.Reader
	bytes  *chunkReader
	skip   int64 // commands before it are not wanted
}

// Next implements stream.Iterator.
func (it *iterator) Next(ctx context.Context) (stream.Command, error) {
	for {
		if err := ctx.Err(); err != nil {
			return stream.Command{}, err
		}
		if it.reader == nil {
			if len(it.pieces) == 0 {
				return stream.Command{}, io.EOF
			}
			if err := it.openPiece(); err != nil {
				return stream.Command{}, err
			}
		}
		if at := it.reader.At(); at.ID == it.to.ID && at.Offset >= it.to.Offset {
			return stream.Command{}, io.EOF
		}
		cmd, err := it.reader.Next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			// A command that the crash cut in two did not happen.
			it.reader = nil
			continue
		case err != nil:
			return stream.Command{}, fmt.Errorf("read journal: %w", err)
		case cmd.End <= it.skip:
			continue
		case cmd.Offset < it.skip:
			return stream.Command{}, fmt.Errorf("read journal from %d: %w: a command of %s lies across it", it.skip, stream.ErrProtocol, cmd.ID)
		}
		return cmd, nil
	}
}

// openPiece starts the next piece.
func (it *iterator) openPiece() error {
	p := it.pieces[0]
	it.pieces = it.pieces[1:]
	it.skip = p.from
	it.bytes = &chunkReader{log: it.j.log, chunks: p.chunks}
	at := stream.Point{ID: p.id, Offset: p.end}
	db, inTx := stream.UnknownDB, false
	if len(p.chunks) > 0 {
		h, err := it.bytes.load()
		if err != nil {
			return err
		}
		at.Offset, db, inTx = h.start, int(h.db), h.inTx
	}
	it.reader = stream.NewReader(it.bytes, at, db, inTx, 0)
	return nil
}

// Close implements stream.Iterator.
func (it *iterator) Close() error { return nil }

// chunkReader is the bytes of chunks, one after another.
type chunkReader struct {
	log    *durable.Log
	chunks []chunk
	rest   []byte
}

// load reads the next chunk.
func (r *chunkReader) load() (header, error) {
	rec, err := r.log.Read(r.chunks[0].pos)
	if err != nil {
		if errors.Is(err, durable.ErrNoSegment) {
			err = errors.Join(stream.ErrNotCovered, err)
		}
		return header{}, fmt.Errorf("read journal: %w", err)
	}
	r.chunks = r.chunks[1:]
	h, raw, ok := parseHeader(rec.Payload)
	if !ok {
		return header{}, fmt.Errorf("read journal: %w: record header", durable.ErrCorrupt)
	}
	r.rest = raw
	return h, nil
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if len(r.chunks) == 0 {
			return 0, io.EOF
		}
		if _, err := r.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
