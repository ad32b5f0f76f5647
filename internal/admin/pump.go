package admin

import (
	"sync"

	"understudy/smtp/queue"
)

// maxBacklog bounds the events a pump keeps; what comes on top is dropped, and
// found by the next look at the queue.
const maxBacklog = 1 << 20

// pump takes events off a subscription as fast as they come, so that its reader
// may be busy for a while without losing any. run ends when the subscription does.
type pump struct {
	// ready has an item while there may be events.
	ready chan struct{}

	mu     sync.Mutex
	events []queue.Event
	ended  bool
}

func newPump() *pump { return &pump{ready: make(chan struct{}, 1)} }

// run moves events until the channel is closed.
func (p *pump) run(in <-chan queue.Event) {
	for ev := range in {
		p.mu.Lock()
		if len(p.events) < maxBacklog {
			p.events = append(p.events, ev)
		}
		p.mu.Unlock()
		p.wake()
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.wake()
}

func (p *pump) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// take returns what has come in since the last call, and whether that was the end.
func (p *pump) take() (events []queue.Event, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	events, p.events = p.events, nil
	return events, p.ended
}
