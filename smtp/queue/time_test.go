package queue

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"understudy/smtp"
)

// recorder is smtp.Alarms for tests.
type recorder struct {
	mu     sync.Mutex
	raised map[string]string
}

func (r *recorder) Raise(key, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.raised == nil {
		r.raised = make(map[string]string)
	}
	r.raised[key] = text
}

func (r *recorder) Clear(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.raised, key)
}

func (r *recorder) text(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.raised[key]
}

// sleep lets the bubble's time pass.
func sleep(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestRetrySchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(t.TempDir()), Deps{})
		r.put(envelope("s@x.example", "a@y.example"), "body")
		for i := range 6 {
			begin := time.Now()
			d := r.takeWithin(2 * time.Hour)
			waited, want := time.Since(begin), r.schedule.Wait(i, 0)
			if i == 0 {
				want = 0
			}
			if waited > want || waited < want-want/4-time.Second {
				t.Errorf("attempt %d came after %v, want %v or up to a quarter less", i+1, waited, want)
			}
			d.Done([]smtp.Result{result(0, smtp.Deferred, "busy")})
		}
		// The hop is back.
		r.Expedite("")
		begin := time.Now()
		r.takeWithin(time.Second).Done(nil)
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("after Expedite it took %v", waited)
		}
		// Without a result there is no back-off.
		r.takeWithin(time.Second).Done([]smtp.Result{result(0, smtp.Delivered, "ok")})
		r.stop()
	})
}

func (r *running) takeWithin(limit time.Duration) smtp.Delivery {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	list, err := r.Take(ctx, "", 1)
	if err != nil {
		r.t.Fatalf("Take: %v", err)
	}
	return list[0]
}

func TestRecipientsWaitOnTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(t.TempDir()), Deps{})
		r.put(envelope("s@x.example", "a@y.example", "b@y.example", "c@y.example"), "body")
		// a is deferred, b and c were not attempted: they are due at once, a is not.
		r.take().Done([]smtp.Result{result(0, smtp.Deferred, "busy")})
		d := r.take()
		if got := d.Pending(); len(got) != 2 || got[0] != 1 || got[1] != 2 {
			t.Fatalf("pending %v, want [1 2]", got)
		}
		d.Done([]smtp.Result{result(1, smtp.Refused, "no"), result(2, smtp.Delivered, "ok")})
		d = r.takeWithin(time.Hour)
		if got := d.Pending(); len(got) != 1 || got[0] != 0 {
			t.Fatalf("pending %v, want [0]", got)
		}
		d.Done([]smtp.Result{result(0, smtp.Delivered, "ok")})
		list, err := r.List(t.Context(), Selection{States: []State{Refused}})
		if err != nil || len(list) != 1 || list[0].LastError != "550 no" {
			t.Errorf("refused: %+v, %v", list, err)
		}
		r.stop()
	})
}

func TestLifetimeHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		cfg.Lifetime = 2 * time.Hour
		cfg.DomainLifetimes = map[string]time.Duration{"long.example": 4 * time.Hour}
		alarms := &recorder{}
		r := start(t, cfg, Deps{Alarms: alarms})
		short := r.put(envelope("s@x.example", "a@y.example"), "never tried")
		tried := r.put(envelope("s@x.example", "b@y.example"), "tried")
		long := r.put(envelope("s@x.example", "c@Long.Example"), "patient")
		for range 2 {
			r.take().Done([]smtp.Result{result(0, smtp.Deferred, "busy")})
		}
		sleep(2*time.Hour + 2*time.Minute)
		for id, want := range map[string]State{short: Held, tried: Held, long: Queued} {
			if got := r.show(id); got.State != want {
				t.Errorf("%s is %s (%s), want %s", id, got.State, got.Reason, want)
			}
		}
		if !strings.Contains(alarms.text("queue:expired"), "2 messages") {
			t.Errorf("alarm %q", alarms.text("queue:expired"))
		}
		// What an operator releases gets a new life.
		r.apply(Release, Selection{States: []State{Held}}, ApplyOptions{})
		sleep(2 * time.Minute)
		if got := r.show(short); got.State != Queued {
			t.Errorf("released message is %s", got.State)
		}
		if alarms.text("queue:expired") != "" {
			t.Error("the alarm stays")
		}
		sleep(2 * time.Hour)
		if got := r.show(long); got.State != Held {
			t.Errorf("after four hours it is %s", got.State)
		}
		r.stop()
	})
}

