package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// segment is an open segment file. id, header, seal, name and file never change;
// the rest is guarded by Log.mu.
type segment struct {
	id     uint64
	header segmentHeader
	seal   seal
	name   string
	file   File

	// end is where counted batches end. While known is false (a recovered segment
	// that was not scanned yet) it is the length of the file.
	end, clean int64
	known      bool
	sealed     bool
	poisoned   bool
	batches    uint64 // written by this process; the writer's
}

// openSegment opens an existing segment. ErrCorrupt: both headers are damaged.
func openSegment(fsys FS, name string, id uint64, logName string) (*segment, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	h, err := readSegmentHeader(f)
	if err == nil && h.name != logName {
		err = fmt.Errorf("segment belongs to log %q, not %q", h.name, logName)
	}
	if err == nil && h.id != id {
		err = fmt.Errorf("%w: the file holds segment %d", ErrCorrupt, h.id)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	s := &segment{id: id, header: h, seal: newSeal(h), name: name, file: f, end: size, sealed: true}
	// A file shorter than it was made has been cut at its end when it was sealed.
	if size < h.sizeBytes && size >= dataStart && size%blockBytes == 0 {
		s.known, s.clean = true, size
	}
	return s, nil
}

var errUnreadable = errors.New("unreadable segment header")

func readSegmentHeader(f io.ReaderAt) (segmentHeader, error) {
	var first error
	for _, off := range []int64{0, blockBytes} {
		b := make([]byte, segmentHeaderLen)
		_, err := f.ReadAt(b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			first = errors.Join(first, fmt.Errorf("%w: %w", errUnreadable, err))
			continue
		}
		h, err := decodeSegmentHeader(b)
		if err == nil || errors.Is(err, errOtherFormat) {
			return h, err
		}
		first = errors.Join(first, err)
	}
	return segmentHeader{}, first
}

// believe takes over what the header of the next segment says about this one.
func (s *segment) believe(e segmentEnd) {
	if e.id != s.id || e.clean < dataStart || e.end < e.clean || e.end > maxSegmentBytes || e.end%blockBytes != 0 {
		return
	}
	s.end, s.clean, s.known = e.end, e.clean, true
}

func (s *segment) segmentEnd() segmentEnd {
	return segmentEnd{id: s.id, end: s.end, clean: s.clean}
}

// scanner reads what counts.
func (s *segment) scanner(from int64, fn func(Record) error) (*segmentScan, error) {
	size, err := s.file.Size()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	sc := &segmentScan{r: s.file, seal: s.seal, id: s.id, size: size, limit: size, from: from, fn: fn}
	if s.known {
		sc.limit, sc.known, sc.clean = s.end, true, s.clean
	}
	return sc, nil
}

// createSegment makes a segment file that may be used: allocated, its headers
// synced, and then its directory entry. An abandoned attempt leaves at most a
// file that OpenLog removes, or an empty segment.
func createSegment(cfg LogConfig, id uint64, sizeBytes int64, prev segmentEnd, spare File) (*segment, error) {
	h := segmentHeader{name: cfg.Name, id: id, sizeBytes: sizeBytes, prev: prev}
	_, _ = rand.Read(h.key[:]) // never fails
	s := &segment{
		id: id, header: h, seal: newSeal(h), name: filepath.Join(cfg.Dir, segmentName(id)), file: spare,
		end: dataStart, clean: dataStart, known: true,
	}
	tmp := filepath.Join(cfg.Dir, spareName)
	if spare == nil {
		tmp = s.name + tmpSuffix
		f, err := cfg.FS.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, cfg.Perm)
		if err != nil {
			return nil, fmt.Errorf("create segment: %w", err)
		}
		s.file = f
		if err := f.Allocate(sizeBytes); err != nil {
			return nil, errors.Join(fmt.Errorf("allocate segment: %w", err), discard(cfg.FS, f, tmp))
		}
	}
	if err := s.publish(cfg, tmp); err != nil {
		return nil, errors.Join(err, s.file.Close(), ignoreNotExist(cfg.FS.Remove(s.name)))
	}
	return s, nil
}

// publish gives a complete file its name. After an error nothing of the old name
// is left; once it was given away it may be the next spare's already.
func (s *segment) publish(cfg LogConfig, tmp string) error {
	if err := s.writeHeader(); err != nil {
		return errors.Join(err, ignoreNotExist(cfg.FS.Remove(tmp)))
	}
	if err := cfg.FS.Rename(tmp, s.name); err != nil {
		return errors.Join(fmt.Errorf("name segment: %w", err), ignoreNotExist(cfg.FS.Remove(tmp)))
	}
	if err := cfg.FS.SyncDir(cfg.Dir); err != nil {
		return fmt.Errorf("sync log directory: %w", err)
	}
	return nil
}

func (s *segment) writeHeader() error {
	block := s.header.encode()
	if _, err := s.file.WriteAt(append(block, block...), 0); err != nil {
		return fmt.Errorf("write segment header: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync segment header: %w", err)
	}
	return nil
}

func discard(fsys FS, f File, name string) error {
	return errors.Join(f.Close(), ignoreNotExist(fsys.Remove(name)))
}
