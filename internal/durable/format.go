package durable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"strconv"
	"strings"
)

// The on-disk format, see DESIGN.md. All numbers are little endian.
const (
	blockBytes        = 4096 // batches start on this boundary: one page
	nameBytes         = 16
	keyBytes          = 16
	segmentHeaderLen  = 128
	dataStart         = 2 * blockBytes // two copies of the segment header
	batchHeaderBytes  = 48
	recordHeaderBytes = 16

	minSegmentBytes = 64 << 10
	maxSegmentBytes = 1 << 30

	formatFamily = "USLOG"
	formatMagic  = formatFamily + "v01"

	segmentSuffix    = ".seg"
	quarantineSuffix = ".bad"
	spareName        = "spare" + tmpSuffix
)

// batchClosing marks the empty batch a clean stop ends a segment with, so that
// damage to the last real batch is not taken for a torn tail.
const batchClosing = 1

var errOtherFormat = errors.New("segment was written by another version")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

func newChecksum() hash.Hash32 { return crc32.New(castagnoli()) }

// batchSize is the room of a batch with that many bytes of records.
func batchSize(recordBytes int64) int64 {
	return roundUp(batchHeaderBytes + recordBytes)
}

func roundUp(n int64) int64 { return (n + blockBytes - 1) / blockBytes * blockBytes }

// segmentHeader identifies a segment, and says where the one before it ends: the
// only place where the end of a segment that was cut short is known for certain.
type segmentHeader struct {
	name      string
	id        uint64
	key       [keyBytes]byte
	sizeBytes int64 // length of the file when it was made
	prev      segmentEnd
}

// segmentEnd says how much of a segment counts.
type segmentEnd struct {
	id uint64
	// end is where the last counted batch ends. Whatever lies behind was never
	// answered with nil, and is not read.
	end int64
	// clean is where the last whole batch ends; damage from here to end is the
	// tail of a batch a crash cut, not rot.
	clean int64
}

// encode fills a block; it is written twice.
func (h segmentHeader) encode() []byte {
	b := make([]byte, blockBytes)
	copy(b, formatMagic)
	copy(b[8:24], h.name)
	binary.LittleEndian.PutUint64(b[24:], h.id)
	copy(b[32:48], h.key[:])
	binary.LittleEndian.PutUint64(b[48:], uint64(h.sizeBytes))
	binary.LittleEndian.PutUint64(b[56:], h.prev.id)
	binary.LittleEndian.PutUint64(b[64:], uint64(h.prev.end))
	binary.LittleEndian.PutUint64(b[72:], uint64(h.prev.clean))
	crc := crc32.Checksum(b[:segmentHeaderLen-4], castagnoli())
	binary.LittleEndian.PutUint32(b[segmentHeaderLen-4:], crc)
	return b
}

// decodeSegmentHeader returns ErrCorrupt for damage, and errOtherFormat for an
// intact header of a version this code does not know: such a file is never
// treated as damaged.
func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	var h segmentHeader
	if len(b) < segmentHeaderLen {
		return h, fmt.Errorf("%w: short segment header", ErrCorrupt)
	}
	crc := crc32.Checksum(b[:segmentHeaderLen-4], castagnoli())
	if crc != binary.LittleEndian.Uint32(b[segmentHeaderLen-4:]) || !bytes.HasPrefix(b, []byte(formatFamily)) {
		return h, fmt.Errorf("%w: segment header", ErrCorrupt)
	}
	if !bytes.HasPrefix(b, []byte(formatMagic)) {
		return h, fmt.Errorf("%w: %q", errOtherFormat, b[:8])
	}
	h.name = string(bytes.TrimRight(b[8:24], "\x00"))
	h.id = binary.LittleEndian.Uint64(b[24:])
	copy(h.key[:], b[32:48])
	h.sizeBytes = int64(binary.LittleEndian.Uint64(b[48:]))
	h.prev.id = binary.LittleEndian.Uint64(b[56:])
	h.prev.end = int64(binary.LittleEndian.Uint64(b[64:]))
	h.prev.clean = int64(binary.LittleEndian.Uint64(b[72:]))
	return h, nil
}

