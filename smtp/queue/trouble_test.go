package queue

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"understudy/internal/durable"
	"understudy/internal/durable/simfs"
	"understudy/smtp"
)

// Segments that hold nothing alive free space; they must go also when there is too
// little of it to copy what is alive in others.
func TestEmptySegmentsGoWithoutSpaceForCopies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		cfg.ReserveBytes = 1 << 20
		var free atomic.Int64
		free.Store(1 << 30)
		r := start(t, cfg, Deps{Free: func(string) (int64, error) { return free.Load(), nil }})
		var drop []string
		for i := range 60 {
			id := r.put(envelope("s@x.example", "a@y.example"), strings.Repeat("body ", 10_000))
			if i != 25 { // in the middle: its segment is to be copied
				drop = append(drop, id)
			}
		}
		before := len(r.log.Segments())
		free.Store(cfg.ReserveBytes/2 - 1)
		r.apply(Delete, Selection{IDs: drop}, ApplyOptions{})
		sleep(5 * time.Minute)
		if after := len(r.log.Segments()); after > 3 {
			t.Errorf("%d segments of %d remain: nothing frees the space", after, before)
		}
		r.stop()
	})
}

// The alarm about a disk that refused a write ends when it writes again, also
// where nobody sends mail.
func TestDiskAlarmEndsOnAQuietMachine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		alarms := &recorder{}
		r := start(t, crashConfig(), Deps{FS: fsys, Alarms: alarms, noSpare: true})
		sleep(time.Second)
		fsys.FailWhen(func(_ int, what, _ string) error {
			if what == "allocate" {
				return durable.ErrNoSpace
			}
			return nil
		})
		var err error
		for i := 0; i < 100 && err == nil; i++ {
			_, err = store(r.Spool, envelope("s@x.example", "a@y.example"), "fills a segment")
		}
		if !errors.Is(err, smtp.ErrFull) {
			t.Fatalf("no room for another segment: %v", err)
		}
		if alarms.text("queue:disk") == "" {
			t.Fatal("no alarm")
		}
		fsys.FailWhen(nil)
		sleep(2 * time.Minute)
		if text := alarms.text("queue:disk"); text != "" {
			t.Errorf("the disk is well again, and the alarm says %q", text)
		}
		r.stop()
	})
}

// A process without descriptors is no reason to hold a message as damaged.
func TestTooManyOpenFilesIsNoDamage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := &crowded{FS: simfs.New()}
		alarms := &recorder{}
		r := start(t, crashConfig(), Deps{FS: fsys, Alarms: alarms})
		body := strings.Repeat("spilled ", 20_000)
		id := r.put(envelope("s@x.example", "a@y.example"), body)
		d := r.take()
		fsys.full.Store(true)
		if _, _, err := d.Open(t.Context()); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrDamaged) {
			t.Errorf("Open: %v", err)
		}
		fsys.full.Store(false)
		d.Done(nil)
		if got := r.show(id); got.State != Queued || alarms.text("queue:damaged") != "" {
			t.Errorf("the message is %s (%s)", got.State, got.Reason)
		}
		if got := r.body(id); got != "Received: test\r\n"+body {
			t.Errorf("%d bytes", len(got))
		}
		r.stop()
	})
}

// crowded is a file system on which no more files can be opened.
type crowded struct {
	durable.FS
	full atomic.Bool
}

func (c *crowded) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if c.full.Load() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
	}
	return c.FS.OpenFile(name, flag, perm)
}

// A file system that cannot reserve space (copy-on-write) may say "full" only when
// a batch is written: the sender is told 452 all the same.
func TestFullInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		r := start(t, crashConfig(), Deps{FS: fsys})
		r.put(envelope("s@x.example", "a@y.example"), "before")
		fsys.FailWhen(func(_ int, what, _ string) error {
			if what == "sync" {
				return durable.ErrNoSpace
			}
			return nil
		})
		if _, err := store(r.Spool, envelope("s@x.example", "a@y.example"), "during"); !errors.Is(err, smtp.ErrFull) {
			t.Errorf("a full disk gives %v, want ErrFull", err)
		}
		fsys.FailWhen(nil)
		r.stop()
	})
}

// Hold rules outlive the segment they were written to, also without a checkpoint.
func TestRulesOutliveTheirSegment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		r := start(t, cfg, Deps{})
		if err := r.SetHoldRules(t.Context(), []HoldRule{{Domain: "hold.example"}}); err != nil {
			t.Fatal(err)
		}
		id := r.put(envelope("s@x.example", "a@y.example"), "goes")
		r.apply(Delete, Selection{IDs: []string{id}}, ApplyOptions{})
		sleep(48 * time.Hour)
		if first := r.log.Segments()[0].ID; first == 1 {
			t.Fatal("the first segment is still there")
		}
		r.stop()
		for seq := range uint64(1000) {
			if err := ignoreMissing(os.Remove(r.checkpointPath(seq))); err != nil {
				t.Fatal(err)
			}
		}
		r = start(t, cfg, Deps{})
		if rules := r.HoldRules(); len(rules) != 1 {
			t.Errorf("rules %v", rules)
		}
		r.stop()
	})
}
