package imapsync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"pgregory.net/rapid"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// fate is what a history did with one message, known by its content.
type fate struct {
	copies  int
	deleted bool
	// Since both sides were last equal:
	touched [2]bool
	killed  [2]bool
	flags   map[imap.Flag]*change
}

// change is who changed a flag, and the last value.
type change struct {
	by   [2]bool
	last bool
}

// history acts as people do, on both sides, and knows what must come out.
type history struct {
	*world
	t     *rapid.T
	fates map[string]*fate
	// removed names are not used again before both sides were equal: a folder that is
	// made anew looks like one with a new UIDVALIDITY, and that deletes nothing.
	removed map[string]bool
	power   *power
}

var historyFlags = []imap.Flag{imap.FlagSeen, imap.FlagFlagged, "$Work"}

func (h *history) side(s imapsync.Side) *storetest.Server {
	if s == imapsync.A {
		return h.a
	}
	return h.b
}

func (h *history) fate(body string) *fate {
	if h.fates[body] == nil {
		h.fates[body] = &fate{flags: make(map[imap.Flag]*change)}
	}
	return h.fates[body]
}

// act does one thing on one side.
func (h *history) act() {
	t := h.t
	s := imapsync.Side(rapid.IntRange(0, 1).Draw(t, "side"))
	srv := h.side(s)
	folders := srv.Folders()
	folder := rapid.SampledFrom(folders).Draw(t, "folder")
	to := rapid.SampledFrom(folders).Draw(t, "to")
	msgs := srv.Messages(folder)
	op := rapid.SampledFrom([]string{"append", "append", "flag", "flag", "flag", "delete", "move", "move", "copy", "create", "rename", "remove", "subscribe"}).Draw(t, "op")
	switch op {
	case "append":
		body := h.body()
		srv.Append(folder, body, h.clock.Now(), rapid.SampledFrom(historyFlags).Draw(t, "flag"))
		h.fate(body).touched[s] = true
		return
	case "create":
		if name := rapid.SampledFrom([]string{"X", "Y", "X/Z", "W"}).Draw(t, "name"); !h.removed[name] {
			srv.Create(name)
		}
		return
	case "rename":
		if name := rapid.SampledFrom([]string{"R", "S", "Y/T"}).Draw(t, "name"); !h.removed[name] {
			srv.Rename(folder, name)
		}
		return
	case "subscribe":
		srv.Subscribe(folder, rapid.Bool().Draw(t, "on"))
		return
	case "remove":
		if rapid.IntRange(0, 3).Draw(t, "really") == 0 && srv.Remove(folder) {
			h.removed[folder] = true
			for _, m := range msgs {
				h.kill(s, m.Body)
			}
		}
		return
	}
	if len(msgs) == 0 {
		return
	}
	m := rapid.SampledFrom(msgs).Draw(t, "message")
	f := h.fate(m.Body)
	f.touched[s] = true
	switch op {
	case "flag":
		flag := rapid.SampledFrom(historyFlags).Draw(t, "flag")
		on := rapid.Bool().Draw(t, "on")
		if m.Flags.Has(flag) == on {
			return
		}
		c := f.flags[flag]
		if c == nil {
			c = &change{}
			f.flags[flag] = c
		}
		c.by[s], c.last = true, on
		if on {
			srv.Flag(folder, m.UID, imapsync.NewFlags(flag), nil)
		} else {
			srv.Flag(folder, m.UID, nil, imapsync.NewFlags(flag))
		}
	case "delete":
		srv.Delete(folder, m.UID)
		h.kill(s, m.Body)
	case "move":
		srv.Move(folder, m.UID, to)
	case "copy":
		srv.Copy(folder, m.UID, to)
		f.copies++
	}
}

func (h *history) kill(s imapsync.Side, body string) {
	f := h.fate(body)
	f.touched[s], f.killed[s], f.deleted = true, true, true
}

// count lists how often each content is on a side.
func count(s *storetest.Server) map[string]int {
	out := make(map[string]int)
	for _, f := range s.Folders() {
		for _, m := range s.Messages(f) {
			out[m.Body]++
		}
	}
	return out
}

