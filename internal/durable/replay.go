package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Replay calls fn for every intact record at or after from, in order. It is called
// before Run, at most once, and must be from a position at or before what the
// caller has not yet applied (the zero Pos: everything). Record.Payload is valid
// only during the call; fn may be nil. An error of fn ends it.
//
// What a crash left unfinished at the end is cut: it was never answered with nil.
// Damage in the middle is copied to a side file next to its segment (`*.bad`),
// which nobody removes but the operator, and reported; all else is kept. Segments
// are not changed, so replaying again gives the same.
func (l *Log) Replay(from Pos, fn func(Record) error) (Report, error) {
	l.mu.Lock()
	if l.replayed {
		l.mu.Unlock()
		return Report{}, errors.New("replay: the log was replayed before")
	}
	l.replayed = true
	segments := slices.Clone(l.segments)
	l.mu.Unlock()
	report, err := l.replay(segments, from, fn)
	report.End = l.End()
	if err != nil {
		return report, fmt.Errorf("replay log %s: %w", l.cfg.Name, err)
	}
	if report.TornBytes > 0 {
		l.cfg.Logger.Info("unfinished batch cut", "log", l.cfg.Name, "bytes", report.TornBytes)
	}
	for _, s := range report.Quarantined {
		if s.New {
			l.met.quarantined.Inc()
			l.cfg.Logger.Error("damage quarantined", "log", l.cfg.Name, "segment", s.Segment, "from", s.From, "to", s.To, "file", s.File)
		}
	}
	return report, nil
}

func (l *Log) replay(segments []*segment, from Pos, fn func(Record) error) (Report, error) {
	var report Report
	for _, s := range l.lost {
		kept, err := l.keepLost(s)
		if err != nil {
			return report, err
		}
		report.Quarantined = append(report.Quarantined, kept)
	}
	var sc *segmentScan
	for i, s := range segments {
		if s.id < from.Segment && (s.known || i < len(segments)-1) {
			continue
		}
		next, err := s.scanner(0, fn)
		if err != nil {
			return report, err
		}
		if s.id == from.Segment {
			next.from = from.Offset
		}
		if s.id < from.Segment {
			next.fn = nil
		}
		if sc != nil {
			next.buf = sc.buf
		}
		sc = next
		res, err := sc.scan()
		if err != nil {
			return report, err
		}
		report.Segments++
		report.Batches += res.batches
		report.Records += res.records
		report.TornBytes += res.tornBytes
		for _, b := range res.bad {
			kept, err := l.keepSpan(s, b)
			if err != nil {
				return report, err
			}
			report.Quarantined = append(report.Quarantined, kept)
		}
		l.mu.Lock()
		s.end, s.clean, s.known = res.end, res.clean, true
		l.mu.Unlock()
	}
	return report, nil
}

// keepLost moves a segment without an intact header aside.
func (l *Log) keepLost(s lostSegment) (Span, error) {
	if !s.aside {
		return s.span, nil
	}
	aside := s.span.File + quarantineSuffix
	if err := l.cfg.FS.Rename(s.span.File, aside); err != nil {
		return s.span, fmt.Errorf("quarantine %s: %w", s.span.File, err)
	}
	if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
		return s.span, fmt.Errorf("quarantine %s: %w", s.span.File, err)
	}
	s.span.File = aside
	return s.span, nil
}

