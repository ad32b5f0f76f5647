package replica

import (
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
