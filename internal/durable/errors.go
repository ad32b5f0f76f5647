package durable

import "errors"

// The sentinels of the package. They come wrapped; test them with errors.Is.
var (
	// ErrNoSpace: the disk (or the quota) is full. Nothing of the call counts; it
	// may be repeated when space is back.
	ErrNoSpace = errors.New("no space left on the device")
	// ErrPoisoned: writing or syncing the batch failed. Nothing of it counts, the
	// segment takes no more batches, and the next append uses a new one. What was
	// synced to the segment before stays valid and readable.
	ErrPoisoned = errors.New("segment poisoned by a failed write or sync")
	// ErrCorrupt: bytes on disk are not what was written.
	ErrCorrupt = errors.New("corrupt data")
	// ErrLocked: another process holds the directory.
	ErrLocked = errors.New("directory is locked")
	// ErrClosed: the log is not running any more (or Close was called).
	ErrClosed = errors.New("log is closed")
	// ErrTooLarge: the record exceeds LogConfig.MaxRecordBytes.
	ErrTooLarge = errors.New("record too large")
	// ErrActive: the segment is the newest one and cannot be removed. Seal first.
	ErrActive = errors.New("segment is in use")
	// ErrNoSegment: the position names a segment that does not exist (any more).
	ErrNoSegment = errors.New("no such segment")
)
