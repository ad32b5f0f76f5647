package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync"
	"understudy/spamsync/replica"
)

// alarmBook keeps what is raised now.
type alarmBook struct {
	mu     sync.Mutex
	raised map[string]string
}

func (a *alarmBook) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.raised == nil {
		a.raised = map[string]string{}
	}
	a.raised[key] = text
}

func (a *alarmBook) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.raised, key)
}

func (a *alarmBook) keys() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.raised))
}

// keptSite is one site's Redis with its keeper, in this process.
type keptSite struct {
	*replica.Keeper
	alarms *alarmBook
	writes *redis.Client // through the endpoint
	stop   func()
}

// keepSite starts a keeper for site; change may alter its configuration.
func keepSite(t *testing.T, site string, homeHere bool, own, other string, dir string, change func(*replica.Config, *replica.Deps)) *keptSite {
	t.Helper()
	cfg := replica.DefaultConfig()
	cfg.GateListen, cfg.DetachAfter = lab.FreeAddr(t), 2*time.Second
	rc := spamsync.DefaultRedisConfig()
	rc.Address, rc.Peer, rc.WriteListen = own, other, lab.FreeAddr(t)
	k := &keptSite{alarms: &alarmBook{}}
	peer := map[string]string{"a": "b", "b": "a"}[site]
	log, err := os.OpenFile(filepath.Join(lab.Dir(t), "keeper-"+site+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	deps := replica.Deps{
		Site: site, Peer: peer, HomeHere: homeHere, Redis: rc, Dir: dir, Alarms: k.alarms,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&cfg, &deps)
	}
	if k.Keeper, err = replica.New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	if err := k.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	k.writes = redis.NewClient(&redis.Options{Addr: rc.WriteListen, MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second, ReadTimeout: 2 * time.Second})
	var once sync.Once
	k.stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, k.Close(), k.writes.Close()); err != nil {
				t.Errorf("keeper %s: %v", site, err)
			}
		})
	}
	t.Cleanup(func() {
		k.stop()
		if t.Failed() {
			_, _ = log.Seek(0, io.SeekStart)
			text, _ := io.ReadAll(log)
			t.Logf("log of keeper %s:\n%s", site, text[max(0, len(text)-4000):])
		}
		_ = log.Close()
	})
	return k
}

// wait waits for a state, with the endpoint leading to writes.
func (k *keptSite) wait(t *testing.T, state replica.State, writes string) {
	t.Helper()
	lab.Wait(t, 30*time.Second, fmt.Sprintf("state %s, writes to %q", state, writes), func() error {
		if st := k.Status(); st.State != state || st.Writes != writes || st.Busy != replica.NoAction {
			return fmt.Errorf("%s, writes to %q, busy %q %s, %+v, journal %+v", st.State, st.Writes, st.Busy, st.Failure, st.Conditions, st.Journal)
		}
		return nil
	})
}

// waitFollowing waits until the copy is a copy.
func (k *keptSite) waitFollowing(t *testing.T, home string) {
	t.Helper()
	k.wait(t, replica.Following, home)
	lab.Wait(t, 30*time.Second, "replication is up", func() error {
		if st := k.Status(); !st.Local.LinkUp || st.LagBytes != 0 {
			return fmt.Errorf("link %v, %d bytes behind, %+v", st.Local.LinkUp, st.LagBytes, st.Conditions)
		}
		return nil
	})
}

// redisPair is two Redis that keep their data on disk where asked to.
func redisPair(t *testing.T, settings ...string) (a, b *servers.KeyValue) {
	t.Helper()
	return servers.Redis(t, settings...), servers.Redis(t, settings...)
}

