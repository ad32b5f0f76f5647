package replica

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/spamsync/replica/stream"
)

// simRedis is a Redis as replication sees it: each write is one byte of its history.
type simRedis struct {
	up, frozen bool
	upstream   string // "" is a master
	linkUp     bool
	now        stream.Point
	before     stream.Point
	log        map[int64]int // offset of its own history: the write
	writes     map[int]bool
	mark       string
}

func (r *simRedis) seen(at time.Time) Seen {
	switch {
	case !r.up:
		return Seen{At: at, Trouble: Unreachable}
	case r.frozen:
		return Seen{At: at, Trouble: Silent}
	}
	s := Seen{At: at, Keys: int64(len(r.writes)), Dataset: r.mark, Info: stream.Info{Role: "master", Now: r.now, Before: r.before}}
	if r.upstream != "" {
		s.Role, s.Info.Master, s.LinkUp = "slave", r.upstream, r.linkUp
	}
	return s
}

func (r *simRedis) usable() bool { return r.up && !r.frozen }

func (r *simRedis) write(w int) {
	r.now.Offset++
	r.log[r.now.Offset] = w
	r.writes[w] = true
}

// world is both sites, with a machine at b.
type world struct {
	t      *rapid.T
	m      Machine
	now    time.Time
	a, b   simRedis
	saved  simRedis // a's snapshot
	ids    int
	next   int
	home   bool // here
	permit string
	gate   bool
	rec    record
	flush  bool
	out    Output
	yes    bool
}

func (w *world) id() string {
	w.ids++
	return fmt.Sprintf("id%d", w.ids)
}

func clone(r simRedis) simRedis {
	r.log, r.writes = maps.Clone(r.log), maps.Clone(r.writes)
	return r
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Unix(1000, 0)}
	w.m = Machine{DetachAfter: 5 * time.Second, Gate: testGate, Peer: testPeer}
	for _, r := range []*simRedis{&w.a, &w.b} {
		*r = simRedis{up: true, now: stream.Point{ID: w.id()}, log: map[int64]int{}, writes: map[int]bool{}}
	}
	w.next++
	w.a.write(w.next)
	w.saved = clone(w.a)
	return w
}

// replicate lets b read from a what the gate lets through.
func (w *world) replicate() {
	a, b := &w.a, &w.b
	b.linkUp = false
	if b.upstream == "" || !b.up || b.frozen || !a.usable() || a.upstream != "" || !w.gate || w.flush {
		return
	}
	switch {
	case b.now.ID == a.now.ID && b.now.Offset <= a.now.Offset, b.now.ID == a.before.ID && b.now.Offset <= a.before.Offset:
		for o := b.now.Offset + 1; o <= a.now.Offset; o++ {
			if op, ok := a.log[o]; ok {
				b.log[o], b.writes[op] = op, true
			}
		}
	case w.permit == a.now.ID:
		w.mayReplace()
		b.log, b.writes = maps.Clone(a.log), maps.Clone(a.writes)
	default:
		return
	}
	b.now, b.before, b.mark, b.linkUp = a.now, a.before, a.mark, true
}

// mayReplace is the invariant: a full copy replaces nothing that home does not have.
func (w *world) mayReplace() {
	if w.out.Do == FollowAnyway {
		return
	}
	for op := range w.b.writes {
		if !w.a.writes[op] {
			w.t.Fatalf("a full copy throws write %d away: %+v", op, w.out)
		}
	}
}

