package durable

const (
	blockBytes        = 4096
	nameBytes         = 16
	dataStart         = 2 * blockBytes
	recordHeaderBytes = 16
	batchHeaderBytes  = 48
	minSegmentBytes   = 64 << 10
	maxSegmentBytes   = 1 << 30
)

func batchSize(n int64) int64 {
	return (batchHeaderBytes + n + blockBytes - 1) / blockBytes * blockBytes
}
