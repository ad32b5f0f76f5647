package replica

import (
	"errors"
	"strings"
	"testing"

	"understudy/integration/servers"
)

// TestCarryIsNotResumed: a snapshot has another order every time, so that a second
// attempt must not go on where the first one stopped, nor count everything again.
func TestCarryIsNotResumed(t *testing.T) {
	t.Parallel()
	local, home := servers.Redis(t), servers.Redis(t)
	local.Do("HINCRBY", "RS_1", "S", 4)
	home.Do("HINCRBY", "RS_1", "S", 30)
	k := newTestKeeper(t, local.Addr, home.Addr)
	if err := k.carryAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	local.Do("HINCRBY", "RS_2", "S", 1)
	local.Do("HINCRBY", "RS_3", "S", 1)
	err := k.carryAll(t.Context())
	if err == nil || !strings.Contains(err.Error(), carryKey+"b") {
		t.Errorf("a second attempt: %v", err)
	}
	if n := home.Client.HGet(t.Context(), "RS_1", "S").Val(); n != "34" {
		t.Errorf("RS_1 is %s, want 34", n)
	}
	if n := home.Client.Exists(t.Context(), "RS_2", "RS_3").Val(); n != 0 {
		t.Errorf("%d keys of the second attempt arrived", n)
	}
}

// TestCarryDropsNothingSilently: the full copy that follows would erase what was not
// carried, so that it is refused and named.
func TestCarryDropsNothingSilently(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		words []any
		db    int
		named string
	}{
		"no rule":          {[]any{"SET", "odd", "1"}, 0, `"odd"`},
		"another database": {[]any{"SET", "RS_1", "1"}, 3, "db3"},
		"a stream":         {[]any{"XADD", "rs_stream", "*", "a", "b"}, 0, `"rs_stream"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			local, home := servers.Redis(t), servers.Redis(t)
			local.Do("HINCRBY", "RS_1", "S", 4)
			conn := local.Client.Conn()
			t.Cleanup(func() { _ = conn.Close() })
			if err := errors.Join(conn.Select(t.Context(), c.db).Err(), conn.Do(t.Context(), c.words...).Err()); err != nil {
				t.Fatal(err)
			}
			k := newTestKeeper(t, local.Addr, home.Addr)
			if err := k.carryAll(t.Context()); err == nil || !strings.Contains(err.Error(), c.named) {
				t.Errorf("want an error that names %s: %v", c.named, err)
			}
			if n := home.Client.DBSize(t.Context()).Val(); n != 0 {
				t.Errorf("home has %d keys", n)
			}
			local.Do("SET", giveUpKey, "yes")
			if err := k.carryAll(t.Context()); err != nil {
				t.Errorf("told to give it up: %v", err)
			}
			if n := home.Client.HGet(t.Context(), "RS_1", "S").Val(); n != "4" {
				t.Errorf("RS_1 is %s, want 4", n)
			}
		})
	}
}
