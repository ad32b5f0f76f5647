package config

import (
	"slices"
	"testing"

	"understudy/dnsfailover"
)

// TestReloadFailoverMode: nothing changes the mode of a running daemon, so SIGHUP
// must say that it needs a restart.
func TestReloadFailoverMode(t *testing.T) {
	t.Parallel()
	old, faults := parse(t, minimal)
	if faults != "" {
		t.Fatal(faults)
	}
	old.Failover.Decide.Mode = dnsfailover.Automatic
	changed := old
	changed.Failover.Decide.Mode = dnsfailover.Manual
	now, restart := Reload(old, changed)
	if len(now) > 0 || !slices.Contains(restart, "failover.mode") {
		t.Errorf("at once %v, after a restart %v", now, restart)
	}
}
