package learn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/spamsync"
)

type fakeTeacher struct {
	mu   sync.Mutex
	err  error
	got  []string
	seen map[string]string
	hook func()
}

func (f *fakeTeacher) Teach(_ context.Context, class spamsync.Class, digest string, raw []byte) (Outcome, error) {
	if f.hook != nil {
		f.hook()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	subject, _, _ := strings.Cut(string(raw), "\n")
	f.got = append(f.got, class.String()+" "+strings.TrimPrefix(subject, "Subject: "))
	if f.seen == nil {
		f.seen = map[string]string{}
	}
	if f.seen[digest] == class.String() {
		return Known, nil
	}
	f.seen[digest] = class.String()
	return Learned, nil
}

func (f *fakeTeacher) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeTeacher) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

type fakeAlarms struct {
	mu sync.Mutex
	on map[string]string
}

func (f *fakeAlarms) Raise(key, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.on == nil {
		f.on = map[string]string{}
	}
	f.on[key] = text
}

func (f *fakeAlarms) Clear(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.on, key)
}

func (f *fakeAlarms) has(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.on[key]
	return ok
}

// bench is a queue on a simulated disk, within a bubble of synctest.
type bench struct {
	t       *testing.T
	dir     string
	cfg     Config
	teacher *fakeTeacher
	alarms  *fakeAlarms
	home    func(context.Context) error
	q       *Queue
	stop    func()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), cfg: DefaultConfig(), teacher: &fakeTeacher{}, alarms: &fakeAlarms{}}
	return b
}

func (b *bench) open() {
	b.t.Helper()
	q, err := Open(b.cfg, Deps{
		Dir: b.dir, Teacher: b.teacher, Home: b.home, Alarms: b.alarms, Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.q = q
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
		if err := q.Close(); err != nil {
			b.t.Error(err)
		}
	}
}

func mail(subject string) string {
	return fmt.Sprintf("Subject: %s\nFrom: a@example.com\nMessage-Id: <%s@example.com>\n\nbody of %s\n", subject, subject, subject)
}

func (b *bench) add(class spamsync.Class, subject string, want Added) {
	b.t.Helper()
	got, err := b.q.Add(b.t.Context(), class, strings.NewReader(mail(subject)))
	if err != nil || got != want {
		b.t.Errorf("add %s %s: %q, %v, want %q", class, subject, got, err, want)
	}
}

func (b *bench) want(list ...string) {
	b.t.Helper()
	if got := b.teacher.list(); !slices.Equal(got, list) {
		b.t.Errorf("taught %q, want %q", got, list)
	}
}

// settle lets the worker finish what it can do now.
func settle(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // a bubble's clock
	synctest.Wait()
}

func TestOneMessageIsTaughtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.open()
		b.add(spamsync.Spam, "one", Queued)
		settle(time.Second)
		b.add(spamsync.Spam, "one", Taught)
		// A copy with other traces, other line ends and a folded header is the same message.
		again := "Received: from x by y; now\r\nX-Spam: yes\r\n" + strings.ReplaceAll(mail("one"), "\n", "\r\n")
		if got, err := b.q.Add(t.Context(), spamsync.Spam, strings.NewReader(again)); got != Taught || err != nil {
			t.Errorf("a copy: %q, %v", got, err)
		}
		b.stop()
		b.open() // the memory survives a restart
		b.add(spamsync.Spam, "one", Taught)
		settle(time.Second)
		b.want("spam one")
		b.stop()
	})
}

func TestTheNewestClassWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.open()
		b.add(spamsync.Spam, "one", Queued)
		settle(time.Second)
		b.add(spamsync.Ham, "one", Queued)
		settle(time.Second)
		b.want("spam one", "ham one")

		// Both opinions wait: only the newest is taught.
		b.teacher.fail(away(errors.New("down")))
		b.add(spamsync.Spam, "two", Queued)
		b.add(spamsync.Spam, "two", Waits)
		b.add(spamsync.Ham, "two", Queued)
		// A change of mind that is taken back before it was taught.
		b.add(spamsync.Spam, "one", Queued)
		b.add(spamsync.Ham, "one", Taught)
		b.teacher.fail(nil)
		b.stop()
		b.open()
		settle(2 * time.Minute)
		b.want("spam one", "ham one", "ham two")
		if s := b.q.Status(); s.Waiting != 0 || s.Bytes != 0 || s.Remembered != 2 {
			t.Errorf("%+v", s)
		}
		b.stop()
	})
}

