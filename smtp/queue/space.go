package queue

import (
	"sync/atomic"
	"time"

	"understudy/internal/durable"
)

// space knows whether the file system has room above the reserve.
type space struct {
	dir      string
	reserve  int64
	free     func(dir string) (int64, error)
	clock    clock
	last     atomic.Int64 // bytes free
	measured atomic.Int64 // instant
	full     atomic.Int64 // instant until which the disk counts as full
}

// spaceAge is how long a measurement is believed, and how long a disk that said
// "full" is not asked again.
const spaceAge = time.Second

func newSpace(cfg Config, deps Deps, c clock) *space {
	s := &space{dir: cfg.Dir, reserve: cfg.ReserveBytes, free: deps.Free, clock: c}
	switch {
	case s.free != nil:
	case deps.FS == nil:
		s.free = durable.Free
	default:
		s.free = func(string) (int64, error) { return 1 << 50, nil }
	}
	return s
}

// measure asks the file system. An error leaves the last value: not knowing is no
// reason to refuse mail, the write itself will tell.
func (s *space) measure() {
	defer s.measured.Store(s.clock.now())
	if n, err := s.free(s.dir); err == nil {
		s.last.Store(n)
	} else if s.last.Load() == 0 {
		s.last.Store(s.reserve)
	}
}

// room says whether n bytes fit above the reserve.
func (s *space) room(n int64) bool {
	now := s.clock.now()
	if at := s.measured.Load(); at == 0 || now-at > int64(spaceAge) {
		s.measure()
	}
	return now >= s.full.Load() && s.last.Load()-max(n, 0) >= s.reserve
}

// roomForCopies says whether compaction may write: it frees more than it takes, so
// it may use half of the reserve.
func (s *space) roomForCopies() bool {
	s.measure()
	return s.clock.now() >= s.full.Load() && s.last.Load() >= s.reserve/2
}

// exhausted notes that a write found no space.
func (s *space) exhausted() { s.full.Store(s.clock.now() + int64(spaceAge)) }
