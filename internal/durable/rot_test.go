package durable_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/internal/durable"
	"understudy/internal/durable/simfs"
)

// running opens, replays and runs a simulated log; stop ends it.
func running(t *testing.T, cfg durable.LogConfig) (log *durable.Log, stop func()) {
	t.Helper()
	log, err := durable.OpenLog(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	return log, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
}

func mustAppend(t *testing.T, log *durable.Log, payload string) durable.Pos {
	t.Helper()
	pos, err := log.Append(t.Context(), 'M', []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func payloads(r replayed) []string {
	var out []string
	for _, rec := range r.records {
		_, p, _ := strings.Cut(rec, "} M ")
		out = append(out, p)
	}
	return out
}

// TestRot damages a log in many ways: what is not hit is kept, what is hit is kept
// aside, and saying so once is enough.
func TestRot(t *testing.T) {
	t.Parallel()
	const seg1 = "/log/0000000000000001.seg"
	rot := bytes.Repeat([]byte{0xA5}, 8)
	tests := []struct {
		name string
		// damage gets the positions of r0 r1 r2 (segment 1) and r3 (segment 2).
		damage func(f *simfs.FS, pos []durable.Pos) error
		lost   []string
		spans  int
	}{
		{"payload", func(f *simfs.FS, p []durable.Pos) error { return f.WriteRaw(seg1, p[1].Offset+16, rot) }, []string{"r1"}, 1},
		{"record header", func(f *simfs.FS, p []durable.Pos) error { return f.WriteRaw(seg1, p[1].Offset, rot) }, []string{"r1"}, 1},
		{"batch header", func(f *simfs.FS, p []durable.Pos) error { return f.WriteRaw(seg1, p[1].Offset-40, rot) }, []string{"r1"}, 1},
		{"two batches", func(f *simfs.FS, p []durable.Pos) error {
			return errors.Join(f.WriteRaw(seg1, p[0].Offset-48, rot), f.WriteRaw(seg1, p[1].Offset-48, rot))
		}, []string{"r0", "r1"}, 1},
		{"last batch of a sealed segment", func(f *simfs.FS, p []durable.Pos) error {
			return f.WriteRaw(seg1, p[2].Offset-48, rot)
		}, []string{"r2"}, 1},
		{"last record of a clean stop", func(f *simfs.FS, p []durable.Pos) error {
			return f.WriteRaw("/log/0000000000000002.seg", p[3].Offset+16, rot)
		}, []string{"r3"}, 1},
		{"first header", func(f *simfs.FS, _ []durable.Pos) error { return f.WriteRaw(seg1, 0, rot) }, nil, 0},
		{"second header", func(f *simfs.FS, _ []durable.Pos) error { return f.WriteRaw(seg1, 4096, rot) }, nil, 0},
		{"both headers", func(f *simfs.FS, _ []durable.Pos) error {
			return errors.Join(f.WriteRaw(seg1, 30, rot), f.WriteRaw(seg1, 4096+30, rot))
		}, []string{"r0", "r1", "r2"}, 1},
		{"padding", func(f *simfs.FS, p []durable.Pos) error { return f.WriteRaw(seg1, p[1].Offset+3000, rot) }, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fsys := simfs.New()
			log, stop := running(t, simConfig(fsys))
			pos := []durable.Pos{mustAppend(t, log, "r0"), mustAppend(t, log, "r1"), mustAppend(t, log, "r2")}
			if err := log.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			pos = append(pos, mustAppend(t, log, "r3"))
			stop()
			if err := tt.damage(fsys, pos); err != nil {
				t.Fatal(err)
			}
			want := slices.DeleteFunc([]string{"r0", "r1", "r2", "r3"}, func(s string) bool { return slices.Contains(tt.lost, s) })
			for round := range 2 {
				log, r := replaySim(t, fsys, durable.Pos{})
				if got := payloads(r); !slices.Equal(got, want) {
					t.Errorf("replayed %q, want %q", got, want)
				}
				if len(r.report.Quarantined) != tt.spans || r.report.TornBytes != 0 {
					t.Errorf("report %+v", r.report)
				}
				for _, s := range r.report.Quarantined {
					if s.New != (round == 0) {
						t.Errorf("round %d: %+v", round, s)
					}
					data, err := durable.ReadFile(fsys, s.File, 1<<20)
					if err != nil || !bytes.Contains(data, rot[:2]) {
						t.Errorf("side file: %v", err)
					}
				}
				_ = log.Close()
			}
		})
	}
}

// TestUnreadableTail: a sector that cannot be read today is not a torn tail.
func TestUnreadableTail(t *testing.T) {
	t.Parallel()
	fsys := simfs.New()
	log, _ := running(t, simConfig(fsys))
	mustAppend(t, log, "first")
	last := mustAppend(t, log, "last")
	fsys = fsys.Restart(1)
	fsys.FailReads(func(_ string, off int64) error {
		if off/4096 == last.Offset/4096 {
			return simfs.ErrIO
		}
		return nil
	})
	log2, r := replaySim(t, fsys, durable.Pos{})
	if len(r.report.Quarantined) != 1 || r.report.TornBytes != 0 {
		t.Errorf("report %+v", r.report)
	}
	_ = log2.Close()
	log3, stop := running(t, simConfig(fsys))
	mustAppend(t, log3, "new")
	stop()
	fsys.FailReads(nil) // the disk has recovered
	log4, r := replaySim(t, fsys, durable.Pos{})
	if got := payloads(r); !slices.Equal(got, []string{"first", "last", "new"}) {
		t.Errorf("replayed %q", got)
	}
	_ = log4.Close()
}

// TestForeignSegments: another log's files and unknown versions stop the start and
// stay as they are; files that are not ours are not touched.
func TestForeignSegments(t *testing.T) {
	t.Parallel()
	fsys := simfs.New()
	log, stop := running(t, simConfig(fsys))
	mustAppend(t, log, "x")
	stop()
	if err := durable.WriteFile(fsys, "/log/index", 0o600, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	cfg := simConfig(fsys)
	cfg.Name = "other"
	if _, err := durable.OpenLog(cfg); err == nil || !strings.Contains(err.Error(), `belongs to log "sim"`) {
		t.Errorf("other log: %v", err)
	}
	l, r := replaySim(t, fsys, durable.Pos{})
	_ = l.Close()
	if data, err := durable.ReadFile(fsys, "/log/index", 10); len(r.records) != 1 || string(data) != "mine" {
		t.Errorf("%d records, %q, %v", len(r.records), data, err)
	}
}

// TestPoison: after a failed sync the segment is never written or synced again, the
// waiters get the error, older records stay readable, and the next append works.
func TestPoison(t *testing.T) {
	t.Parallel()
	fsys := simfs.New()
	cfg := simConfig(fsys)
	var health []error
	cfg.OnHealth = func(err error) { health = append(health, err) }
	log, stop := running(t, cfg)
	good := mustAppend(t, log, "good")
	file := fmt.Sprintf("%016x.seg", good.Segment)
	failed, touched := false, 0
	fsys.FailWhen(func(_ int, what, name string) error {
		if path.Base(name) != file && path.Base(name) != file+".tmp" {
			return nil
		}
		if failed && (what == "write" || what == "sync") {
			touched++
		}
		if what == "sync" && !failed {
			failed = true
			return simfs.ErrIO
		}
		return nil
	})
	log.AppendLazy('L', []byte("lazy"))
	if _, err := log.Append(t.Context(), 'M', []byte("bad")); !errors.Is(err, durable.ErrPoisoned) || !errors.Is(err, simfs.ErrIO) {
		t.Fatalf("append: %v", err)
	}
	next := mustAppend(t, log, "next")
	if next.Segment == good.Segment || touched > 0 {
		t.Errorf("next at %v, %d operations on the poisoned segment", next, touched)
	}
	if r, err := log.Read(good); err != nil || string(r.Payload) != "good" {
		t.Errorf("read good: %v", err)
	}
	if s := log.Segments()[0]; !s.Poisoned || !s.Sealed {
		t.Errorf("%+v", s)
	}
	stop()
	if len(health) != 2 || health[0] == nil || health[1] != nil {
		t.Errorf("health %v", health)
	}
	l, r := replaySim(t, fsys, durable.Pos{})
	_ = l.Close()
	if got := fmt.Sprint(r.records); !strings.Contains(got, "good") || !strings.Contains(got, "next") ||
		!strings.Contains(got, "lazy") || strings.Contains(got, "bad") {
		t.Errorf("replayed %v", got)
	}
}

// TestPayloadPosesAsRecord appends the bytes of whole segments as payloads, damages
// the batch in front, and expects nothing from inside them.
func TestPayloadPosesAsRecord(t *testing.T) {
	t.Parallel()
	fsys := simfs.New()
	log, stop := running(t, simConfig(fsys))
	first := mustAppend(t, log, strings.Repeat("evil", 100))
	disk, err := durable.ReadFile(fsys, "/log/0000000000000001.seg", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	evil := string(disk[8192 : 8192+4096])
	second := mustAppend(t, log, strings.Repeat(evil, 3))
	mustAppend(t, log, "end")
	stop()
	for _, p := range []durable.Pos{first, second} {
		if err := fsys.WriteRaw("/log/0000000000000001.seg", p.Offset-48, make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}
	l, r := replaySim(t, fsys, durable.Pos{})
	_ = l.Close()
	if got := payloads(r); !slices.Equal(got, []string{"end"}) {
		t.Errorf("%d records", len(got))
	}
}

// TestLazyDelay: a lazy record is on disk after LazyDelay at most, without help.
func TestLazyDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		cfg := simConfig(fsys)
		cfg.LazyDelay = 50 * time.Millisecond
		log, stop := running(t, cfg)
		mustAppend(t, log, "x")
		before := log.End()
		log.AppendLazy('L', []byte("lazy"))
		synctest.Wait()
		if log.End() != before {
			t.Error("written at once")
		}
		<-time.After(51 * time.Millisecond)
		synctest.Wait()
		if log.End() == before {
			t.Error("not written after 51 ms")
		}
		// A dead disk: retried, kept, and written when it is back.
		fsys.FailWhen(func(_ int, what, _ string) error {
			if what == "sync" {
				return simfs.ErrIO
			}
			return nil
		})
		log.AppendLazy('L', []byte("patient"))
		<-time.After(time.Minute)
		fsys.FailWhen(nil)
		<-time.After(time.Minute)
		stop()
		l, r := replaySim(t, fsys, durable.Pos{})
		_ = l.Close()
		if got := fmt.Sprint(r.records); !strings.Contains(got, "L lazy") || strings.Count(got, "L patient") != 1 {
			t.Errorf("replayed %v", got)
		}
	})
}

// TestRunEnds: whatever the disk does, Run ends and every append is answered.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	fsys := simfs.New()
	log, err := durable.OpenLog(simConfig(fsys))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, 100)
	for range cap(answers) { // some wait before Run, some come while it stops
		go func() {
			_, err := log.Append(context.Background(), 'M', make([]byte, 3000))
			answers <- err
		}()
	}
	done := make(chan error, 1)
	go func() { done <- log.Run(ctx) }()
	if err := <-answers; err != nil {
		t.Error(err)
	}
	fsys.Crash()
	cancel()
	deadline := time.After(20 * time.Second)
	for n := 1; n < cap(answers); n++ {
		select {
		case err := <-answers:
			if err != nil && !errors.Is(err, durable.ErrClosed) && !errors.Is(err, simfs.ErrCrashed) {
				t.Error(err)
			}
		case <-deadline:
			t.Fatalf("%d of %d answered", n, cap(answers))
		}
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-deadline:
		t.Fatal("Run does not end")
	}
	if _, err := log.Append(t.Context(), 'M'); !errors.Is(err, durable.ErrClosed) {
		t.Errorf("append after Run: %v", err)
	}
	if err := log.Run(t.Context()); !errors.Is(err, durable.ErrClosed) {
		t.Errorf("second Run: %v", err)
	}
}
