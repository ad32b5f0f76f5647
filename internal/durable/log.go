package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// LogConfig says where a log lives and how it batches. Zero values take the
// defaults.
type LogConfig struct {
	// Dir is the directory; OpenLog creates it. The caller holds its Lock.
	Dir string
	// FS is the file system; nil is OS().
	FS FS
	// Name is part of every segment header (at most 16 bytes), so that segments of
	// different logs cannot be mistaken for each other; it is also the value of
	// the metrics' label "log".
	Name string
	// SegmentBytes is the size of a segment, 64 MiB by default. A nearly full disk
	// gets smaller segments before it gets ErrNoSpace.
	SegmentBytes int64
	// MaxBatchRecords and MaxBatchBytes bound what one sync covers: 512 and 8 MiB.
	MaxBatchRecords int
	MaxBatchBytes   int64
	// MaxRecordBytes bounds one payload: 16 MiB by default. It must fit a segment.
	MaxRecordBytes int64
	// MaxLazyBytes bounds what AppendLazy holds in memory while the disk refuses to
	// write: 4 MiB. Beyond it lazy records are dropped and counted.
	MaxLazyBytes int64
	// LazyDelay is the longest time a lazy record waits for a batch: 50 ms.
	LazyDelay time.Duration
	// Perm is the mode of new files, 0600 by default; directories add the x bits.
	Perm fs.FileMode
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer receives the metrics; it may be nil.
	Registerer prometheus.Registerer
	// OnHealth, where set, is called by the writer with an error when a batch
	// failed, and with nil at the first batch that succeeded again. It must not
	// call the log.
	OnHealth func(err error)
}

// Validate reports all faults at once.
func (c LogConfig) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: missing"))
	}
	if c.Name == "" || len(c.Name) > nameBytes {
		errs = append(errs, fmt.Errorf("name: %q must have 1 to %d bytes", c.Name, nameBytes))
	}
	d := c.withDefaults()
	if d.SegmentBytes%blockBytes != 0 || d.SegmentBytes < minSegmentBytes || d.SegmentBytes > maxSegmentBytes {
		errs = append(errs, fmt.Errorf("segment_bytes: %d must be a multiple of %d from %d to %d",
			d.SegmentBytes, blockBytes, minSegmentBytes, int64(maxSegmentBytes)))
	}
	if need := dataStart + batchSize(d.MaxRecordBytes+recordHeaderBytes); d.MaxRecordBytes < 1 || need > d.SegmentBytes {
		errs = append(errs, fmt.Errorf("max_record_bytes: %d does not fit a segment of %d", d.MaxRecordBytes, d.SegmentBytes))
	}
	if d.MaxBatchRecords < 1 || d.MaxBatchBytes < 1 || d.MaxLazyBytes < 1 || d.LazyDelay < 1 {
		errs = append(errs, errors.New("max_batch_records, max_batch_bytes, max_lazy_bytes, lazy_delay: must be positive"))
	}
	return errors.Join(errs...)
}

func (c LogConfig) withDefaults() LogConfig {
	if c.FS == nil {
		c.FS = OS()
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 64 << 20
	}
	if c.MaxRecordBytes == 0 {
		c.MaxRecordBytes = min(16<<20, c.SegmentBytes/4)
	}
	if c.MaxBatchRecords == 0 {
		c.MaxBatchRecords = 512
	}
	if c.MaxBatchBytes == 0 {
		c.MaxBatchBytes = 8 << 20
	}
	if c.MaxLazyBytes == 0 {
		c.MaxLazyBytes = 4 << 20
	}
	if c.LazyDelay == 0 {
		c.LazyDelay = 50 * time.Millisecond
	}
	if c.Perm == 0 {
		c.Perm = 0o600
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Pos is where a record is. Positions of one log are ordered, and never used
// again for another record. The zero value is before every record.
type Pos struct {
	// Segment counts from 1.
	Segment uint64
	// Offset is in bytes from the start of the segment file.
	Offset int64
}

// Compare orders positions: -1, 0 or 1.
func (p Pos) Compare(q Pos) int {
	switch {
	case p.Segment < q.Segment, p.Segment == q.Segment && p.Offset < q.Offset:
		return -1
	case p == q:
		return 0
	}
	return 1
}

// Record is one appended record.
type Record struct {
	// Pos is what Append returned.
	Pos Pos
	// Kind is what was given to Append; the log gives it no meaning.
	Kind byte
	// Payload is the concatenation of what was given to Append.
	Payload []byte
}

// DiskBytes is the room the record takes in its segment, without the share of
// batch header and padding.
func (r Record) DiskBytes() int64 { return DiskBytes(len(r.Payload)) }

// DiskBytes is the room a record with a payload of that many bytes takes.
func DiskBytes(payloadBytes int) int64 { return recordHeaderBytes + int64(payloadBytes) }

// SegmentStat describes a segment.
type SegmentStat struct {
	// ID is Pos.Segment of its records.
	ID uint64
	// UsedBytes is what headers, records and padding take; the rest is free.
	UsedBytes int64
	// Sealed segments take no more batches.
	Sealed bool
	// Poisoned: sealed because a write or sync failed.
	Poisoned bool
}

// Report is what Replay found.
type Report struct {
	// Segments, Batches and Records that were read (of a batch with damage, the
	// intact records count).
	Segments, Batches, Records int
	// TornBytes is what was cut at the end of unfinished segments.
	TornBytes int64
	// Quarantined are the damaged spans that were kept aside.
	Quarantined []Span
	// End is the position after the last record: where a later Replay may start to
	// see only what comes after this one.
	End Pos
}

// Span is damage in the middle of a log.
type Span struct {
	// Segment, From and To say which bytes; From and To are both 0 where the whole
	// segment is unreadable because its headers are lost.
	Segment  uint64
	From, To int64
	// File holds a copy of the bytes (or the unreadable segment itself).
	File string
	// New is false where an earlier Replay has already kept it aside.
	New bool
}
