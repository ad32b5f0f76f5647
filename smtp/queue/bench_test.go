package queue

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/smtp/queue/queuetest"
)

func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		for _, writers := range []int{1, 10, 50, 200} {
			b.Run(fmt.Sprintf("%dKiB/writers=%d", size>>10, writers), func(b *testing.B) {
				cfg := DefaultConfig()
				cfg.Dir, cfg.ReserveBytes = b.TempDir(), 0
				r := start(b, cfg, Deps{Logger: slog.New(enabled{slog.DiscardHandler})})
				body := []byte(strings.Repeat("0123456789abcde\n", size/16))
				header := []byte("Received: from a by b with ESMTP id 01JDABCDEFGHJKMNPQRSTVWXYZ;\r\n\tTue, 24 Nov 2026 12:00:00 +0000\r\n")
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				for range writers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							d, err := r.Create(context.Background(), int64(size))
							if err != nil {
								b.Error(err)
								return
							}
							if _, err := d.Write(body); err != nil {
								b.Error(err)
								return
							}
							env := queuetest.Envelope()
							if err := d.Commit(context.Background(), env, header); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}

func BenchmarkTakeDone(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Dir, cfg.ReserveBytes = b.TempDir(), 0
	r := start(b, cfg, Deps{})
	r.fill(b, 20_000)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b.ResetTimer()
	for n := 0; n < b.N; {
		list, err := r.Take(ctx, "", 16)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range list {
			body, _, err := d.Open(ctx)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				b.Fatal(err)
			}
			d.Done(nil)
			n++
		}
	}
}

// fill stores n messages of 1 KiB for many recipients and domains.
func (r *running) fill(tb testing.TB, n int) {
	tb.Helper()
	body := strings.Repeat("0123456789abcde\n", 64)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				env := envelope(fmt.Sprintf("sender%d@host%d.example", i, i%977), fmt.Sprintf("user%d@domain%d.example", i%1000, i%20))
				if _, err := store(r.Spool, env, body); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// enabled is a handler that is given every record.
type enabled struct{ slog.Handler }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }

// BenchmarkMemory reports how much memory a queued message takes.
func BenchmarkMemory(b *testing.B) {
	s := newSpool(testConfig(b.TempDir()), Deps{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s.mu.Lock()
	for i := range b.N {
		env := envelope(fmt.Sprintf("bounces+%d=user%d@lists%d.example", i, i%5000, i%977), fmt.Sprintf("user%d@domain%d.example", i%5000, i%20))
		s.insert(newMessage(s.idents.next(time.Now()), env, 1), "")
	}
	s.mu.Unlock()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "B/message")
	runtime.KeepAlive(s)
}
