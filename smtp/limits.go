package smtp

import (
	"net/netip"
	"sync"
	"time"
)

// The sliding minute is kept as six whole slots and the running one, so a limit
// holds for any 60 s, and an idle client has its whole allowance after 70 s.
const (
	slotLength = 10 * time.Second
	slotCount  = 7
)

// window counts events of the last minute.
type window struct {
	slots [slotCount]uint32
	last  int64 // number of the newest slot
}

// take counts n events at slot now unless they would exceed limit (0: none).
func (w *window) take(now int64, n, limit int) bool {
	w.advance(now)
	if limit > 0 {
		var sum int
		for _, c := range w.slots {
			sum += int(c)
		}
		if sum+n > limit {
			return false
		}
	}
	w.slots[w.last%slotCount] += uint32(n)
	return true
}

func (w *window) advance(now int64) {
	switch {
	case now <= w.last:
		return
	case now-w.last >= slotCount:
		clear(w.slots[:])
	default:
		for s := w.last + 1; s <= now; s++ {
			w.slots[s%slotCount] = 0
		}
	}
	w.last = now
}

// client is what is remembered of one network.
type client struct {
	key        netip.Addr
	open       int
	connects   window
	messages   window
	recipients window
	// prev and next link the idle clients, longest idle first; nil while open > 0.
	prev, next *client
}

// limiter holds the counters of all client networks in bounded memory.
type limiter struct {
	mu      sync.Mutex
	start   time.Time // slots are counted from here, on the monotonic clock
	max     int
	clients map[netip.Addr]*client
	idle    client // sentinel of the ring of idle clients
}

func newLimiter(maxClients int) *limiter {
	l := &limiter{start: time.Now(), max: maxClients, clients: make(map[netip.Addr]*client)}
	l.idle.prev, l.idle.next = &l.idle, &l.idle
	return l
}

// networkOf is the unit that limits count: an IPv4 address, an IPv6 /64.
func networkOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

func (l *limiter) slot() int64 { return int64(time.Since(l.start) / slotLength) }

// connect counts a new connection. Where it returns "", disconnect must follow;
// else it says which limit is exceeded.
func (l *limiter) connect(a netip.Addr, cfg *LimitsConfig) string {
	key := networkOf(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[key]
	if c == nil {
		if c = l.add(key); c == nil {
			return "too many clients"
		}
	}
	if cfg.Connections > 0 && c.open >= cfg.Connections {
		return "too many connections from your network"
	}
	if !c.connects.take(l.slot(), 1, cfg.ConnectionsPerMinute) {
		l.touch(c)
		return "too many new connections from your network"
	}
	if c.open == 0 {
		c.unlink()
	}
	c.open++
	return ""
}

// add makes room for a new client; nil where all remembered ones are connected.
func (l *limiter) add(key netip.Addr) *client {
	if len(l.clients) >= l.max {
		oldest := l.idle.next
		if oldest == &l.idle {
			return nil
		}
		oldest.unlink()
		delete(l.clients, oldest.key)
	}
	c := &client{key: key}
	l.clients[key] = c
	l.link(c)
	return c
}

func (l *limiter) disconnect(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[networkOf(a)]
	if c == nil || c.open == 0 {
		return
	}
	if c.open--; c.open == 0 {
		l.link(c)
	}
}

// message and recipient count one event of a connected client and say whether it
// is within the limit.
func (l *limiter) message(a netip.Addr, cfg *LimitsConfig) bool {
	return l.count(a, cfg.MessagesPerMinute, func(c *client) *window { return &c.messages })
}

func (l *limiter) recipient(a netip.Addr, cfg *LimitsConfig) bool {
	return l.count(a, cfg.RecipientsPerMinute, func(c *client) *window { return &c.recipients })
}

func (l *limiter) count(a netip.Addr, limit int, of func(*client) *window) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[networkOf(a)]
	if c == nil {
		return true
	}
	return of(c).take(l.slot(), 1, limit)
}

// size returns the number of remembered networks.
func (l *limiter) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients)
}

// touch makes an idle client the last to be forgotten.
func (l *limiter) touch(c *client) {
	if c.next != nil {
		c.unlink()
		l.link(c)
	}
}

func (l *limiter) link(c *client) {
	c.prev, c.next = l.idle.prev, &l.idle
	c.prev.next, c.next.prev = c, c
}

func (c *client) unlink() {
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
}
