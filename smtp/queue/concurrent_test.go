package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/durable/simfs"
	"understudy/smtp"
)

// TestConcurrentWork has writers, takers, operators and housekeeping at work at
// the same time, cuts the power at some moment, and asks for everything promised.
func TestConcurrentWork(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			t.Parallel()
			concurrentRound(t, uint64(round))
		})
	}
}

// promises is what the workers were told.
type promises struct {
	mu     sync.Mutex
	bodies map[string]string // answered nil
	ended  map[string]bool   // delivered or deleted, perhaps not on disk
}

func concurrentRound(t *testing.T, seed uint64) {
	t.Helper()
	fsys := simfs.New()
	s, err := openManual(fsys)
	if err != nil {
		t.Fatal(err)
	}
	p := &promises{bodies: map[string]string{}, ended: map[string]bool{}}
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() { p.write(ctx, s.Spool, rand.New(rand.NewPCG(seed, uint64(w)))) })
	}
	for range 3 {
		wg.Go(func() { p.deliver(ctx, t, s.Spool) })
	}
	wg.Go(func() { p.operate(ctx, s.Spool) })
	var rounds atomic.Int64
	wg.Go(func() {
		for ctx.Err() == nil {
			// Errors come when the power is cut.
			_ = errors.Join(s.eraseSpills(ctx), s.compact(ctx), s.erase(ctx), s.writeCheckpoint(ctx))
			rounds.Add(1)
		}
	})
	cut := rand.New(rand.NewPCG(seed, 99))
	select {
	case <-time.After(time.Duration(50+cut.IntN(300)) * time.Millisecond):
	case <-ctx.Done():
	}
	fsys.Crash()
	cancel()
	wg.Wait()
	_ = s.close() // it has crashed
	if len(p.bodies) < 5 || rounds.Load() < 2 {
		t.Logf("the machine is busy, this says little: %d messages, %d rounds of housekeeping", len(p.bodies), rounds.Load())
	}
	for outcome := range uint64(3) {
		again, err := openManual(fsys.Restart(seed*10 + outcome))
		if err != nil {
			t.Fatal(err)
		}
		for id, body := range p.bodies {
			got, err := readAllOf(again.Spool, id)
			if errors.Is(err, ErrNotFound) && p.ended[id] {
				continue
			}
			if err != nil || got != body {
				t.Errorf("%s has %d bytes, want %d: %v", id, len(got), len(body), err)
			}
		}
		if err := again.close(); err != nil {
			t.Error(err)
		}
	}
}

func (p *promises) write(ctx context.Context, s *Spool, rng *rand.Rand) {
	for ctx.Err() == nil {
		size := rng.IntN(3000)
		if rng.IntN(4) == 0 {
			size = 5000 + rng.IntN(20_000)
		}
		body := strings.Repeat(fmt.Sprintf("%08x ", rng.Uint32()), size/9+1)
		if id, err := store(s, envelope("s@x.example", "a@y.example"), body); err == nil {
			p.mu.Lock()
			p.bodies[id] = "Received: test\r\n" + body
			p.mu.Unlock()
		}
	}
}

func (p *promises) deliver(ctx context.Context, t *testing.T, s *Spool) {
	t.Helper()
	for ctx.Err() == nil {
		list, err := s.Take(ctx, "", 4)
		if err != nil {
			return
		}
		for i, d := range list {
			if body, _, err := d.Open(ctx); err == nil {
				if err := body.Close(); err != nil {
					t.Error(err)
				}
			}
			outcome := smtp.Deferred
			if i%4 != 0 {
				outcome = smtp.Delivered
				p.end(d.Envelope().ID)
			}
			d.Done([]smtp.Result{result(0, outcome, "x")})
		}
	}
}

func (p *promises) end(ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.ended[id] = true
	}
}

func (p *promises) operate(ctx context.Context, s *Spool) {
	for n := 0; ctx.Err() == nil; n++ {
		// Errors come when the power is cut; what was in force then may be on disk.
		_, _ = s.Apply(ctx, Hold, Selection{MinBytes: 2000}, ApplyOptions{})
		list, err := s.List(ctx, Selection{States: []State{Held}})
		if err == nil && len(list) > 3 {
			p.end(list[0].ID)
			_, _ = s.Apply(ctx, Delete, Selection{IDs: []string{list[0].ID}}, ApplyOptions{})
		}
		_, _ = s.Apply(ctx, Release, Selection{}, ApplyOptions{})
		s.Expedite("")
		_, _ = s.Stats(ctx)
	}
}
