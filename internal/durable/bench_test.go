package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAppend reports durable appends of 4 KiB per second, and next to it
// (floor/s) what bare write + fdatasync of the same batch sizes reach on this disk
// without any log: the share tells what the log itself costs.
// TMPDIR must be on a real disk.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			l, _, _ := startLog(b, LogConfig{Dir: dir, Name: "bench"}, nil)
			payload := make([]byte, 4096)
			for i := range payload {
				payload[i] = byte(i * 7)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := l.Append(b.Context(), 'M', payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			perSecond := float64(b.N) / b.Elapsed().Seconds()
			batches := uint64(0)
			for _, s := range l.segments {
				batches += s.batches
			}
			perBatch := float64(b.N) / float64(batches)
			b.ReportMetric(perSecond, "appends/s")
			b.ReportMetric(perBatch, "records/batch")
			floor := measureFloor(b, filepath.Join(dir, "floor"), int(perBatch*float64(DiskBytes(4096))), perBatch)
			b.ReportMetric(floor, "floor/s")
			b.ReportMetric(100*perSecond/floor, "%floor")
		})
	}
}

// measureFloor writes and syncs batches to a file prepared like a spare segment.
func measureFloor(b *testing.B, name string, batchBytes int, records float64) float64 {
	b.Helper()
	f, err := OS().OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const size = 64 << 20
	if err := fillSpare(b.Context(), f, size); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, roundUp(int64(batchBytes)))
	for i := range buf {
		buf[i] = byte(i*3 + 1)
	}
	n := 0
	began := time.Now()
	for off := int64(0); off+int64(len(buf)) <= size && n < 2000; off += int64(len(buf)) {
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	return float64(n) * records / time.Since(began).Seconds()
}
