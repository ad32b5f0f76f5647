package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync/replica"
)

// count adds 1 to each of keys counters, rounds times, and once more to the key last.
func count(t *testing.T, c *redis.Client, keys, rounds int, last string) {
	t.Helper()
	for range rounds {
		_, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range keys {
				p.HIncrBy(t.Context(), fmt.Sprintf("RS_%d", i), "S", 1)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.HIncrBy(t.Context(), last, "S", 1).Err(); err != nil {
		t.Fatal(err)
	}
}

// TestReplicaHomeMovesInMidMerge: this site's changes are half merged into home when
// home moves here. The merge ends; the old home has its own changes merged into this
// site, and those that had come from here do not come back.
func TestReplicaHomeMovesInMidMerge(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	ka := keepSite(t, "a", true, a.Addr, b.Addr, lab.Dir(t), nil)
	kb := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	ka.wait(t, replica.Home, a.Addr)
	kb.waitFollowing(t, a.Addr)
	const keys = 2000
	count(t, ka.writes, keys, 1, "RS_before")
	// What a keeper says is a moment old; what is at b says that it has everything.
	lab.Wait(t, 30*time.Second, "b has what was before", func() error {
		if n := b.Client.Exists(t.Context(), "RS_before", "us:replica:dataset").Val(); n != 2 {
			return fmt.Errorf("%d of 2 keys", n)
		}
		return nil
	})

	a.Freeze()
	kb.wait(t, replica.Detached, b.Addr)
	count(t, kb.writes, keys, 150, "RS_b")
	a.Thaw()
	count(t, a.Client, keys, 2, "RS_a")

	lab.Wait(t, 30*time.Second, "a part is merged", func() error {
		if a.Client.Exists(t.Context(), "us:merge:b").Val() == 0 {
			return errors.New("no mark")
		}
		return nil
	})
	kb.SetHome(true)
	ka.SetHome(false)
	kb.wait(t, replica.Home, b.Addr)
	part, whole := counter(t, a.Client, "RS_1", "S"), int64(1+150+2)
	if part >= whole || counter(t, a.Client, "RS_b", "S") != 0 {
		t.Fatalf("RS_1 is %d of %d: the merge was at its end before home moved", part, whole)
	}
	t.Logf("home moved when %d of %d were merged", part, whole)
	count(t, kb.writes, keys, 3, "RS_later")
	ka.waitFollowing(t, b.Addr)
	for name, r := range map[string]*servers.KeyValue{"a": a, "b": b} {
		wrong := 0
		for i := range keys {
			if n := counter(t, r.Client, fmt.Sprintf("RS_%d", i), "S"); n != whole+3 {
				if wrong++; wrong < 4 {
					t.Errorf("redis %s: RS_%d is %d, want %d", name, i, n, whole+3)
				}
			}
		}
		if wrong > 0 {
			t.Errorf("redis %s: %d of %d counters are wrong", name, wrong, keys)
		}
		for _, key := range []string{"RS_before", "RS_a", "RS_b", "RS_later"} {
			if n := counter(t, r.Client, key, "S"); n != 1 {
				t.Errorf("redis %s: %s is %d, want 1", name, key, n)
			}
		}
	}
}