func TestAnotherClassWhileItIsTaught(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.open()
		var once sync.Once
		b.teacher.hook = func() { once.Do(func() { b.add(spamsync.Ham, "one", Queued) }) }
		b.add(spamsync.Spam, "one", Queued)
		settle(time.Second)
		b.want("spam one", "ham one")
		b.stop()
	})
}

func TestWaitsForTheEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.open()
		b.teacher.fail(away(errors.New("connection refused")))
		for i := range 3 {
			b.add(spamsync.Spam, fmt.Sprint("m", i), Queued)
		}
		settle(5 * time.Minute)
		if b.alarms.has(alarmKey) {
			t.Error("alarm too early")
		}
		if s := b.q.Status(); s.Waiting != 3 || s.Reason == "" || s.Paused.IsZero() {
			t.Errorf("%+v", s)
		}
		settle(7 * time.Minute)
		if !b.alarms.has(alarmKey) {
			t.Error("no alarm")
		}
		settle(30 * 24 * time.Hour) // an engine that is away never costs a message
		b.teacher.fail(nil)
		settle(2 * time.Hour)
		got := b.teacher.list()
		slices.Sort(got)
		if !slices.Equal(got, []string{"spam m0", "spam m1", "spam m2"}) {
			t.Errorf("taught %q", got)
		}
		if b.alarms.has(alarmKey) {
			t.Error("the alarm stays")
		}
		b.stop()
	})
}

func TestWaitsForRedis(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var mu sync.Mutex
		readOnly := errors.New("READONLY You can't write against a read only replica")
		home := readOnly
		b.home = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return home
		}
		b.teacher.hook = func() {
			if b.home(context.Background()) != nil {
				t.Error("the engine was asked while Redis is read-only")
			}
		}
		b.open()
		b.add(spamsync.Ham, "one", Queued)
		settle(time.Hour)
		b.want()
		mu.Lock()
		home = nil
		mu.Unlock()
		settle(2 * time.Minute)
		b.want("ham one")
		b.stop()
	})
}

func TestOneBadMessageHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cfg.Lifetime = 24 * time.Hour
		b.open()
		b.teacher.fail(errors.New("status 500: cannot parse"))
		b.add(spamsync.Spam, "bad", Queued)
		settle(time.Second / 2)
		b.teacher.fail(nil)
		b.add(spamsync.Spam, "good", Queued)
		settle(time.Second / 4)
		b.want("spam good")
		b.teacher.fail(errors.New("status 500: cannot parse"))
		settle(26 * time.Hour)
		if s := b.q.Status(); s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		b.stop()
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cfg.MaxMessageBytes, b.cfg.MaxQueueBytes, b.cfg.Remember = 200, 400, 5
		b.open()
		_, err := b.q.Add(t.Context(), spamsync.Spam, strings.NewReader(mail("x")+strings.Repeat("y", 200)))
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("too long: %v", err)
		}
		if _, err = b.q.Add(t.Context(), spamsync.Spam, strings.NewReader(" \r\n")); !errors.Is(err, ErrEmpty) {
			t.Errorf("empty: %v", err)
		}
		if _, err = b.q.Add(t.Context(), spamsync.Unlearned, strings.NewReader(mail("x"))); err == nil {
			t.Error("no class is accepted")
		}
		b.teacher.fail(away(errors.New("down")))
		for i := range 10 {
			if _, err = b.q.Add(t.Context(), spamsync.Spam, strings.NewReader(mail(fmt.Sprint(i)))); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrFull) {
			t.Errorf("full: %v", err)
		}
		b.teacher.fail(nil)
		settle(2 * time.Minute)
		for i := range 20 {
			b.add(spamsync.Ham, fmt.Sprint("n", i), Queued)
			settle(2 * time.Second)
		}
		settle(2 * time.Minute)
		if s := b.q.Status(); s.Remembered > 6 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		b.stop()
	})
}

