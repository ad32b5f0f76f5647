package queue

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// route is the messages on their way to one next hop, in a heap: what is due
// first, and among equals the oldest, is on top. It is guarded by Spool.mu.
type route struct {
	name string
	heap []*message
	// wake holds one token where a taker should look again.
	wake chan struct{}
	// members counts the messages of the route in any phase.
	members int
}

func newRoute(name string) *route {
	return &route{name: name, wake: make(chan struct{}, 1)}
}

func (r *route) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *route) less(a, b *message) bool {
	if a.next != b.next {
		return a.next < b.next
	}
	return bytes.Compare(a.id[:], b.id[:]) < 0
}

// push adds m, or moves it after m.next has changed.
func (r *route) push(m *message) {
	if m.place < 0 {
		m.place = int32(len(r.heap))
		r.heap = append(r.heap, m)
	}
	r.up(int(m.place))
	r.down(int(m.place))
	// A taker sleeps until the top is due, so only a new top is news.
	if r.heap[0] == m {
		r.signal()
	}
}

// drop takes m out, where it is in.
func (r *route) drop(m *message) {
	i := int(m.place)
	if i < 0 {
		return
	}
	last := len(r.heap) - 1
	r.swap(i, last)
	r.heap[last] = nil
	r.heap = r.heap[:last]
	m.place = -1
	if i < last {
		r.up(i)
		r.down(i)
	}
	if cap(r.heap) > 4096 && len(r.heap) < cap(r.heap)/4 {
		r.heap = slices.Clone(r.heap)
	}
}

// due takes up to limit messages that are due at now, and says when the next is.
func (r *route) due(now int64, limit int) (out []*message, next int64, more bool) {
	for len(r.heap) > 0 {
		top := r.heap[0]
		if top.next > now || len(out) == limit {
			return out, top.next, true
		}
		r.drop(top)
		out = append(out, top)
	}
	return out, 0, false
}

// expedite makes everything due at now.
func (r *route) expedite(now int64) {
	for _, m := range r.heap {
		for i := range m.rcpts {
			if x := &m.rcpts[i]; x.pending() {
				x.next = min(x.next, now)
			}
		}
		m.next = min(m.next, now)
	}
	for i := len(r.heap)/2 - 1; i >= 0; i-- {
		r.down(i)
	}
	r.signal()
}

func (r *route) swap(i, j int) {
	h := r.heap
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

func (r *route) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !r.less(r.heap[i], r.heap[parent]) {
			return
		}
		r.swap(i, parent)
		i = parent
	}
}

func (r *route) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(r.heap) {
			return
		}
		if right := child + 1; right < len(r.heap) && r.less(r.heap[right], r.heap[child]) {
			child = right
		}
		if !r.less(r.heap[child], r.heap[i]) {
			return
		}
		r.swap(i, child)
		i = child
	}
}

// wait blocks until there may be something due: a token, the instant next (where
// there is one), another set of routes, or ctx.
func (r *route) wait(ctx context.Context, c clock, next int64, timed bool, changed <-chan struct{}) error {
	var alarm <-chan time.Time
	if timed {
		timer := time.NewTimer(time.Duration(next - c.now()))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.wake:
	case <-changed:
	case <-alarm:
	}
	return nil
}
