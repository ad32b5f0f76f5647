package peer

import (
	"context"
	"slices"
	"sync"
	"time"
)

// The bounds of a pool.
const (
	poolFloor = 8
	poolCap   = 256
	// dialsAtOnce bounds handshakes that fill a pool.
	dialsAtOnce = 16
	// poolIdle is when a connection above the floor is given up, and poolAge when
	// one at the floor is replaced: before the other site, or a NAT, ends it.
	poolIdle = time.Minute
	poolAge  = 3 * time.Minute
	// sweepEvery is how often a pool looks at its connections.
	sweepEvery = time.Second
	// demandTau is the time in which the memory of a burst halves.
	demandTau = time.Minute
)

// Pool holds connections of one service that are ready: authenticated, and
// confirmed by the other site. Its size follows the demand: twice the arrivals of
// the busiest recent round trip, at least 8, at most 256. What it cannot serve is
// dialled, with a session ticket where there is one.
type Pool struct {
	link    *Link
	service Service

	mu       sync.Mutex
	idle     []warm // oldest first
	dialling int
	demand   float64 // arrivals of the busiest recent round trip, decaying
	decayed  time.Time
	window   time.Time // when the present count began
	arrivals int
	hits     uint64
	misses   uint64

	kick chan struct{}
}

// warm is one connection that waits.
type warm struct {
	conn *Conn
	made time.Time
}

// PoolStatus is what a pool has and did.
type PoolStatus struct {
	// Idle are ready, Dialling are being made, Target is the size wanted.
	Idle     int `json:"idle"`
	Dialling int `json:"dialling"`
	Target   int `json:"target"`
	// Hits were served warm, Misses had to be dialled.
	Hits   uint64 `json:"hits"`
	Misses uint64 `json:"misses"`
}

// Warm keeps connections of a service ready, for Dial. It must be called before Run.
func (l *Link) Warm(s Service) *Pool {
	p := &Pool{link: l, service: s, kick: make(chan struct{}, 1), decayed: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pools[s] = p
	return p
}

// Get returns a warm connection, or dials.
func (p *Pool) Get(ctx context.Context) (*Conn, error) {
	rtt := p.link.RTT()
	p.mu.Lock()
	p.arrived(time.Now(), rtt)
	var got *Conn
	var dead []*Conn
	for n := len(p.idle); n > 0 && got == nil; n = len(p.idle) {
		c := p.idle[n-1].conn
		p.idle = p.idle[:n-1]
		if c.quiet() {
			got = c
		} else {
			dead = append(dead, c)
		}
	}
	if got != nil {
		p.hits++
	} else {
		p.misses++
	}
	p.mu.Unlock()
	p.wakeUp()
	abortAll(dead)
	if got == nil {
		return p.link.dial(ctx, p.service)
	}
	_ = got.SetReadDeadline(time.Time{})
	return got, nil
}

// arrived counts one for the demand; the caller holds mu.
func (p *Pool) arrived(now time.Time, rtt time.Duration) {
	window := max(rtt, 20*time.Millisecond)
	if now.Sub(p.window) > window {
		p.window, p.arrivals = now, 0
	}
	p.arrivals++
	p.demand = max(p.demandAt(now), float64(p.arrivals))
	p.decayed = now
}

// demandAt is the demand after its decay; the caller holds mu.
func (p *Pool) demandAt(now time.Time) float64 {
	d := p.demand
	for left := now.Sub(p.decayed); left >= demandTau && d > 0.5; left -= demandTau {
		d /= 2
	}
	return d
}

// target is how many connections should be ready; the caller holds mu.
func (p *Pool) target(now time.Time) int {
	return min(max(int(2*p.demandAt(now)), poolFloor), poolCap)
}

func (p *Pool) wakeUp() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *Pool) status() PoolStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStatus{Idle: len(p.idle), Dialling: p.dialling, Target: p.target(time.Now()), Hits: p.hits, Misses: p.misses}
}

// run fills and sweeps the pool until ctx ends.
func (p *Pool) run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	var dials sync.WaitGroup
	defer dials.Wait()
	failing := newBackoff()
	results := make(chan error, dialsAtOnce)
	var pauseUntil time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
		case now := <-t.C:
			p.sweep(now)
		case err := <-results:
			p.mu.Lock()
			p.dialling--
			p.mu.Unlock()
			if err != nil {
				pauseUntil = time.Now().Add(failing.next)
				failing.next = min(2*failing.next, longPause)
			} else {
				failing.reset()
			}
		}
		if !p.link.Up() || time.Now().Before(pauseUntil) {
			continue
		}
		p.mu.Lock()
		missing := p.target(time.Now()) - len(p.idle) - p.dialling
		missing = min(missing, dialsAtOnce-p.dialling)
		p.dialling += max(missing, 0)
		p.mu.Unlock()
		for range missing {
			dials.Go(func() { results <- p.add(ctx) })
		}
	}
}

// add makes one connection ready.
func (p *Pool) add(ctx context.Context) error {
	c, err := p.link.dial(ctx, p.service)
	if err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(p.link.cfg.HandshakeTimeout))
	if err := c.confirm(); err != nil {
		_ = c.Abort()
		return err
	}
	p.mu.Lock()
	p.idle = append(p.idle, warm{conn: c, made: time.Now()})
	p.mu.Unlock()
	return nil
}

// sweep gives up connections that are dead, too old, or too many.
func (p *Pool) sweep(now time.Time) {
	p.mu.Lock()
	surplus := len(p.idle) - p.target(now)
	var gone []*Conn
	p.idle = slices.DeleteFunc(p.idle, func(w warm) bool {
		age := now.Sub(w.made)
		if w.conn.quiet() && age < poolAge && (surplus <= 0 || age < poolIdle) {
			return false
		}
		surplus--
		gone = append(gone, w.conn)
		return true
	})
	p.mu.Unlock()
	abortAll(gone)
}