func TestRefusedExpiry(t *testing.T) {
	t.Parallel()
	for _, expiry := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.RefusedExpiry = expiry
			alarms := &recorder{}
			r := start(t, cfg, Deps{Alarms: alarms})
			r.put(envelope("s@x.example", "a@y.example"), "body")
			r.take().Done([]smtp.Result{result(0, smtp.Refused, "no such user")})
			synctest.Wait()
			if alarms.text("queue:refused") == "" {
				t.Error("no alarm for a refused message")
			}
			sleep(3 * time.Hour)
			list, err := r.List(t.Context(), Selection{})
			if want := map[bool]int{true: 1, false: 0}[expiry == 0]; err != nil || len(list) != want {
				t.Errorf("with expiry %v: %d messages, %v", expiry, len(list), err)
			}
			r.stop()
		})
	}
}

// onDisk counts the files below dir that contain text.
func onDisk(t *testing.T, dir, text string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if bytes.Contains(data, []byte(text)) {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestErasedOnAQuietMachine delivers and deletes a few of many messages in one
// segment, so that only their age can make them leave the disk.
func TestErasedOnAQuietMachine(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			r := start(t, cfg, Deps{})
			const secret = "the one-time code is 271828"
			bodies := map[string]string{}
			keep := func(size int) {
				body := strings.Repeat("stays ", size/6)
				id := r.put(envelope("s@x.example", "a@y.example"), body)
				bodies[id] = "Received: test\r\n" + body
				r.apply(Hold, Selection{IDs: []string{id}}, ApplyOptions{})
			}
			for range 10 {
				keep(50 << 10)
			}
			keep(200 << 10)
			r.put(envelope("s@x.example", "a@y.example"), secret)
			r.put(envelope("s@x.example", "a@y.example"), secret+strings.Repeat(" big", 50_000))
			deleted := r.put(envelope("s@x.example", "a@y.example"), secret)
			for range 2 {
				r.take().Done([]smtp.Result{result(0, smtp.Delivered, "ok")})
			}
			r.apply(Delete, Selection{IDs: []string{deleted}}, ApplyOptions{})
			if n := len(r.log.Segments()); n != 1 {
				t.Fatalf("%d segments", n)
			}
			sleep(12 * time.Hour)
			if onDisk(t, cfg.Dir, secret) == 0 {
				t.Fatal("erased for another reason than age")
			}
			if restart { // the day must not begin again
				r.stop()
				r = start(t, cfg, Deps{})
			}
			sleep(12 * time.Hour)
			if n := onDisk(t, cfg.Dir, secret); n != 0 {
				t.Errorf("after a day the text is still in %d files", n)
			}
			check := func() {
				t.Helper()
				for id, want := range bodies {
					if got := r.body(id); got != want || r.show(id).State != Held {
						t.Errorf("another message has %d bytes, want %d", len(got), len(want))
					}
				}
			}
			check()
			r.stop()
			r = start(t, cfg, Deps{})
			check()
			r.stop()
		})
	}
}

func TestCompactionFreesSpace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		r := start(t, cfg, Deps{})
		var ids []string
		for i := range 400 {
			ids = append(ids, r.put(envelope("s@x.example", "a@y.example"), fmt.Sprint(i, strings.Repeat(" body", 3_000))))
		}
		before := len(r.log.Segments())
		var drop []string
		for i, id := range ids {
			if i%10 != 0 {
				drop = append(drop, id)
			}
		}
		r.apply(Delete, Selection{IDs: drop}, ApplyOptions{})
		sleep(5 * time.Minute)
		after := len(r.log.Segments())
		if after >= before/2 {
			t.Errorf("%d segments of %d remain with a tenth alive", after, before)
		}
		check := func() {
			t.Helper()
			for i := 0; i < len(ids); i += 10 {
				if got := r.body(ids[i]); !strings.HasPrefix(got, fmt.Sprintf("Received: test\r\n%d body", i)) {
					t.Errorf("message %d reads %.40q", i, got)
				}
			}
		}
		check()
		r.stop()
		r = start(t, cfg, Deps{})
		check()
		r.stop()
	})
}
