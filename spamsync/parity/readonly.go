package parity

import (
	"context"
	"sync/atomic"
	"time"

	"understudy/spamsync"
)

// ReadOnly is a state that is only asked: whatever would write is refused with
// spamsync.ErrReadOnly, and counted, as are questions without an answer. Its
// methods may be called concurrently.
type ReadOnly struct {
	state   spamsync.State
	refused atomic.Int64
	failed  atomic.Int64
}

var _ spamsync.State = (*ReadOnly)(nil)

// NewReadOnly returns state without its writes.
func NewReadOnly(state spamsync.State) *ReadOnly { return &ReadOnly{state: state} }

// Refused is how many writes were refused.
func (r *ReadOnly) Refused() int64 { return r.refused.Load() }

// Failed is how many questions had no answer.
func (r *ReadOnly) Failed() int64 { return r.failed.Load() }

// Tokens implements spamsync.State.
func (r *ReadOnly) Tokens(ctx context.Context, hashes []uint64) ([]spamsync.Pair, spamsync.Pair, error) {
	counts, learned, err := r.state.Tokens(ctx, hashes)
	return counts, learned, r.note(err)
}

// First implements spamsync.State.
func (r *ReadOnly) First(ctx context.Context, key string) (time.Time, error) {
	first, err := r.state.First(ctx, key)
	return first, r.note(err)
}

// Counters implements spamsync.State.
func (r *ReadOnly) Counters(ctx context.Context, keys []string) ([]map[string]int64, error) {
	counters, err := r.state.Counters(ctx, keys)
	return counters, r.note(err)
}

// Learn implements spamsync.State: it is refused.
func (r *ReadOnly) Learn(context.Context, string, spamsync.Class, []uint64) (bool, error) {
	return false, r.refuse()
}

// Touch implements spamsync.State: it is refused.
func (r *ReadOnly) Touch(context.Context, string, time.Time, time.Duration) (time.Time, error) {
	return time.Time{}, r.refuse()
}

// Add implements spamsync.State: it is refused.
func (r *ReadOnly) Add(context.Context, []spamsync.Counter) error { return r.refuse() }

func (r *ReadOnly) note(err error) error {
	if err != nil {
		r.failed.Add(1)
	}
	return err
}

func (r *ReadOnly) refuse() error {
	r.refused.Add(1)
	return spamsync.ErrReadOnly
}
