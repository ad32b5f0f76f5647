package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestStackUnwindsInReverseAndGoesOnAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stack{log: slog.New(slog.DiscardHandler)}
		var order []string
		broken := errors.New("broken")
		s.push("first", time.Second, func(context.Context) error { order = append(order, "first"); return nil })
		s.push("hangs", time.Second, func(ctx context.Context) error {
			order = append(order, "hangs")
			<-ctx.Done()
			return ctx.Err()
		})
		s.push("fails", time.Second, func(context.Context) error { order = append(order, "fails"); return broken })

		err := s.unwind(t.Context())
		if !errors.Is(err, broken) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("unwind = %v, want both failures", err)
		}
		if want := []string{"fails", "hangs", "first"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		if err := s.unwind(t.Context()); err != nil || len(order) != 3 {
			t.Errorf("a second unwind did something: %v, %v", err, order)
		}
	})
}
