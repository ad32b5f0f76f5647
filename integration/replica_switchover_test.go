package integration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync/replica"
)

// ackedWrites writes distinct members at a steady rate through one endpoint, and
// keeps those that were acknowledged.
type ackedWrites struct {
	acked   []string
	refused int
	last    time.Time
	gap     time.Duration // longest time between two acknowledged writes
	gapAt   time.Time     // when it ended
	reason  string        // of the last refusal before it
}

func (w *ackedWrites) run(ctx context.Context, c *redis.Client, name string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	why := ""
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id := fmt.Sprintf("%s-%d", name, i)
		if err := c.SAdd(context.WithoutCancel(ctx), "BAYES_SPAM_keys", id).Err(); err != nil {
			w.refused++
			why = err.Error()
			continue
		}
		now := time.Now()
		if d := now.Sub(w.last); !w.last.IsZero() && d > w.gap {
			w.gap, w.gapAt, w.reason = d, now, why
		}
		w.last = now
		w.acked = append(w.acked, id)
	}
}

// TestReplicaSwitchover: the home of the spam state moves, there and back, under
// 1,000 acknowledged writes a second, and none of them is lost.
func TestReplicaSwitchover(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	for _, r := range []*servers.KeyValue{a, b} { // every lab server has its own address on loopback
		host, _ := splitAddr(t, r.Addr)
		r.Do("CONFIG", "SET", "replica-announce-ip", host)
	}
	ka := keepSite(t, "a", true, a.Addr, b.Addr, lab.Dir(t), nil)
	kb := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	ka.wait(t, replica.Home, a.Addr)
	kb.waitFollowing(t, a.Addr)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writers := make([]ackedWrites, 8)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range writers {
		c := ka.writes
		if i%2 == 1 {
			c = kb.writes
		}
		wg.Go(func() { writers[i].run(ctx, c, fmt.Sprint(i), 6*time.Millisecond) })
	}
	for _, toB := range []bool{true, false} {
		if err := pauseFor(t, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		moved := time.Now()
		ka.SetHome(!toB)
		kb.SetHome(toB)
		home, follower, addr := kb, ka, b.Addr
		if !toB {
			home, follower, addr = ka, kb, a.Addr
		}
		home.wait(t, replica.Home, addr)
		t.Logf("moved after %v", time.Since(moved))
		follower.waitFollowing(t, addr)
		t.Logf("the old home follows after %v", time.Since(moved))
	}
	if err := pauseFor(t, time.Second); err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	took := time.Since(began)
	kb.waitFollowing(t, a.Addr)

	acked, refused := 0, 0
	var gap time.Duration
	for i := range writers {
		acked, refused, gap = acked+len(writers[i].acked), refused+writers[i].refused, max(gap, writers[i].gap)
	}
	for name, r := range map[string]*servers.KeyValue{"a": a, "b": b} {
		has := map[string]bool{}
		for _, m := range r.Client.SMembers(t.Context(), "BAYES_SPAM_keys").Val() {
			has[m] = true
		}
		lost := 0
		for i := range writers {
			for _, id := range writers[i].acked {
				if !has[id] {
					lost++
				}
			}
		}
		if lost > 0 || len(has) == 0 {
			t.Errorf("redis %s lacks %d acknowledged writes", name, lost)
		}
	}
	t.Logf("%d writes acknowledged (%.0f a second), %d refused, longest stall of a writer %v", acked, float64(acked)/took.Seconds(), refused, gap)
	for i := range writers {
		if w := &writers[i]; w.gap > time.Second {
			t.Errorf("writer %d stalled for %v until %v; refused before: %s", i, w.gap, w.gapAt, w.reason)
		}
	}
}

// pauseFor lets load run for a while.
func pauseFor(t *testing.T, d time.Duration) error {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.Context().Done():
		return errors.New("the test has ended")
	case <-timer.C:
		return nil
	}
}
