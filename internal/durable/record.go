package durable

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
