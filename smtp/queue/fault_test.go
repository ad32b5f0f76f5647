package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/internal/durable"
	"understudy/internal/durable/simfs"
	"understudy/smtp"
)

// TestFaultAtEveryOperation makes each disk operation of a history fail once. The
// history goes on: what was answered nil must be there, live and after a crash.
func TestFaultAtEveryOperation(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]simfs.Fault{
		"EIO": {Err: simfs.ErrIO}, "EIO half done": {Err: simfs.ErrIO, Partly: true},
		"ENOSPC": {Err: durable.ErrNoSpace}, "ENOSPC half done": {Err: durable.ErrNoSpace, Partly: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const steps, seed = 20, 11
			ops := 0
			synctest.Test(t, func(t *testing.T) {
				whole := simfs.New()
				if _, err := runHistory(whole, seed, steps); err != nil {
					t.Fatal(err)
				}
				ops = whole.Ops()
			})
			for n := 1; n <= ops && !t.Failed(); n++ {
				synctest.Test(t, func(t *testing.T) { faultAt(t, n, fault, seed, steps) })
			}
		})
	}
}

func faultAt(t *testing.T, n int, fault simfs.Fault, seed uint64, steps int) {
	t.Helper()
	when := fmt.Sprintf("fault at operation %d", n)
	fsys := simfs.New()
	fsys.FailAt(n, fault)
	s, err := openManual(fsys)
	if err != nil {
		if !errors.Is(err, fault.Err) {
			t.Errorf("%s: Open: %v", when, err)
		}
		return
	}
	h := &history{s: s, fs: fsys, rng: newTestRand(seed), l: newLedger()}
	failed := 0
	for range steps {
		err := h.step()
		if err == nil {
			continue
		}
		if errors.Is(err, durable.ErrNoSpace) {
			sleep(2 * spaceAge) // the disk counts as full for a while
		}
		if failed++; failed > 2 {
			t.Fatalf("%s: one fault, and still: %v", when, err)
		}
	}
	// Live, every message is exactly where its last operation left it.
	live := h.l.clone()
	live.synced()
	live.check(t, s.Spool, when+", live")
	// After the next synced operation the log has it all.
	id, err := store(s.Spool, envelope("s@x.example", "z@y.example"), "last")
	if err != nil { // the fault may come this late
		sleep(2 * spaceAge)
		id, err = store(s.Spool, envelope("s@x.example", "z@y.example"), "last")
	}
	if err != nil {
		t.Fatalf("%s: Commit at the end: %v", when, err)
	}
	sleep(10 * time.Second) // lazy records that failed are tried again
	h.l.bodies[id] = "Received: test\r\nlast"
	h.l.note(s.Spool, id)
	h.l.synced()
	fsys.Crash()
	_ = s.close() // it has crashed
	checkRecovered(t, fsys.Restart(uint64(n)), h.l, when+", after a crash")
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		fsys.SetCapacity(512 << 10)
		cfg := crashConfig()
		alarms := &recorder{}
		s, err := Open(cfg, Deps{FS: fsys, Alarms: alarms})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		stored := map[string]string{}
		refused := 0
		for i := range 120 {
			body := fmt.Sprint(i, strings.Repeat(" x", 1000+(i%4)*6000))
			id, err := store(s, envelope("s@x.example", "a@y.example"), body)
			switch {
			case err == nil:
				stored[id] = body
			case errors.Is(err, smtp.ErrFull):
				refused++
			default:
				t.Fatalf("a full disk gives %v, want ErrFull", err)
			}
		}
		if refused == 0 || len(stored) == 0 {
			t.Fatalf("%d stored, %d refused: the test does not fill the disk", len(stored), refused)
		}
		if err := s.Room(0); !errors.Is(err, smtp.ErrFull) {
			t.Errorf("Room on a full disk: %v", err)
		}
		fsys.SetCapacity(8 << 20)
		sleep(2 * time.Minute)
		id, err := store(s, envelope("s@x.example", "a@y.example"), "space is back")
		if err != nil {
			t.Fatalf("space is back, and still: %v", err)
		}
		stored[id] = "space is back"
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		m, err := openManual(fsys.Restart(3))
		if err != nil {
			t.Fatal(err)
		}
		for id, body := range stored {
			if got, err := readAllOf(m.Spool, id); err != nil || got != "Received: test\r\n"+body {
				t.Errorf("%s: %d bytes, want %d: %v", id, len(got), len(body)+16, err)
			}
		}
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReserveAndMemory(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	cfg.ReserveBytes = 1 << 20
	cfg.MemoryBytes = 2 * cfg.SpillBytes
	free := int64(2 << 20)
	r := start(t, cfg, Deps{Free: func(string) (int64, error) { return free, nil }})
	if err := r.Room(1 << 20); err != nil {
		t.Errorf("Room for exactly what is there: %v", err)
	}
	if err := r.Room(1<<20 + 1); !errors.Is(err, smtp.ErrFull) {
		t.Errorf("Room below the reserve: %v", err)
	}
	var open []smtp.Draft
	for {
		d, err := r.Create(t.Context(), 30<<10)
		if err != nil {
			if !errors.Is(err, smtp.ErrFull) {
				t.Errorf("Create above the memory bound: %v", err)
			}
			break
		}
		if open = append(open, d); len(open) > 100 {
			t.Fatal("memory is not bounded")
		}
	}
	for _, d := range open {
		d.Discard()
	}
	if n := r.memory.used.Load(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
	r.put(envelope("s@x.example", "a@y.example"), "fits again")
	if n := r.memory.used.Load(); n != 0 {
		t.Errorf("%d bytes are still taken after a Commit", n)
	}
}

func TestDamagedMessageIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		s, err := openManual(fsys)
		if err != nil {
			t.Fatal(err)
		}
		alarms := &recorder{}
		s.alarms = alarms
		bad, err := store(s.Spool, envelope("s@x.example", "a@y.example"), "rots")
		if err != nil {
			t.Fatal(err)
		}
		good, err := store(s.Spool, envelope("s@x.example", "a@y.example"), "stays")
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.lookup(bad)
		if err != nil {
			t.Fatal(err)
		}
		if err := fsys.WriteRaw(fmt.Sprintf("/spool/log/%016x.seg", m.pos.Segment), m.pos.Offset+200, []byte("garbage")); err != nil {
			t.Fatal(err)
		}
		list, err := s.Take(t.Context(), "", 10)
		if err != nil || len(list) != 1 || list[0].Envelope().ID != good {
			t.Fatalf("took %d, %v", len(list), err)
		}
		list[0].Done(nil)
		d, err := s.Show(t.Context(), bad)
		if err != nil || d.State != Held || alarms.text("queue:damaged") == "" {
			t.Errorf("damaged message is %s (%s), %v, alarm %q", d.State, d.Reason, err, alarms.text("queue:damaged"))
		}
		if err := errors.Join(s.compact(t.Context()), s.erase(t.Context())); err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		l, err := runHistory(fsys, 5, 60)
		if err != nil {
			t.Fatal(err)
		}
		l.synced()
		s, err := openManual(fsys)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.writeCheckpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		path := s.checkpointPath(s.checkpoint.seq)
		l.check(t, s.Spool, "before")
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if err := fsys.WriteRaw(path, 300, []byte{0xff, 0xfe}); err != nil {
			t.Fatal(err)
		}
		alarms := &recorder{}
		again, err := Open(crashConfig(), Deps{FS: fsys, noSpare: true, Alarms: alarms})
		if err != nil {
			t.Fatal(err)
		}
		for id, views := range l.views {
			if views[0] == absent {
				continue
			}
			if got, err := readAllOf(again, id); err != nil || got != l.bodies[id] {
				t.Errorf("%s: %d bytes, want %d: %v", id, len(got), len(l.bodies[id]), err)
			}
		}
		if alarms.text("queue:checkpoint") == "" {
			t.Error("no alarm")
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}
