package imapsync_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// clock is a wall clock that the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is an account with two sides.
type world struct {
	t     testing.TB
	dir   string
	cfg   imapsync.Config
	clock *clock
	a, b  *storetest.Server
	n     int
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	return &world{
		t: tb, dir: tb.TempDir(), cfg: imapsync.DefaultConfig(), clock: &clock{now: time.Unix(1_800_000_000, 0)},
		a: storetest.NewServer(storetest.Features{FirstValid: 1000}), b: storetest.NewServer(storetest.Features{FirstValid: 5000}),
	}
}

// body makes a message; every one is different.
func (w *world) body() string {
	w.n++
	return mail(w.n)
}

func mail(n int) string {
	return fmt.Sprintf("Message-ID: <%d@example.com>\r\nFrom: a@example.com\r\nSubject: message %d\r\nDate: Mon, 1 Jan 2026 10:00:00 +0000\r\n\r\n%s\r\n",
		n, n, strings.Repeat("x", n%97))
}

func (w *world) open() *imapsync.Account {
	w.t.Helper()
	acc, err := imapsync.Open(filepath.Join(w.dir, "base"), w.cfg, imapsync.Deps{Now: w.clock.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	acc.Hurry()
	return acc
}

func (w *world) try(opt imapsync.PassOptions) (imapsync.Report, error) {
	w.t.Helper()
	acc := w.open()
	defer acc.Close() //nolint:errcheck // nothing is lost
	return acc.Pass(context.Background(), imapsync.Sides{A: w.a.Store(), B: w.b.Store()}, opt)
}

func (w *world) pass() imapsync.Report {
	w.t.Helper()
	r, err := w.try(imapsync.PassOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// clean makes passes until both sides are equal, and checks that another one then changes nothing.
func (w *world) clean() imapsync.Report {
	w.t.Helper()
	r := w.pass()
	if !r.Clean() {
		w.t.Fatalf("not clean: %+v\n%s", r, w.dump())
	}
	again := w.pass()
	if again.Changes() != 0 || !again.Clean() {
		w.t.Fatalf("a second pass changed something: %+v", again)
	}
	w.equal()
	return r
}

// view is what people see of a side: content and flags by folder.
func view(s *storetest.Server) map[string][]string {
	out := make(map[string][]string)
	for _, f := range s.Folders() {
		lines := []string{}
		for _, m := range s.Messages(f) {
			lines = append(lines, fmt.Sprintf("%q %s %s", m.Body, m.Date.UTC().Format(time.RFC3339), strings.ToLower(m.Flags.String())))
		}
		slices.Sort(lines)
		out[f] = append(lines, fmt.Sprintf("subscribed %v", s.Subscribed(f)))
	}
	return out
}

func (w *world) dump() string { return fmt.Sprintf("A: %v\nB: %v", view(w.a), view(w.b)) }

func (w *world) equal() {
	w.t.Helper()
	if a, b := fmt.Sprint(view(w.a)), fmt.Sprint(view(w.b)); a != b {
		w.t.Fatalf("sides differ:\nA %s\nB %s", a, b)
	}
}

// fill puts n messages into a folder of side A.
func (w *world) fill(s *storetest.Server, folder string, n int, flags ...imap.Flag) []imap.UID {
	var out []imap.UID
	s.Create(folder)
	for range n {
		out = append(out, s.Append(folder, w.body(), w.clock.Now(), flags...))
	}
	return out
}

func TestFirstCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(w.a, "INBOX", 30, imap.FlagSeen)
	w.fill(w.a, "Work/Deep", 5, imap.FlagFlagged, "$Label1")
	w.fill(w.b, "Archive", 20)
	w.a.CreateUse("Sent", `\Sent`)
	w.a.Subscribe("Sent", true)
	r := w.clean()
	if r.Sides[imapsync.B].Appended != 35 || r.Sides[imapsync.A].Appended != 20 {
		t.Errorf("%+v", r)
	}
	if w.b.Use("Sent") != `\Sent` {
		t.Error("special use was not carried over")
	}
}
