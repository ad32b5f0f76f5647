package integration

import (
	"fmt"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync/replica"
)

// agree wants the same counter at both.
func agree(t *testing.T, want int64, all ...*servers.KeyValue) {
	t.Helper()
	for i, r := range all {
		if n := counter(t, r.Client, "RS_1", "S"); n != want {
			t.Errorf("redis %d has %d, want %d", i, n, want)
		}
	}
}

// TestReplicaHomeMovesToSurvivor: home dies with its host, the role moves to this
// site, and what the old home still had of its own is merged when it comes back, as
// a follower. Both sites run their keeper; this one's is restarted meanwhile.
func TestReplicaHomeMovesToSurvivor(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	dirA, dirB := lab.Dir(t), lab.Dir(t)
	ka := keepSite(t, "a", true, a.Addr, b.Addr, dirA, nil)
	kb := keepSite(t, "b", false, b.Addr, a.Addr, dirB, nil)
	ka.wait(t, replica.Home, a.Addr)
	kb.waitFollowing(t, a.Addr)
	add := func(k *keptSite, n int64) {
		t.Helper()
		if err := k.writes.HIncrBy(t.Context(), "RS_1", "S", n).Err(); err != nil {
			t.Fatal(err)
		}
	}
	add(kb, 1)
	kb.waitFollowing(t, a.Addr)
	lab.Wait(t, time.Second*10, "copy", func() error {
		if n := counter(t, b.Client, "RS_1", "S"); n != 1 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	a.Freeze()
	kb.wait(t, replica.Detached, b.Addr)
	add(kb, 10)

	// The daemon of the survivor is restarted while it is alone: the fork is on disk.
	kb.stop()
	kb = keepSite(t, "b", false, b.Addr, a.Addr, dirB, nil)
	kb.wait(t, replica.Detached, b.Addr)
	add(kb, 100)
	kb.SetHome(true)
	kb.wait(t, replica.Home, b.Addr)

	// The old home comes back with a write of its own, and is told who is home now.
	a.Thaw()
	a.Do("HINCRBY", "RS_1", "S", 1000)
	ka.SetHome(false)
	ka.waitFollowing(t, b.Addr)
	agree(t, 1111, a, b)
	add(ka, 10_000) // through the endpoint of the old home, to the new one
	agree(t, 11_111, b)

	// And back again.
	ka.SetHome(true)
	kb.SetHome(false)
	ka.wait(t, replica.Home, a.Addr)
	kb.waitFollowing(t, a.Addr)
	agree(t, 11_111, a, b)
}

// TestReplicaHomeWentBack: home crashes and comes back from a snapshot that lacks what
// was copied from it already. It gets that back, and nothing counts twice.
func TestReplicaHomeWentBack(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	k := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	k.waitFollowing(t, a.Addr)
	add := func(n int64) {
		t.Helper()
		if err := k.writes.HIncrBy(t.Context(), "RS_1", "S", n).Err(); err != nil {
			t.Fatal(err)
		}
	}
	add(1)
	save(t, a)
	add(10)
	lab.Wait(t, time.Second*10, "copy", func() error {
		if n := counter(t, b.Client, "RS_1", "S"); n != 11 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	a.Kill()
	a.Start()
	agree(t, 1, a)
	k.waitFollowing(t, a.Addr)
	lab.Wait(t, time.Second*20, "what home lost is back", func() error {
		if n := counter(t, a.Client, "RS_1", "S"); n != 11 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	k.waitFollowing(t, a.Addr)
	agree(t, 11, a, b)
}