// step asks the machine and does what it says, at once.
func (w *world) step() {
	w.now = w.now.Add(200 * time.Millisecond)
	w.replicate()
	in := Input{Now: w.now, HomeHere: w.home, Local: w.b.seen(w.now), Peer: w.a.seen(w.now), Mark: w.rec.Mark, Fork: w.rec.Fork, Approved: w.yes}
	if w.flush {
		in.Refused = Refusal{At: w.now, Flush: true}
	}
	w.out = w.m.Step(in)
	w.gate, w.permit = w.out.Gate, w.out.Permit
	switch w.out.Lead {
	case Here:
		if !w.b.usable() || w.b.upstream != "" {
			w.t.Fatalf("the endpoint leads to a copy: %+v", w.out)
		}
	case There:
		if !w.a.usable() || w.a.upstream != "" {
			w.t.Fatalf("the endpoint leads to a home that takes no writes: %+v", w.out)
		}
	case Nowhere:
	}
	switch w.out.Do {
	case Detach, Promote:
		b := &w.b
		b.upstream, b.before, b.now.ID = "", b.now, w.id()
		w.rec.Fork = b.before
	case Merge:
		for o := w.out.Fork.Offset + 1; o <= w.b.now.Offset; o++ {
			if op, ok := w.b.log[o]; ok {
				w.a.write(op)
			}
		}
		w.attach()
	case Carry:
		for op := range w.b.writes {
			w.a.write(op)
		}
		w.flush = false
		w.attach()
	case Follow, FollowAnyway:
		w.attach()
	case Failover:
		w.b.upstream, w.b.before, w.b.now.ID = "", w.b.now, w.id()
		w.a.upstream = "b" // its own daemon would follow; here it stays so
	case NoAction:
	}
}

func (w *world) attach() {
	w.b.upstream, w.gate, w.permit = testGate, true, w.a.now.ID
	w.replicate()
	if w.b.linkUp {
		if w.a.mark == "" {
			w.a.mark = "mark"
			w.b.mark = "mark"
		}
		w.rec = record{Mark: w.a.mark}
	}
}

func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.step()
	}
}

// event is one thing that happens to the sites.
func (w *world) event() {
	a, b := &w.a, &w.b
	switch rapid.SampledFrom([]string{"write", "write", "write", "direct", "freeze", "thaw", "kill", "start", "empty", "save", "flush", "crash b"}).Draw(w.t, "event") {
	case "write":
		to := b
		if w.out.Lead == There {
			to = a
		}
		if w.out.Lead != Nowhere && to.usable() && to.upstream == "" {
			w.next++
			to.write(w.next)
		}
	case "direct":
		if a.usable() && a.upstream == "" {
			w.next++
			a.write(w.next)
		}
	case "freeze":
		a.frozen = true
	case "thaw":
		a.frozen = false
	case "kill":
		a.up, a.frozen = false, false
	case "start": // from its snapshot: it is back at an older place, under a new id
		if !a.up {
			*a = clone(w.saved)
			a.up, a.before, a.now.ID = true, a.now, w.id()
		}
	case "empty":
		if !a.up {
			*a = simRedis{up: true, now: stream.Point{ID: w.id()}, log: map[int64]int{}, writes: map[int]bool{}}
			w.saved = clone(*a)
		}
	case "save":
		if a.usable() {
			w.saved = clone(*a)
			w.saved.frozen = false
		}
	case "flush":
		if a.usable() && a.upstream == "" {
			a.now.Offset++
			a.writes, a.mark = map[int]bool{}, ""
			w.flush = b.linkUp && b.upstream != ""
		}
	case "crash b": // from a snapshot of the moment
		if b.up && b.upstream == "" {
			b.before, b.now.ID = b.now, w.id()
		}
	}
}

// TestSimulation: whatever happens to home, no write that this site holds is ever
// replaced by a copy that lacks it, the endpoint leads to who takes writes, and when
// the trouble is over, with an operator's yes, this site follows a home that has
// everything it had.
func TestSimulation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.run(time.Second)
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			w.event()
			w.run(time.Duration(rapid.IntRange(1, 9000).Draw(t, "ms")) * time.Millisecond)
		}
		held := maps.Clone(w.b.writes)
		w.a.frozen = false
		if !w.a.up {
			w.a = clone(w.saved)
			w.a.up, w.a.before, w.a.now.ID = true, w.a.now, w.id()
		}
		gaveUp := false
		for range 300 {
			w.step()
			w.yes = len(w.out.Conditions) > 0
			gaveUp = gaveUp || w.out.Do == FollowAnyway
		}
		if w.out.State != Following || !w.b.linkUp {
			t.Fatalf("after the trouble: %+v\na %+v\nb %+v", w.out, w.a.now, w.b.now)
		}
		for op := range held {
			if !w.a.writes[op] && !gaveUp {
				t.Fatalf("write %d is lost", op)
			}
		}
	})
}
