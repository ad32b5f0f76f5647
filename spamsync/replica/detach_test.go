package replica

import (
	"strings"
	"testing"

	"understudy/spamsync/replica/stream"
)

// TestDetachRecordsTheForkLater: the look after REPLICAOF NO ONE fails, and the fork is
// recorded at the next one.
func TestDetachRecordsTheForkLater(t *testing.T) {
	t.Parallel()
	local := newFakeRedis(t, "slave")
	blind := false // local.mu
	local.before = func(command string) bool {
		local.mu.Lock()
		defer local.mu.Unlock()
		if strings.HasPrefix(command, "REPLICAOF") {
			local.role, blind = "master", true
		}
		return !blind || command != "INFO REPLICATION"
	}
	k := newTestKeeper(t, local.addr, newFakeRedis(t, "master").addr)
	if err := k.detach(t.Context(), true); err == nil {
		t.Fatal("no error")
	}
	local.mu.Lock()
	blind = false
	local.mu.Unlock()
	k.saw(0, look(t.Context(), k.local))
	k.adopt()
	want := stream.Point{ID: strings.Repeat("b", 40), Offset: 50}
	if r, err := readRecord(k.deps.Dir); err != nil || r.Fork != want || r.Since.IsZero() {
		t.Errorf("recorded %+v, %v; want the fork %v", r, err, want)
	}
}
