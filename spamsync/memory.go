package spamsync

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Memory is a State in memory: the fake of tests, and the state of a filter
// without Redis. Its zero value is ready. Nothing bounds it but what was learned and
// the lifetimes of the rest.
type Memory struct {
	mu       sync.Mutex
	now      func() time.Time
	readErr  error
	writeErr error
	tokens   map[uint64]Pair
	learned  map[string]Class
	total    Pair
	grey     map[string]memoryGrey
	counters map[string]*memoryCounter
	sweepAt  int // records at which the expired ones are dropped
}

// sweepFrom is how many records there are at least before expired ones are looked for.
const sweepFrom = 4096

type memoryGrey struct {
	first, expires time.Time
}

type memoryCounter struct {
	fields  map[string]int64
	expires time.Time
}

var _ State = (*Memory)(nil)

// NewMemory returns an empty state that takes the time from now; nil is time.Now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now}
}

// Fail makes reads and writes fail from now on, with ErrAway and ErrReadOnly for
// example; nil lets them succeed again.
func (m *Memory) Fail(read, write error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readErr, m.writeErr = read, write
}

func (m *Memory) clock() time.Time {
	if m.now == nil {
		return time.Now()
	}
	return m.now()
}

// Tokens implements State.
func (m *Memory) Tokens(ctx context.Context, hashes []uint64) ([]Pair, Pair, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := firstOf(ctx.Err(), m.readErr); err != nil {
		return nil, Pair{}, err
	}
	counts := make([]Pair, len(hashes))
	for i, h := range hashes {
		counts[i] = m.tokens[h].floor()
	}
	return counts, m.total.floor(), nil
}

// Learn implements State.
func (m *Memory) Learn(ctx context.Context, digest string, class Class, hashes []uint64) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := firstOf(ctx.Err(), m.writeErr); err != nil {
		return false, err
	}
	before := m.learned[digest]
	if before == class {
		return false, nil
	}
	if m.tokens == nil {
		m.tokens, m.learned = make(map[uint64]Pair), make(map[string]Class)
	}
	delta := move(before, class)
	for _, h := range hashes {
		m.tokens[h] = m.tokens[h].plus(delta)
	}
	m.total = m.total.plus(delta)
	if class == Unlearned {
		delete(m.learned, digest)
	} else {
		m.learned[digest] = class
	}
	return true, nil
}

// First implements State.
func (m *Memory) First(ctx context.Context, key string) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := firstOf(ctx.Err(), m.readErr); err != nil {
		return time.Time{}, err
	}
	if g, ok := m.grey[key]; ok && m.clock().Before(g.expires) {
		return g.first, nil
	}
	return time.Time{}, nil
}

// Touch implements State.
func (m *Memory) Touch(ctx context.Context, key string, at time.Time, ttl time.Duration) (time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := firstOf(ctx.Err(), m.writeErr); err != nil {
		return time.Time{}, err
	}
	at = at.Truncate(time.Millisecond).UTC()
	now := m.clock()
	g, ok := m.grey[key]
	switch {
	case !ok || !now.Before(g.expires):
		g = memoryGrey{first: at, expires: now.Add(ttl)}
	case at.Before(g.first):
		g.first = at
	}
	if m.grey == nil {
		m.grey = make(map[string]memoryGrey)
	}
	m.grey[key] = g
	m.sweep(now)
	return g.first, nil
}

// Counters implements State.
func (m *Memory) Counters(ctx context.Context, keys []string) ([]map[string]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := firstOf(ctx.Err(), m.readErr); err != nil {
		return nil, err
	}
	out := make([]map[string]int64, len(keys))
	now := m.clock()
	for i, k := range keys {
		out[i] = make(map[string]int64)
		if c := m.counters[k]; c != nil && now.Before(c.expires) {
			maps.Copy(out[i], c.fields)
		}
	}
	return out, nil
}

// Add implements State.
func (m *Memory) Add(ctx context.Context, changes []Counter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := firstOf(ctx.Err(), m.writeErr); err != nil {
		return err
	}
	if m.counters == nil {
		m.counters = make(map[string]*memoryCounter)
	}
	now := m.clock()
	for _, c := range changes {
		g := m.counters[c.Key]
		if g == nil || !now.Before(g.expires) {
			g = &memoryCounter{fields: make(map[string]int64)}
			m.counters[c.Key] = g
		}
		g.fields[c.Field] += c.Delta
		g.expires = now.Add(c.TTL)
	}
	m.sweep(now)
	return nil
}

// sweep drops what has expired, each time the records have doubled.
func (m *Memory) sweep(now time.Time) {
	if len(m.grey)+len(m.counters) < max(m.sweepAt, sweepFrom) {
		return
	}
	maps.DeleteFunc(m.grey, func(_ string, g memoryGrey) bool { return !now.Before(g.expires) })
	maps.DeleteFunc(m.counters, func(_ string, c *memoryCounter) bool { return !now.Before(c.expires) })
	m.sweepAt = 2 * (len(m.grey) + len(m.counters))
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// move is what a token's counts change by when its message changes class.
func move(before, after Class) Pair {
	var p Pair
	for class, n := range map[Class]int64{before: -1, after: 1} {
		switch class {
		case Spam:
			p.Spam = n
		case Ham:
			p.Ham = n
		case Unlearned:
		}
	}
	return p
}

func (p Pair) plus(q Pair) Pair { return Pair{p.Spam + q.Spam, p.Ham + q.Ham} }

// floor cuts negative counts, which a merge of two sites can leave behind.
func (p Pair) floor() Pair { return Pair{max(p.Spam, 0), max(p.Ham, 0)} }

// Records is how many greylist records and counter groups are held, expired ones
// that were not dropped yet included.
func (m *Memory) Records() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.grey) + len(m.counters)
}