// splitAddr returns host and port.
func splitAddr(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// save writes a snapshot; a copy that is being sent to a replica is waited for.
func save(t *testing.T, r *servers.KeyValue) {
	t.Helper()
	lab.Wait(t, 10*time.Second, "snapshot", func() error { return r.Client.Save(t.Context()).Err() })
}

// counter reads a field of a learned token.
func counter(t *testing.T, c *redis.Client, key, field string) int64 {
	t.Helper()
	n, err := c.HGet(t.Context(), key, field).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return n
}

// TestReplicaDetachesAndReturns: an ordinary life. Home dies, this site goes on, home
// comes back with changes of its own, and afterwards both have everything.
func TestReplicaDetachesAndReturns(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	dir := lab.Dir(t)
	k := keepSite(t, "b", false, b.Addr, a.Addr, dir, nil)
	k.waitFollowing(t, a.Addr)
	ctx := t.Context()
	add := func(c *redis.Client, n int64) {
		t.Helper()
		if err := c.HIncrBy(ctx, "RS_1", "S", n).Err(); err != nil {
			t.Fatal(err)
		}
	}
	add(k.writes, 5)
	lab.Wait(t, 5*time.Second, "copy", func() error {
		if n := counter(t, b.Client, "RS_1", "S"); n != 5 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})

	for round := range 2 {
		a.Freeze() // a black hole: it accepts and never answers
		began := time.Now()
		lab.Wait(t, 2*time.Second, "the endpoint refuses", func() error {
			if w := k.Status().Writes; w != "" {
				return errors.New(w)
			}
			return nil
		})
		if took := time.Since(began); took > 700*time.Millisecond {
			t.Errorf("round %d: a black hole was noticed after %v", round, took)
		} else {
			t.Logf("black hole noticed after %v", took)
		}
		k.wait(t, replica.Detached, b.Addr)
		t.Logf("detached after %v", time.Since(began))
		add(k.writes, 10)
		if !slices.Contains(k.alarms.keys(), "spam:replica:detached") {
			t.Errorf("alarms %q", k.alarms.keys())
		}
		a.Thaw()
		add(a.Client, 100) // home was used by others meanwhile
		k.waitFollowing(t, a.Addr)
		want := int64(5 + (round+1)*110)
		if n := counter(t, a.Client, "RS_1", "S"); n != want {
			t.Errorf("round %d: %d at home, want %d", round, n, want)
		}
		if n := counter(t, b.Client, "RS_1", "S"); n != want {
			t.Errorf("round %d: %d at the copy, want %d", round, n, want)
		}
	}
	if got := k.alarms.keys(); len(got) != 0 {
		t.Errorf("alarms at the end: %q", got)
	}
}

// TestReplicaHomeRestartedEmpty: a master that lost everything does not wipe its
// follower, and gets everything back when the operator says so.
func TestReplicaHomeRestartedEmpty(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	for i := range 200 {
		a.Do("HINCRBY", fmt.Sprintf("RS_%d", i), "S", 1)
	}
	a.Do("HINCRBY", "RS", "learns_spam", 1)
	k := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	k.waitFollowing(t, a.Addr)

	a.Kill()
	a.Start()
	a.Do("HINCRBY", "RS_7", "S", 30)
	k.wait(t, replica.Detached, b.Addr)
	if n := b.Client.DBSize(t.Context()).Val(); n < 201 {
		t.Fatalf("the follower has %d keys left", n)
	}
	if err := k.writes.HIncrBy(t.Context(), "RS_7", "S", 4).Err(); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 10*time.Second, "it is named", func() error {
		if got := k.alarms.keys(); !slices.Contains(got, "spam:replica:home-emptied") {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if _, err := k.Merge(t.Context(), false, false); !errors.Is(err, replica.ErrAsk) {
		t.Errorf("without a yes: %v", err)
	}
	if ans, err := k.Merge(t.Context(), false, true); err != nil {
		t.Errorf("with a yes: %v", err)
	} else {
		t.Logf("%+v", ans.Report)
	}
	k.waitFollowing(t, a.Addr)
	for _, c := range []*redis.Client{a.Client, b.Client} {
		if n := counter(t, c, "RS_7", "S"); n != 35 {
			t.Errorf("RS_7 is %d, want 35", n)
		}
		if n := counter(t, c, "RS_8", "S"); n != 1 {
			t.Errorf("RS_8 is %d, want 1", n)
		}
	}
}

// TestReplicaFlushStaysAtHome: FLUSHALL at home does not reach the copy.
func TestReplicaFlushStaysAtHome(t *testing.T) {
	t.Parallel()
	a, b := redisPair(t)
	a.Do("SET", "k", "v")
	k := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), nil)
	k.waitFollowing(t, a.Addr)
	a.Do("FLUSHALL")
	a.Do("SET", "other", "x")
	k.wait(t, replica.Detached, b.Addr)
	if v := b.Client.Get(t.Context(), "k").Val(); v != "v" {
		t.Errorf("the copy has %q", v)
	}
	if got := strings.Join(k.alarms.keys(), " "); !strings.Contains(got, "home-emptied") {
		t.Errorf("alarms %q", got)
	}
}

// TestReplicaBadInputs: each is named, and nothing is changed by it.
func TestReplicaBadInputs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, a, b *servers.KeyValue) func(*replica.Config, *replica.Deps)
		alarm   string
	}{
		"wrong password": {func(t *testing.T, a, _ *servers.KeyValue) func(*replica.Config, *replica.Deps) {
			t.Helper()
			a.Do("CONFIG", "SET", "requirepass", "right")
			file := filepath.Join(lab.Dir(t), "secret")
			if err := os.WriteFile(file, []byte("wrong\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return func(c *replica.Config, _ *replica.Deps) { c.AdminPasswordFile = file }
		}, "spam:replica:peer"},
		"no permission": {func(t *testing.T, a, b *servers.KeyValue) func(*replica.Config, *replica.Deps) {
			t.Helper()
			for _, r := range []*servers.KeyValue{a, b} {
				r.Do("ACL", "SETUSER", "poor", "on", ">x", "~*", "+ping", "+get")
			}
			file := filepath.Join(lab.Dir(t), "secret")
			if err := os.WriteFile(file, []byte("x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return func(c *replica.Config, _ *replica.Deps) { c.AdminUsername, c.AdminPasswordFile = "poor", file }
		}, "spam:replica:local"},
		"a third master": {func(t *testing.T, _, b *servers.KeyValue) func(*replica.Config, *replica.Deps) {
			t.Helper()
			third := servers.Redis(t)
			third.Do("SET", "third", "1")
			host, port := splitAddr(t, third.Addr)
			b.Do("REPLICAOF", host, port)
			return nil
		}, "spam:replica:third-master"},
		"never met": {func(_ *testing.T, a, b *servers.KeyValue) func(*replica.Config, *replica.Deps) {
			a.Do("SET", "x", "1")
			b.Do("SET", "y", "1")
			return nil
		}, "spam:replica:strangers"},
		"two replicas": {func(t *testing.T, a, b *servers.KeyValue) func(*replica.Config, *replica.Deps) {
			t.Helper()
			b.Do("SET", "y", "1")
			third := servers.Redis(t)
			host, port := splitAddr(t, third.Addr)
			a.Do("REPLICAOF", host, port)
			return nil
		}, "spam:replica:two-homes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := redisPair(t)
			change := tc.prepare(t, a, b)
			k := keepSite(t, "b", false, b.Addr, a.Addr, lab.Dir(t), change)
			keys := b.Client.DBSize(t.Context()).Val()
			lab.Wait(t, 10*time.Second, "it is named", func() error {
				if got := k.alarms.keys(); !slices.Contains(got, tc.alarm) {
					return fmt.Errorf("%q", got)
				}
				return nil
			})
			t.Logf("named: %s", k.alarms.raised[tc.alarm])
			if now := b.Client.DBSize(t.Context()).Val(); now < keys {
				t.Errorf("%d of %d keys are left", now, keys)
			}
		})
	}
}
