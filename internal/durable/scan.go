package durable

import (
	"bytes"
	"hash/crc32"
	"io"
)

// segmentScan reads the batches of one segment. It holds at most one batch in
// memory, and never more than the segment has.
type segmentScan struct {
	r    io.ReaderAt
	seal seal
	id   uint64
	// size is the length of the file; limit is where reading ends: the known end
	// of the segment, or size where it is not known.
	size, limit int64
	// known says that limit is the known end. Then damage anywhere before clean is
	// rot; otherwise damage behind the last whole batch is a torn tail.
	known bool
	clean int64
	// from skips records at lower offsets.
	from int64
	fn   func(Record) error

	buf []byte
	// unreadable is the end of the last block the disk refused to read.
	unreadable int64
	res        scanResult
}

// scanResult says what a segment held.
type scanResult struct {
	batches, records int
	// end and clean are as in segmentEnd.
	end, clean int64
	bad        []span
	tornBytes  int64
}

// span is a range of offsets.
type span struct{ from, to int64 }

// scan walks the batches. The error is fn's.
func (s *segmentScan) scan() (scanResult, error) {
	s.res = scanResult{end: dataStart, clean: dataStart}
	var damage []span // in order of offset
	var lastSeq uint64
	off := int64(dataStart)
	for off < s.limit {
		h, ok := s.header(off)
		if !ok || h.seq <= lastSeq || off+batchSize(h.recordBytes) > s.limit {
			next := s.nextBatch(off+blockBytes, lastSeq)
			if next == s.limit && !s.known {
				next = s.writtenEnd(off)
			}
			if next == off {
				break // never written
			}
			damage = append(damage, span{off, next})
			off = next
			continue
		}
		lastSeq = h.seq
		end := off + batchSize(h.recordBytes)
		bad, err := s.batch(off, h)
		if err != nil {
			return s.res, err
		}
		damage = append(damage, bad...)
		s.res.batches++
		s.res.end = end
		if len(bad) == 0 {
			s.res.clean = end
		}
		off = end
	}
	s.judge(damage)
	return s.res, nil
}

// judge tells rot from the tail of a batch that was never finished.
func (s *segmentScan) judge(damage []span) {
	switch {
	case s.known:
		s.res.end, s.res.clean = s.limit, s.clean
	case s.unreadable > s.res.clean:
		// What the disk does not give back today may be there tomorrow: never cut it.
		end := max(s.res.end, roundUp(s.unreadable))
		for _, d := range damage {
			end = max(end, roundUp(d.to))
		}
		s.res.end, s.res.clean = end, end
	}
	for _, d := range damage {
		if d.from < s.res.clean {
			s.res.bad = append(s.res.bad, d)
		} else {
			s.res.tornBytes += d.to - d.from
		}
	}
}

func (s *segmentScan) header(off int64) (batchHeader, bool) {
	var b [batchHeaderBytes]byte
	s.read(b[:], off)
	return s.seal.batch(b[:], off)
}

// nextBatch finds the next block that starts a later batch, or limit.
func (s *segmentScan) nextBatch(off int64, lastSeq uint64) int64 {
	const window = 256 * blockBytes
	for ; off < s.limit; off += window {
		s.buf = grow(s.buf, min(window, s.limit-off))
		s.read(s.buf, off)
		for i := int64(0); i < int64(len(s.buf)); i += blockBytes {
			h, ok := s.seal.batch(s.buf[i:], off+i)
			if ok && h.seq > lastSeq && off+i+batchSize(h.recordBytes) <= s.limit {
				return off + i
			}
		}
	}
	return s.limit
}

// writtenEnd returns where the last block after off ends that is not all zero, or
// that could not be read; off if there is none.
func (s *segmentScan) writtenEnd(off int64) int64 {
	const window = 256 * blockBytes
	end := off
	zeros := make([]byte, blockBytes)
	for ; off < s.limit; off += window {
		s.buf = grow(s.buf, min(window, s.limit-off))
		s.read(s.buf, off)
		for i := 0; i < len(s.buf); i += blockBytes {
			to := min(i+blockBytes, len(s.buf))
			if !bytes.Equal(s.buf[i:to], zeros[:to-i]) {
				end = off + int64(to)
			}
		}
	}
	return max(end, min(s.unreadable, s.limit))
}

// batch hands out the intact records, and returns the damaged spans.
func (s *segmentScan) batch(off int64, h batchHeader) (bad []span, err error) {
	start := off + batchHeaderBytes
	if start+h.recordBytes <= s.from {
		return nil, nil
	}
	s.buf = grow(s.buf, h.recordBytes)
	s.read(s.buf, start)
	for i := int64(0); i < h.recordBytes; {
		rh, n, ok := s.record(i, start)
		if !ok {
			next := s.nextRecord(i+1, start)
			bad = append(bad, span{start + i, start + next})
			i = next
			continue
		}
		payload := s.buf[i+recordHeaderBytes : i+n]
		if crc32.Checksum(payload, castagnoli()) != rh.payloadCRC {
			bad = append(bad, span{start + i, start + i + n})
			i += n
			continue
		}
		s.res.records++
		if start+i >= s.from && s.fn != nil {
			r := Record{Pos: Pos{s.id, start + i}, Kind: rh.kind, Payload: payload}
			if err := s.fn(r); err != nil {
				return bad, err
			}
		}
		i += n
	}
	return bad, nil
}

// record reads the record header at buf[i:]; n is the length of the record.
func (s *segmentScan) record(i, start int64) (h recordHeader, n int64, ok bool) {
	h, ok = s.seal.record(s.buf[i:], start+i)
	n = recordHeaderBytes + int64(h.length)
	return h, n, ok && i+n <= int64(len(s.buf))
}

// nextRecord finds the next intact record header in the batch, or its end. Only a
// header that was sealed for exactly this position qualifies, so a payload cannot
// be taken for one.
func (s *segmentScan) nextRecord(i, start int64) int64 {
	for ; i+recordHeaderBytes <= int64(len(s.buf)); i++ {
		if _, _, ok := s.record(i, start); ok {
			return i
		}
	}
	return int64(len(s.buf))
}

// read fills p. What cannot be read becomes zero, and so fails its checksum: one
// bad sector must not hide the rest of a segment.
func (s *segmentScan) read(p []byte, off int64) {
	n, err := s.r.ReadAt(p, off)
	if n == len(p) {
		return
	}
	if err == io.EOF || off+int64(n) >= s.size {
		clear(p[n:])
		return
	}
	for i := 0; i < len(p); {
		// Up to the next block boundary of the file.
		step := min(len(p)-i, int(blockBytes-(off+int64(i))%blockBytes))
		if n, err := s.r.ReadAt(p[i:i+step], off+int64(i)); n < step {
			clear(p[i+n : i+step])
			if err != io.EOF {
				s.unreadable = max(s.unreadable, off+int64(i+step))
			}
		}
		i += step
	}
}

func grow(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}
