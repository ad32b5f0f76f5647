package parity

import (
	"context"
	"errors"
	"testing"
	"time"

	"understudy/spamsync"
)

// TestReadOnly: questions are answered, writes are refused, and what was not
// answered is counted.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	state := spamsync.NewMemory(nil)
	if _, err := state.Learn(t.Context(), "digest", spamsync.Spam, []uint64{1}); err != nil {
		t.Fatal(err)
	}
	records := state.Records()
	r := NewReadOnly(state)
	for name, write := range map[string]func(context.Context) error{
		"learn": func(ctx context.Context) error {
			_, err := r.Learn(ctx, "other", spamsync.Ham, []uint64{2})
			return err
		},
		"touch": func(ctx context.Context) error {
			_, err := r.Touch(ctx, "key", time.Now(), time.Hour)
			return err
		},
		"add": func(ctx context.Context) error {
			return r.Add(ctx, []spamsync.Counter{{Key: "k", Field: "f", Delta: 1, TTL: time.Hour}})
		},
	} {
		if err := write(t.Context()); !errors.Is(err, spamsync.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	counts, learned, err := r.Tokens(t.Context(), []uint64{1, 2})
	if err != nil || learned.Spam != 1 || learned.Ham != 0 || counts[0].Spam != 1 || counts[1] != (spamsync.Pair{}) {
		t.Errorf("%v, %v, %v", counts, learned, err)
	}
	if state.Records() != records || r.Refused() != 3 || r.Failed() != 0 {
		t.Errorf("%d records instead of %d, %d writes refused, %d failed", state.Records(), records, r.Refused(), r.Failed())
	}
	state.Fail(spamsync.ErrAway, nil)
	if _, err := r.First(t.Context(), "key"); !errors.Is(err, spamsync.ErrAway) {
		t.Error(err)
	}
	if _, err := r.Counters(t.Context(), []string{"k"}); !errors.Is(err, spamsync.ErrAway) || r.Failed() != 2 {
		t.Errorf("%v, %d failed", err, r.Failed())
	}
}