// settle makes passes until both sides are equal, and judges.
func (h *history) settle() {
	t := h.t
	for i := 0; ; i++ {
		r, err := h.tryPass()
		if err != nil {
			t.Fatalf("pass: %v", err)
		}
		if r.Clean() && r.Changes() == 0 {
			break
		}
		if i == 6 {
			t.Fatalf("does not converge: %+v\n%s", r, h.dump())
		}
	}
	if a, b := fmt.Sprint(view(h.a)), fmt.Sprint(view(h.b)); a != b {
		t.Fatalf("sides differ:\nA %s\nB %s", a, b)
	}
	clear(h.removed)
	have := count(h.a)
	flags := make(map[string]imapsync.Flags)
	for _, f := range h.a.Folders() {
		for _, m := range h.a.Messages(f) {
			flags[m.Body] = m.Flags
		}
	}
	for body, f := range h.fates {
		n := have[body]
		name, _, _ := strings.Cut(body, "\r\n")
		switch {
		case n == 0 && !f.deleted:
			t.Fatalf("%s was lost: nobody deleted it\n%s", name, h.dump())
		case n > 1+f.copies:
			t.Fatalf("%s is there %d times, copied %d times\n%s", name, n, f.copies, h.dump())
		case n > 0 && f.copies == 0 && f.flags[imap.FlagFlagged] == nil && (f.killed[0] && !f.touched[1] || f.killed[1] && !f.touched[0]):
			// (With a mark that was carried over by a pass that died, it survives: the
			// mark could be the other side's own.)
			t.Fatalf("%s was deleted on one side and came back\n%s", name, h.dump())
		}
		if n == 1 && f.copies == 0 && f.killed == [2]bool{} {
			for flag, c := range f.flags {
				if c.by[0] != c.by[1] && flags[body].Has(flag) != c.last {
					t.Fatalf("%s: flag %s should be %v\n%s", name, flag, c.last, h.dump())
				}
			}
		}
		f.touched, f.killed, f.flags = [2]bool{}, [2]bool{}, make(map[imap.Flag]*change)
	}
}

// tryPass is a pass with the power that is left.
func (h *history) tryPass() (imapsync.Report, error) {
	acc, err := imapsync.Open(h.dir+"/base", h.cfg, imapsync.Deps{Now: h.clock.Now})
	if err != nil {
		return imapsync.Report{}, err
	}
	defer acc.Close() //nolint:errcheck // nothing is lost
	acc.Hurry()
	acc.SetPower(h.power.commit)
	h.a.Cut, h.b.Cut = h.power.cut, h.power.cut
	return acc.Pass(context.Background(), imapsync.Sides{A: h.a.Store(), B: h.b.Store()}, imapsync.PassOptions{})
}

// power ends after a number of events: calls, answers, messages and commits. With
// blip, only that one event fails.
type power struct {
	mu    sync.Mutex
	left  int // negative: for ever
	blip  bool
	dead  bool
	count int
}

var errPower = errors.New("the process died here")

func (p *power) event() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if p.dead {
		return true
	}
	if p.left < 0 {
		return false
	}
	p.left--
	if p.left >= 0 {
		return false
	}
	p.dead = !p.blip
	return true
}

func (p *power) cut(string, bool) bool { return p.event() }

func (p *power) commit(bool) error {
	if p.event() {
		return errPower
	}
	return nil
}

func (p *power) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.dead = -1, false
}

func (p *power) set(left int, blip bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.blip, p.dead = left, blip, false
}

func newHistory(t *testing.T, rt *rapid.T, fa, fb storetest.Features) *history {
	t.Helper()
	w := newWorld(t)
	fa.FirstValid, fb.FirstValid = 1000, 5000
	w.a, w.b = storetest.NewServer(fa), storetest.NewServer(fb)
	w.cfg.Guard.Off = true
	return &history{world: w, t: rt, fates: make(map[string]*fate), removed: make(map[string]bool), power: &power{left: -1}}
}

func features(t *rapid.T, name string) storetest.Features {
	return storetest.Features{
		NoCondstore: rapid.IntRange(0, 3).Draw(t, name+" no condstore") == 0,
		NoUIDPlus:   false,
		NoGID:       rapid.IntRange(0, 2).Draw(t, name+" no gid") == 0,
		NoMailboxID: rapid.Bool().Draw(t, name+" no mailboxid"),
	}
}

// Planner and executor were broken in 14 ways to see these tests and the scenarios
// fail: removed flags stay; another UIDVALIDITY is trusted; delete beats move; no
// guard; the journal is ignored; equal messages are not paired; marks do not keep; a
// folder that went back in time is trusted; a shared UIDVALIDITY is not seen;
// deletions come back; moves are not recognised; expunge without its condition;
// cursors advance over failures; markers are not judged.

