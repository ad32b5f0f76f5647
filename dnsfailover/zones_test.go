package dnsfailover_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/dnsfailover"
)

// slowly is a publisher whose host takes its time.
type slowly struct {
	dnsfailover.Publisher

	takes *atomic.Int64
}

func (s slowly) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return errors.Join(dnsfailover.ErrUnreachable, ctx.Err())
	case <-time.After(time.Duration(s.takes.Load())):
		return nil
	}
}

// Records implements dnsfailover.Publisher.
func (s slowly) Records(ctx context.Context, keys []dnsfailover.RRKey) ([]dnsfailover.RRSet, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Publisher.Records(ctx, keys)
}

// Apply implements dnsfailover.Publisher.
func (s slowly) Apply(ctx context.Context, epoch uint64, changes []dnsfailover.RRChange) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Publisher.Apply(ctx, epoch, changes)
}

// TestSlowHost: the limit of a question to the register is not that of a DNS host's
// API, which has its own.
func TestSlowHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.slow.Store(int64(8 * time.Second))
		if err := p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}).Err(); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		p.publishes(second)
	})
}

// TestHungHostDelaysNoFence: while records elsewhere cannot be changed, the end of
// the permit still stops the work at once.
func TestHungHostDelaysNoFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.slow.Store(int64(time.Hour))
		if err := p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}).Err(); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		p.zone.Down(dnsfailover.ErrUnreachable)
		p.cutLink(true)
		for range 30 { // second by second, as it may hang at any of them
			pass(time.Second)
			if p.role(1) == dnsfailover.Fenced {
				break
			}
		}
		pass(10 * time.Millisecond)
		if got := p.sites[1].ran(); p.role(1) != dnsfailover.Fenced || !slices.Contains(got, "fence 8") {
			t.Errorf("b is %s and ran %v", p.role(1), got)
		}
	})
}
