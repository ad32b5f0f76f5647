package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/internal/durable"
	"understudy/internal/durable/simfs"
	"understudy/smtp"
)

// The tests here run a history of operations on a file system that forgets what
// was not synced, cut the power in the middle, recover, and compare with a ledger
// of what was promised.

// manual is a spool whose log runs, and whose housekeeping the test does itself.
type manual struct {
	*Spool
	cancel context.CancelFunc
	ended  chan error
}

func crashConfig() Config {
	cfg := DefaultConfig()
	cfg.Dir = "/spool"
	cfg.ReserveBytes = 0
	cfg.SpillBytes, cfg.SegmentBytes = 4<<10, 64<<10
	cfg.AllowBodyAccess = true
	return cfg
}

func openManual(fsys durable.FS) (*manual, error) {
	s, err := Open(crashConfig(), Deps{FS: fsys, noSpare: true})
	if err != nil {
		return nil, err
	}
	s.cfg.EraseAfter = 0 // what is dead must go at once
	ctx, cancel := context.WithCancel(context.Background())
	m := &manual{Spool: s, cancel: cancel, ended: make(chan error, 1)}
	go func() { m.ended <- s.log.Run(ctx) }()
	return m, nil
}

func (m *manual) close() error {
	m.cancel()
	return errors.Join(<-m.ended, m.Close())
}

// view is what matters of a message: empty where it is not in the queue.
type view string

const absent view = ""

func viewOf(s Summary) view {
	state := s.State
	if state == Active {
		state = Queued // a crash ends every loan
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %q:", state, s.NextHop)
	for _, r := range s.Recipients {
		fmt.Fprintf(&b, " %s/%d/%s", r.State, r.Attempts, r.Text)
	}
	return view(b.String())
}

// ledger knows for each id the views that may be found after a crash: those since
// the last moment at which everything was on disk.
type ledger struct {
	views  map[string][]view
	bodies map[string]string
}

func newLedger() *ledger {
	return &ledger{views: map[string][]view{}, bodies: map[string]string{}}
}

// note adds what the spool says about id now.
func (l *ledger) note(s *Spool, id string) {
	v := absent
	if d, err := s.lookup(id); err == nil {
		s.mu.Lock()
		v = viewOf(d.summary(s.clock, ""))
		s.mu.Unlock()
	}
	if old := l.views[id]; len(old) == 0 || old[len(old)-1] != v {
		l.views[id] = append(old, v)
	}
}

// synced: a synchronous operation has returned nil, so everything before is on
// disk, lazy records included: they ride with the next batch.
func (l *ledger) synced() {
	for id, views := range l.views {
		l.views[id] = views[len(views)-1:]
	}
}

// check compares a recovered spool with the ledger.
func (l *ledger) check(t *testing.T, s *Spool, when string) {
	t.Helper()
	list, err := s.List(context.Background(), Selection{})
	if err != nil {
		t.Fatalf("%s: List: %v", when, err)
	}
	found := map[string]view{}
	for _, m := range list {
		found[m.ID] = viewOf(m)
		if _, known := l.views[m.ID]; !known {
			t.Errorf("%s: %s was never in the queue", when, m.ID)
		}
		body, err := readAllOf(s, m.ID)
		if err != nil || body != l.bodies[m.ID] {
			t.Errorf("%s: %s has %d bytes, want %d: %v", when, m.ID, len(body), len(l.bodies[m.ID]), err)
		}
	}
	for id, views := range l.views {
		if !slices.Contains(views, found[id]) {
			t.Errorf("%s: %s is %q, possible: %q", when, id, found[id], views)
		}
	}
}

func readAllOf(s *Spool, id string) (string, error) {
	r, err := s.Body(context.Background(), id)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), errors.Join(err, r.Close())
}

// history runs steps of random operations until one fails.
type history struct {
	s     *manual
	fs    durable.FS
	rng   *rand.Rand
	l     *ledger
	ids   []string
	loans []smtp.Delivery
}