// seal binds batch and record headers to one segment and one position.
type seal struct {
	magic uint64
	tag   [3]byte
	seed  uint32
}

func newSeal(h segmentHeader) seal {
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], h.id)
	seed := crc32.Update(crc32.Checksum(h.key[:], castagnoli()), castagnoli(), id[:])
	return seal{
		magic: binary.LittleEndian.Uint64(h.key[:8]),
		tag:   [3]byte(h.key[8:11]),
		seed:  seed,
	}
}

// sum is the checksum of header bytes that lie at offset.
func (s seal) sum(offset int64, header []byte) uint32 {
	// The position goes through the seed and not through a buffer: no allocation.
	seed := s.seed ^ uint32(offset) ^ uint32(offset>>32)*0x9E3779B1
	return crc32.Update(seed, castagnoli(), header)
}

// batchHeader stands at the start of a batch.
type batchHeader struct {
	seq         uint64 // counts the batches of a segment from 1
	recordBytes int64  // without header and padding
	records     uint32
	flags       uint32
}

func (s seal) putBatch(b []byte, offset int64, h batchHeader) {
	clear(b[:batchHeaderBytes])
	binary.LittleEndian.PutUint64(b, s.magic)
	binary.LittleEndian.PutUint64(b[8:], h.seq)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.recordBytes))
	binary.LittleEndian.PutUint32(b[24:], h.records)
	binary.LittleEndian.PutUint32(b[28:], h.flags)
	binary.LittleEndian.PutUint32(b[44:], s.sum(offset, b[:44]))
}

func (s seal) batch(b []byte, offset int64) (batchHeader, bool) {
	if len(b) < batchHeaderBytes || binary.LittleEndian.Uint64(b) != s.magic ||
		binary.LittleEndian.Uint32(b[44:]) != s.sum(offset, b[:44]) {
		return batchHeader{}, false
	}
	h := batchHeader{
		seq:         binary.LittleEndian.Uint64(b[8:]),
		recordBytes: int64(binary.LittleEndian.Uint64(b[16:])),
		records:     binary.LittleEndian.Uint32(b[24:]),
		flags:       binary.LittleEndian.Uint32(b[28:]),
	}
	ok := h.recordBytes >= 0 && h.recordBytes <= maxSegmentBytes &&
		int64(h.records)*recordHeaderBytes <= h.recordBytes
	return h, ok
}

// recordHeader stands before each payload. The payload has a plain checksum, so
// that appenders compute it before anybody knows the position.
type recordHeader struct {
	length     uint32
	payloadCRC uint32
	kind       byte
}

func (s seal) putRecord(b []byte, offset int64, h recordHeader) {
	binary.LittleEndian.PutUint32(b, h.length)
	binary.LittleEndian.PutUint32(b[4:], h.payloadCRC)
	b[8] = h.kind
	copy(b[9:12], s.tag[:])
	binary.LittleEndian.PutUint32(b[12:], s.sum(offset, b[:12]))
}

func (s seal) record(b []byte, offset int64) (recordHeader, bool) {
	if len(b) < recordHeaderBytes || [3]byte(b[9:12]) != s.tag ||
		binary.LittleEndian.Uint32(b[12:]) != s.sum(offset, b[:12]) {
		return recordHeader{}, false
	}
	return recordHeader{
		length:     binary.LittleEndian.Uint32(b),
		payloadCRC: binary.LittleEndian.Uint32(b[4:]),
		kind:       b[8],
	}, true
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, segmentSuffix) }

// parseSegmentName accepts what segmentName makes, with the given suffix.
func parseSegmentName(name, suffix string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	return id, err == nil && id > 0 && hex == fmt.Sprintf("%016x", id)
}