// TestHistories: whatever people do on both sides, and wherever passes are cut off
// or die, both sides become equal; nothing is lost, doubled or resurrected, and no
// flag that one side changed is undone.
func TestHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(t, rt, features(rt, "a"), features(rt, "b"))
		for range rapid.IntRange(1, 5).Draw(rt, "windows") {
			for range rapid.IntRange(0, 12).Draw(rt, "acts") {
				h.act()
				if rapid.IntRange(0, 4).Draw(rt, "pass") == 0 {
					h.power.set(rapid.IntRange(-1, 60).Draw(rt, "power"), rapid.Bool().Draw(rt, "blip"))
					_, _ = h.tryPass() // it may die
					h.power.restore()
					h.clock.add(time.Second)
				}
			}
			h.settle()
		}
	})
}

// TestDeathAtEveryStep ends the process at every call, answer, message and commit
// of a pass that has everything to do, and lets the next one go on.
func TestDeathAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, f := range []storetest.Features{{}, {NoGID: true, NoCondstore: true, NoMailboxID: true}} {
		for _, blip := range []bool{false, true} {
			for k := 0; ; k++ {
				if died := dieAt(t, f, blip, k); !died {
					if k < 30 {
						t.Fatalf("only %d steps", k)
					}
					break
				}
			}
		}
	}
}

func dieAt(t *testing.T, f storetest.Features, blip bool, k int) bool {
	t.Helper()
	fa, fb := f, f
	fa.FirstValid, fb.FirstValid = 1000, 5000
	w := newWorld(t)
	w.a, w.b = storetest.NewServer(fa), storetest.NewServer(fb)
	w.cfg.Guard.Off = true
	inbox := w.fill(w.a, "INBOX", 6)
	work := w.fill(w.a, "Work", 4)
	w.a.Create("Old")
	w.clean()
	// Everything a pass can find.
	w.a.Flag("INBOX", inbox[0], imapsync.NewFlags(imap.FlagSeen), nil)
	w.b.Flag("INBOX", w.b.Messages("INBOX")[1].UID, imapsync.NewFlags("$b"), nil)
	w.a.Delete("INBOX", inbox[2])
	w.a.Move("INBOX", inbox[3], "Work")
	w.b.Move("Work", w.b.Messages("Work")[0].UID, "INBOX")
	w.a.Copy("Work", work[1], "INBOX")
	w.fill(w.a, "New", 3, imap.FlagAnswered)
	w.fill(w.b, "INBOX", 2, imap.FlagFlagged)
	w.a.Rename("Old", "Older")
	w.b.Subscribe("Work", true)
	want := 6 + 4 - 1 + 1 + 3 + 2
	p := &power{left: k, blip: blip}
	h := &history{world: w, power: p}
	_, err := h.tryPass()
	p.restore()
	// Meanwhile somebody goes on working.
	if m := w.a.Messages("New"); len(m) > 0 {
		w.a.Flag("New", m[0].UID, imapsync.NewFlags(imap.FlagSeen), imapsync.NewFlags(imap.FlagAnswered))
	}
	var r imapsync.Report
	for range 4 {
		var again error
		if r, again = h.tryPass(); again != nil {
			t.Fatalf("step %d (%v): %v", k, err, again)
		}
		if r.Clean() && r.Changes() == 0 {
			break
		}
	}
	if !r.Clean() || r.Changes() != 0 {
		t.Fatalf("step %d (%v): %+v", k, err, r)
	}
	if a, b := fmt.Sprint(view(w.a)), fmt.Sprint(view(w.b)); a != b {
		t.Fatalf("step %d (%v): sides differ:\nA %s\nB %s", k, err, a, b)
	}
	n := 0
	for _, c := range count(w.b) {
		n += c
	}
	if n != want {
		t.Fatalf("step %d (%v): %d messages, want %d\n%s", k, err, n, want, w.dump())
	}
	if !slices.ContainsFunc(w.b.Messages("New"), func(m storetest.Message) bool { return m.Flags.Equal(imapsync.NewFlags(imap.FlagSeen)) }) {
		t.Fatalf("step %d (%v): a flag was lost", k, err)
	}
	return p.dead || err != nil
}
