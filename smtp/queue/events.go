package queue

import (
	"context"
	"sync"
	"sync/atomic"
)

// watchBuffer is how many events a watcher may be behind.
const watchBuffer = 1024

// watchers are those who read events.
type watchers struct {
	count atomic.Int32
	mu    sync.Mutex
	all   map[*watcher]struct{}
	ended bool
}

type watcher struct {
	ch      chan Event
	dropped int
}

// any says whether somebody watches; building an event is worth it then.
func (w *watchers) any() bool { return w.count.Load() > 0 }

func (w *watchers) send(e Event) {
	if !w.any() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.all {
		e.Dropped = x.dropped
		select {
		case x.ch <- e:
			x.dropped = 0
		default:
			x.dropped++
		}
	}
}

func (w *watchers) add() *watcher {
	x := &watcher{ch: make(chan Event, watchBuffer)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		close(x.ch)
		return x
	}
	if w.all == nil {
		w.all = make(map[*watcher]struct{})
	}
	w.all[x] = struct{}{}
	w.count.Add(1)
	return x
}

func (w *watchers) remove(x *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.all[x]; ok {
		delete(w.all, x)
		w.count.Add(-1)
		close(x.ch)
	}
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for x := range w.all {
		delete(w.all, x)
		w.count.Add(-1)
		close(x.ch)
	}
}

// Subscribe returns what happens from now on. A slow reader loses events and is
// told how many (Event.Dropped). The channel is closed when ctx ends, by the
// returned function, or with the spool.
func (s *Spool) Subscribe(ctx context.Context) (<-chan Event, func()) {
	x := s.watchers.add()
	stop := context.AfterFunc(ctx, func() { s.watchers.remove(x) })
	return x.ch, func() {
		stop()
		s.watchers.remove(x)
	}
}
