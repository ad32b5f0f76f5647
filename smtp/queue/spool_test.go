package queue

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
	"understudy/smtp/queue/queuetest"
)

func testConfig(dir string) Config {
	cfg := DefaultConfig()
	cfg.Dir = dir
	cfg.ReserveBytes = 0
	cfg.SpillBytes = 64 << 10
	cfg.SegmentBytes = 1 << 20
	cfg.AllowBodyAccess = true
	return cfg
}

// running is a spool whose Run is running.
type running struct {
	*Spool
	t    testing.TB
	stop func()
}

// start opens a spool and runs it until stop or the end of the test.
func start(tb testing.TB, cfg Config, deps Deps) *running {
	tb.Helper()
	s, err := Open(cfg, deps)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var once sync.Once
	r := &running{Spool: s, t: tb}
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				tb.Errorf("Run: %v", err)
			}
		})
	}
	tb.Cleanup(r.stop)
	return r
}

func envelope(sender string, rcpts ...string) *smtp.Envelope {
	env := &smtp.Envelope{Sender: sender, Received: time.Now()}
	for _, addr := range rcpts {
		env.Recipients = append(env.Recipients, smtp.Recipient{Address: addr})
	}
	return env
}

// put stores a message and returns its id.
func (r *running) put(env *smtp.Envelope, body string) string {
	r.t.Helper()
	id, err := store(r.Spool, env, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func store(s *Spool, env *smtp.Envelope, body string) (string, error) {
	d, err := s.Create(context.Background(), int64(len(body)))
	if err != nil {
		return "", err
	}
	defer d.Discard()
	if _, err := io.WriteString(d, body); err != nil {
		return "", err
	}
	if err := d.Commit(context.Background(), env, []byte("Received: test\r\n")); err != nil {
		return "", err
	}
	return d.ID(), nil
}

// take takes one delivery.
func (r *running) take() smtp.Delivery {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := r.Take(ctx, "", 1)
	if err != nil {
		r.t.Fatalf("Take: %v", err)
	}
	return list[0]
}

func (r *running) show(id string) Detail {
	r.t.Helper()
	d, err := r.Show(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *running) body(id string) string {
	r.t.Helper()
	return bodyOf(r.t, r.Spool, id)
}

func bodyOf(tb testing.TB, s interface {
	Body(context.Context, string) (io.ReadCloser, error)
}, id string,
) string {
	tb.Helper()
	b, err := s.Body(context.Background(), id)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := io.ReadAll(b)
	if err := errors.Join(err, b.Close()); err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func (r *running) apply(action Action, sel Selection, opt ApplyOptions) Change {
	r.t.Helper()
	c, err := r.Apply(context.Background(), action, sel, opt)
	if err != nil {
		r.t.Fatalf("%s: %v", action, err)
	}
	return c
}

func result(i int, o smtp.Outcome, text string) smtp.Result {
	code := map[smtp.Outcome]int{smtp.Delivered: 250, smtp.Deferred: 450, smtp.Refused: 550}[o]
	return smtp.Result{Recipient: i, Outcome: o, Code: code, Text: text, Relay: "mx[192.0.2.1]:25", At: time.Now()}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, func(t *testing.T) queuetest.Subject {
		t.Helper()
		var mu sync.Mutex
		free := int64(math.MaxInt64)
		r := start(t, testConfig(t.TempDir()), Deps{Free: func(string) (int64, error) {
			mu.Lock()
			defer mu.Unlock()
			return free, nil
		}})
		return queuetest.Subject{
			Queue: r.Spool,
			Stored: func(id string) (queuetest.Message, bool) {
				d, err := r.Show(context.Background(), id)
				if err != nil {
					return queuetest.Message{}, false
				}
				return queuetest.Message{Envelope: d.Envelope, Body: []byte(r.body(id))}, true
			},
			SetFull: func(full bool) {
				mu.Lock()
				free = math.MaxInt64
				if full {
					free = -1
				}
				mu.Unlock()
				r.space.measure()
			},
		}
	})
}

func TestDeliveryRemoves(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	r := start(t, cfg, Deps{})
	for _, size := range []int{10, 5000, 200 << 10} {
		body := strings.Repeat("x", size)
		id := r.put(envelope("s@x.example", "a@y.example", "b@y.example"), body)
		d := r.take()
		if d.Envelope().ID != id || len(d.Pending()) != 2 {
			t.Fatalf("took %s with %v, want %s", d.Envelope().ID, d.Pending(), id)
		}
		in, n, err := d.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if err := errors.Join(err, in.Close()); err != nil || string(got) != "Received: test\r\n"+body || n != int64(len(got)) {
			t.Fatalf("read %d bytes of %d: %v", len(got), n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if again, err := r.Take(ctx, "", 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a message on loan was lent again: %d, %v", len(again), err)
		}
		cancel()
		if st := r.show(id).State; st != Active {
			t.Errorf("state on loan is %s", st)
		}
		d.Done([]smtp.Result{result(0, smtp.Delivered, "ok")})
		if st := r.show(id); st.State != Queued || st.Recipients[0].State != RecipientDelivered {
			t.Errorf("after one of two: %+v", st.Summary)
		}
		d = r.take()
		if len(d.Pending()) != 1 || d.Pending()[0] != 1 {
			t.Fatalf("pending %v, want [1]", d.Pending())
		}
		d.Done([]smtp.Result{result(1, smtp.Delivered, "ok")})
		if _, err := r.Show(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("after delivery: %v", err)
		}
	}
	r.stop()
	r = start(t, cfg, Deps{})
	if list, err := r.List(t.Context(), Selection{}); err != nil || len(list) != 0 {
		t.Errorf("after a restart: %v, %v", list, err)
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	r := start(t, cfg, Deps{Logger: slog.New(enabled{slog.DiscardHandler})})
	deferred := r.put(envelope("", "a@y.example", "b@y.example"), "one")
	r.take().Done([]smtp.Result{result(0, smtp.Delivered, "ok"), result(1, smtp.Deferred, "busy")})
	refused := r.put(envelope("s@x.example", "c@y.example"), "two")
	r.take().Done([]smtp.Result{result(0, smtp.Refused, "no such user")})
	held := r.put(envelope("s@x.example", "d@y.example"), strings.Repeat("three", 50_000))
	r.apply(Hold, Selection{IDs: []string{held}}, ApplyOptions{Reason: "look"})
	moved := r.put(envelope("s@x.example", "e@y.example"), "four")
	r.apply(Requeue, Selection{IDs: []string{moved}}, ApplyOptions{To: "smtp://other:25"})
	notice := envelope("", "s@z.example")
	notice.Route = "mx://z.example"
	own := r.put(notice, "a notification")
	heldNotice := envelope("", "s@z.example")
	heldNotice.Route, heldNotice.Verdict = "mx://z.example", &smtp.Verdict{Action: smtp.Quarantine}
	r.put(heldNotice, "a held notification")
	quarantined := envelope("s@x.example", "f@y.example")
	quarantined.Verdict = &smtp.Verdict{Action: smtp.Quarantine, Engine: "rspamd"}
	spam := r.put(quarantined, "five")
	if err := r.SetHoldRules(t.Context(), []HoldRule{{Domain: "*.hold.example", Reason: "pause"}}); err != nil {
		t.Fatal(err)
	}
	ruled := r.put(envelope("s@x.example", "g@A.Hold.Example"), "six")
	before, err := r.List(t.Context(), Selection{})
	if err != nil {
		t.Fatal(err)
	}
	history := r.show(deferred).History

	check := func(t *testing.T, r *running) {
		t.Helper()
		after, err := r.List(t.Context(), Selection{})
		if err != nil || len(after) != len(before) {
			t.Fatalf("%d messages after restart, want %d: %v", len(after), len(before), err)
		}
		for i := range after {
			a, b := after[i], before[i]
			if d := a.NextAttempt.Sub(b.NextAttempt).Abs(); d > time.Second {
				t.Errorf("%s: next attempt moved by %v", a.ID, d)
			}
			if a.ID != b.ID || a.State != b.State || a.Reason != b.Reason || a.LastError != b.LastError || a.NextHop != b.NextHop ||
				a.Attempts != b.Attempts || a.SizeBytes != b.SizeBytes || !a.Received.Equal(b.Received) || a.Sender != b.Sender {
				t.Errorf("after restart %+v\nbefore %+v", a, b)
			}
		}
		want := map[string]State{deferred: Queued, refused: Refused, held: Held, moved: Queued, spam: Held, ruled: Held, own: Queued}
		for id, state := range want {
			if got := r.show(id); got.State != state {
				t.Errorf("%s is %s, want %s", id, got.State, state)
			}
		}
		if got := r.show(own); got.NextHop != "mx://z.example" || got.Envelope.Route != "mx://z.example" {
			t.Errorf("a message with a route goes to %q", got.NextHop)
		}
		if got := r.show(deferred).History; len(got) != 2 || got[1].Text != "busy" || got[1].Recipient != "b@y.example" || len(got) != len(history) {
			t.Errorf("history %+v", got)
		}
		if r.body(held) != "Received: test\r\n"+strings.Repeat("three", 50_000) {
			t.Error("spilled body differs")
		}
		if got := r.Routes(); len(got) != 3 || got[1] != "mx://z.example" || got[2] != "smtp://other:25" {
			t.Errorf("routes %q", got)
		}
		if rules := r.HoldRules(); len(rules) != 1 || rules[0].Domain != "*.hold.example" {
			t.Errorf("rules %+v", rules)
		}
	}
	r.stop() // with a checkpoint
	r = start(t, cfg, Deps{})
	check(t, r)
	r.stop()
	// Without any checkpoint the log alone has everything.
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), checkpointPrefix) {
			if err := os.Remove(cfg.Dir + "/" + e.Name()); err != nil {
				t.Fatal(err)
			}
		}
	}
	r = start(t, cfg, Deps{})
	check(t, r)
	off, err := OpenOffline(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := off.List(t.Context(), Selection{}); err != nil || len(list) != len(before) {
		t.Errorf("offline: %d messages, %v", len(list), err)
	}
	if err := off.Close(); err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir())
	r := start(t, cfg, Deps{})
	if _, err := Open(cfg, Deps{}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	r.stop()
	r = start(t, cfg, Deps{})
	r.stop()
}
