package dnsfailover

import (
	"sync"
	"time"
)

// Feed holds the view of the moment and tells its readers when it changes. The
// zero value is fenced for ever.
//
//	view, changed := feed.Changed()
//	...
//	<-changed // ask again
type Feed struct {
	mu      sync.Mutex
	view    View
	until   Instant // of the permit; 0: for ever
	clock   Clock
	changed chan struct{}
}

// NewFeed returns a feed that holds view, which never ends.
func NewFeed(view View) *Feed { return &Feed{view: view} }

// Load is the view now. A permit that has run out is none: the view is fenced
// then, even if nobody came to say so (the process was stopped, the machine
// suspended).
func (f *Feed) Load() View {
	v, _ := f.Changed()
	return v
}

// Changed is Load and a channel that is closed when the view next changes in
// Active, Epoch or Role; a longer permit is no change.
func (f *Feed) Changed() (View, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	v := f.view
	if v.Role == Active && f.until != 0 && f.clock != nil && f.clock.Now() >= f.until {
		v.Role, v.Until = Fenced, time.Time{}
	}
	return v, f.changed
}

// publish replaces the view; until is when its permit ends on clock, 0 for ever.
func (f *Feed) publish(v View, until Instant, clock Clock) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := f.view.Active == v.Active && f.view.Epoch == v.Epoch && f.view.Role == v.Role
	f.view, f.until, f.clock = v, until, clock
	if !same && f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}