// TestTidy teaches a lot and looks that the disk does not keep it, that what was
// taught is still known, and that a message that waits all the time survives.
func TestTidy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cfg.Lifetime = 1000 * time.Hour
		b.open()
		b.teacher.fail(errors.New("status 500"))
		b.add(spamsync.Spam, "stuck", Queued)
		settle(time.Second / 2)
		big := strings.Repeat(strings.Repeat("a line of text ", 5)+"\n", 40_000) // 3 MB
		for i := range 30 {
			b.teacher.fail(nil)
			if _, err := b.q.Add(t.Context(), spamsync.Ham, strings.NewReader(mail(fmt.Sprint("big", i))+big)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			b.teacher.fail(errors.New("status 500"))
			settle(time.Minute)
		}
		settle(30 * time.Minute)
		used := int64(0)
		for _, s := range b.q.log.Segments() {
			used += s.UsedBytes
		}
		if used > 4*segmentBytes {
			t.Errorf("%d bytes on the disk", used)
		}
		b.stop()
		b.teacher.fail(nil)
		b.open()
		settle(2 * time.Hour)
		got := b.teacher.list()
		if !slices.Contains(got, "spam stuck") || len(got) != 31 {
			t.Errorf("taught %d: %q", len(got), got)
		}
		for i := range 30 {
			if got, err := b.q.Add(t.Context(), spamsync.Ham, strings.NewReader(mail(fmt.Sprint("big", i))+big)); got != Taught || err != nil {
				t.Errorf("big%d: %q, %v", i, got, err)
			}
		}
		settle(30 * time.Minute)
		if n := len(b.q.log.Segments()); n != 1 {
			t.Errorf("%d segments", n)
		}
		b.stop()
	})
}

func TestDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open()
	defer b.stop()
	_, err := Open(b.cfg, Deps{Dir: b.dir, Teacher: b.teacher, Alarms: b.alarms, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("a second queue: %v", err)
	}
}

func TestRspamdAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status  int
		body    string
		want    Outcome
		ok      bool
		waiting bool
	}{
		{200, `{"success":true}`, Learned, true, false},
		{204, "", Known, true, false},
		{208, `{"error":"<x> has been already learned as spam, ignore it"}`, Known, true, false},
		{200, `{"success":false}`, 0, false, false},
		{200, `<html>`, 0, false, false},
		{401, `{}`, 0, false, true},
		{403, `{}`, 0, false, true},
		{503, `{"error":"busy"}`, 0, false, true},
		{500, `{"error":"cannot learn"}`, 0, false, false},
		{404, ``, 0, false, false},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/learnspam" || r.Method != http.MethodPost {
				t.Errorf("%s %s", r.Method, r.URL.Path)
			}
			w.WriteHeader(c.status)
			if c.status != http.StatusNoContent {
				_, _ = w.Write([]byte(c.body))
			}
		}))
		teacher, err := NewRspamd(srv.URL+"/", "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := teacher.Teach(t.Context(), spamsync.Spam, "d", []byte(mail("x")))
		if got != c.want || (err == nil) != c.ok || errors.Is(err, ErrAway) != c.waiting {
			t.Errorf("%d %s: %v, %v", c.status, c.body, got, err)
		}
		teacher.Close()
		srv.Close()
		if _, err := teacher.Teach(t.Context(), spamsync.Spam, "d", []byte(mail("x"))); !errors.Is(err, ErrAway) {
			t.Errorf("a dead controller: %v", err)
		}
	}
	if _, err := NewRspamd("127.0.0.1:11334", ""); err == nil {
		t.Error("an address is no URL")
	}
}