// keepSpan copies a damaged span to a side file. A full disk is no reason not to
// start: the span stays in its segment, and the next replay tries again.
func (l *Log) keepSpan(s *segment, b span) (Span, error) {
	kept := Span{Segment: s.id, From: b.from, To: b.to, New: true}
	kept.File = strings.TrimSuffix(s.name, segmentSuffix) + fmt.Sprintf(".%08x-%08x%s", b.from, b.to, quarantineSuffix)
	if f, err := l.cfg.FS.OpenFile(kept.File, os.O_RDONLY, 0); err == nil {
		kept.New = false
		return kept, f.Close()
	}
	// A span may reach to the end of a 64 MiB segment, hence the limit of a segment.
	data := make([]byte, b.to-b.from)
	sc := segmentScan{r: s.file, size: b.to}
	sc.read(data, b.from)
	err := WriteFile(l.cfg.FS, kept.File, l.cfg.Perm, data)
	if errors.Is(err, ErrNoSpace) {
		l.cfg.Logger.Error("no room to keep damage aside", "log", l.cfg.Name, "file", kept.File, "err", err)
		kept.File = ""
		return kept, nil
	}
	if err != nil {
		return kept, fmt.Errorf("quarantine segment %d: %w", s.id, err)
	}
	return kept, nil
}

// isQuarantineName recognises the names keepSpan makes.
func isQuarantineName(name string) bool {
	stem, ok := strings.CutSuffix(filepath.Base(name), quarantineSuffix)
	id, rest, dot := strings.Cut(stem, ".")
	from, to, dash := strings.Cut(rest, "-")
	if !ok || !dot || !dash {
		return false
	}
	_, isID := parseSegmentName(id+segmentSuffix, segmentSuffix)
	_, err1 := strconv.ParseUint(from, 16, 64)
	_, err2 := strconv.ParseUint(to, 16, 64)
	return isID && err1 == nil && err2 == nil
}

// Read returns the record at pos with a payload of its own, verified: ErrCorrupt
// where the bytes on disk are not what was appended, ErrNoSegment where the
// position is not (or no longer) in the log.
func (l *Log) Read(pos Pos) (Record, error) {
	s, h, err := l.locate(pos)
	if err != nil {
		return Record{}, err
	}
	r := Record{Pos: pos, Kind: h.kind, Payload: make([]byte, h.length)}
	if _, err := s.file.ReadAt(r.Payload, pos.Offset+recordHeaderBytes); err != nil {
		return Record{}, fmt.Errorf("read %v: %w", pos, err)
	}
	if checksum(r.Payload) != h.payloadCRC {
		return Record{}, fmt.Errorf("read %v: %w: payload", pos, ErrCorrupt)
	}
	return r, nil
}

// Payload returns a reader over the payload at pos, after verifying it as Read
// does, without holding it in memory. It is valid until Remove of the segment or
// Close, and gives errors afterwards.
func (l *Log) Payload(pos Pos) (*io.SectionReader, error) {
	s, h, err := l.locate(pos)
	if err != nil {
		return nil, err
	}
	payload := io.NewSectionReader(s.file, pos.Offset+recordHeaderBytes, int64(h.length))
	crc := newChecksum()
	n, err := io.Copy(crc, payload)
	if err != nil {
		return nil, fmt.Errorf("read %v: %w", pos, err)
	}
	if n != int64(h.length) || crc.Sum32() != h.payloadCRC {
		return nil, fmt.Errorf("read %v: %w: payload", pos, ErrCorrupt)
	}
	if _, err := payload.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read %v: %w", pos, err)
	}
	return payload, nil
}

// locate finds a record and reads its header.
func (l *Log) locate(pos Pos) (*segment, recordHeader, error) {
	l.mu.Lock()
	s := l.find(pos.Segment)
	end := int64(0)
	if s != nil {
		end = s.end
	}
	l.mu.Unlock()
	if s == nil || pos.Offset < dataStart || pos.Offset+recordHeaderBytes > end {
		return nil, recordHeader{}, fmt.Errorf("read %v: %w", pos, ErrNoSegment)
	}
	var b [recordHeaderBytes]byte
	if _, err := s.file.ReadAt(b[:], pos.Offset); err != nil {
		return nil, recordHeader{}, fmt.Errorf("read %v: %w", pos, err)
	}
	h, ok := s.seal.record(b[:], pos.Offset)
	if !ok || pos.Offset+recordHeaderBytes+int64(h.length) > end {
		return nil, recordHeader{}, fmt.Errorf("read %v: %w: record header", pos, ErrCorrupt)
	}
	return s, h, nil
}