func (h *history) run(steps int) error {
	for range steps {
		if err := h.step(); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) step() error {
	switch h.rng.IntN(16) {
	case 0, 1, 2, 3:
		return h.commit(h.rng.IntN(3000))
	case 4, 5:
		return h.commit(5000 + h.rng.IntN(30_000))
	case 6, 7, 8, 9:
		return h.deliver()
	case 10:
		return h.apply(Hold)
	case 11:
		return h.apply([]Action{Release, Requeue, Flush}[h.rng.IntN(3)])
	case 12:
		return h.apply(Delete)
	case 13:
		return h.s.writeCheckpoint(context.Background())
	case 14:
		return errors.Join(h.deliver(), h.s.eraseSpills(context.Background()))
	default:
		return errors.Join(h.s.compact(context.Background()), h.s.erase(context.Background()))
	}
}

func (h *history) commit(size int) error {
	env := envelope("s@x.example", []string{"a@y.example", "b@y.example", "c@y.example"}[:1+h.rng.IntN(3)]...)
	if h.rng.IntN(8) == 0 {
		env.Verdict = &smtp.Verdict{Action: smtp.Quarantine}
	}
	body := strings.Repeat(fmt.Sprintf("%08x ", h.rng.Uint32()), size/9+1)[:size]
	d, err := h.s.Create(context.Background(), int64(size))
	if err != nil {
		return err
	}
	id := d.ID()
	h.l.bodies[id] = "Received: test\r\n" + body
	h.l.views[id] = []view{absent}
	if _, err := io.WriteString(d, body); err != nil {
		d.Discard()
		return err
	}
	err = d.Commit(context.Background(), env, []byte("Received: test\r\n"))
	if err != nil {
		// A crash now may bring it back; then it is whole, and as it was accepted.
		m := newMessage(ident{}, env, 0)
		h.s.judge(m, env)
		h.l.views[id] = []view{viewOf(m.summary(h.s.clock, "")), absent}
		return err
	}
	h.l.note(h.s.Spool, id)
	h.ids = append(h.ids, id)
	h.l.synced()
	return nil
}

// deliver takes some messages and ends some of the loans.
func (h *history) deliver() error {
	h.s.Expedite("")
	h.s.mu.Lock()
	none := len(h.s.routes[""].heap) == 0
	h.s.mu.Unlock()
	if none {
		return nil
	}
	// After the cut nothing can be read, and Take waits for other messages.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	list, err := h.s.Take(ctx, "", 1+h.rng.IntN(3))
	cancel()
	if err != nil {
		return err
	}
	h.loans = append(h.loans, list...)
	for len(h.loans) > h.rng.IntN(3) {
		d := h.loans[0]
		h.loans = h.loans[1:]
		var results []smtp.Result
		for _, i := range d.Pending() {
			switch h.rng.IntN(6) {
			case 0:
				results = append(results, result(i, smtp.Deferred, "busy"))
			case 1:
				results = append(results, result(i, smtp.Refused, "no"))
			case 2:
			default:
				results = append(results, result(i, smtp.Delivered, "ok"))
			}
		}
		d.Done(results)
		h.l.note(h.s.Spool, d.Envelope().ID)
	}
	return nil
}

func (h *history) apply(a Action) error {
	if len(h.ids) == 0 {
		return nil
	}
	var sel Selection
	for range 1 + h.rng.IntN(3) {
		sel.IDs = append(sel.IDs, h.ids[h.rng.IntN(len(h.ids))])
	}
	_, err := h.s.Apply(context.Background(), a, sel, ApplyOptions{})
	for _, id := range sel.IDs {
		before := len(h.l.views[id])
		h.l.note(h.s.Spool, id)
		if views := h.l.views[id]; err == nil && len(views) > before {
			h.l.views[id] = views[len(views)-1:] // nil: the change is on disk
		}
	}
	return err
}

// runHistory runs a history from a seed on fsys and closes the spool. It returns
// the ledger as it stands when the first error comes.
func runHistory(fsys durable.FS, seed uint64, steps int) (*ledger, error) {
	l := newLedger()
	s, err := openManual(fsys)
	if err != nil {
		return l, err
	}
	h := &history{s: s, fs: fsys, rng: newTestRand(seed), l: l}
	err = h.run(steps)
	return l, errors.Join(err, s.close())
}

// checkRecovered recovers what fsys has, twice, works on it, and recovers again.
func checkRecovered(t *testing.T, fsys *simfs.FS, l *ledger, when string) {
	t.Helper()
	s, err := openManual(fsys)
	if err != nil {
		t.Fatalf("%s: recovery: %v", when, err)
	}
	l.check(t, s.Spool, when)
	var views []string
	list, err := s.List(context.Background(), Selection{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		views = append(views, m.ID+string(viewOf(m)))
	}
	again, err := openManual(fsys.Clone())
	if err != nil {
		t.Fatalf("%s: recovery of the recovered: %v", when, err)
	}
	second, err := again.List(context.Background(), Selection{})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range second {
		if i >= len(views) || views[i] != m.ID+string(viewOf(m)) {
			t.Errorf("%s: recovering again changed %s", when, m.ID)
		}
	}
	if len(second) != len(views) {
		t.Errorf("%s: recovering again found %d messages, before %d", when, len(second), len(views))
	}
	if err := again.close(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	// The recovered spool works, tidies up, and survives the next cut.
	for id := range l.views {
		l.views[id] = []view{absent}
	}
	for _, m := range list {
		l.views[m.ID] = []view{viewOf(m)}
	}
	id, err := store(s.Spool, envelope("s@x.example", "z@y.example"), "after")
	if err != nil {
		t.Fatalf("%s: Commit after recovery: %v", when, err)
	}
	l.bodies[id] = "Received: test\r\nafter"
	l.note(s.Spool, id)
	ctx := context.Background()
	if err := errors.Join(s.writeCheckpoint(ctx), s.eraseSpills(ctx), s.compact(ctx), s.erase(ctx)); err != nil {
		t.Errorf("%s: housekeeping after recovery: %v", when, err)
	}
	if err := s.close(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	last, err := openManual(fsys.Restart(7))
	if err != nil {
		t.Fatalf("%s: third recovery: %v", when, err)
	}
	l.check(t, last.Spool, when+", later")
	if err := last.close(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
}

// clone copies a ledger, for several outcomes of one cut.
func (l *ledger) clone() *ledger {
	n := newLedger()
	for id, v := range l.views {
		n.views[id] = slices.Clone(v)
	}
	maps.Copy(n.bodies, l.bodies)
	return n
}

func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	const steps = 32
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("history ", seed), func(t *testing.T) {
			t.Parallel()
			ops := 0
			synctest.Test(t, func(t *testing.T) {
				whole := simfs.New()
				l, err := runHistory(whole, seed, steps)
				if err != nil {
					t.Fatalf("without a crash: %v", err)
				}
				l.synced()
				ops = whole.Ops()
				checkRecovered(t, whole.Clone(), l, "after a clean end")
			})
			if ops < 50 {
				t.Fatalf("only %d operations", ops)
			}
			for n := 1; n <= ops && !t.Failed(); n++ {
				synctest.Test(t, func(t *testing.T) {
					cut := simfs.New()
					cut.CrashAt(n)
					l, err := runHistory(cut, seed, steps)
					for outcome := range uint64(2) {
						when := fmt.Sprintf("cut %d of %d (%v), outcome %d", n, ops, err, outcome)
						checkRecovered(t, cut.Restart(uint64(n)*10+outcome), l.clone(), when)
					}
				})
			}
		})
	}
}

func TestCrashInLongHistories(t *testing.T) {
	t.Parallel()
	runs := 40
	if testing.Short() {
		runs = 5
	}
	for seed := range runs {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(seed), 2))
				cut := simfs.New()
				cut.CrashAt(1 + rng.IntN(3000))
				l, err := runHistory(cut, uint64(1000+seed), 800)
				checkRecovered(t, cut.Restart(uint64(seed)), l, fmt.Sprintf("after %v", err))
			})
		})
	}
}

func newTestRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
