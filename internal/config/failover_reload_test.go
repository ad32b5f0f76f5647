package config

import (
	"slices"
	"testing"

	"understudy/dnsfailover"
)

// TestReloadFailoverMode: SIGHUP changes the mode, and no other key of the section.
func TestReloadFailoverMode(t *testing.T) {
	t.Parallel()
	old, faults := parse(t, minimal)
	if faults != "" {
		t.Fatal(faults)
	}
	old.Failover.Decide.Mode = dnsfailover.Automatic
	changed := old
	changed.Failover.Decide.Mode = dnsfailover.Manual
	changed.Failover.Decide.Steady++
	now, restart := Reload(old, changed)
	if !slices.Equal(now, []string{"failover.mode"}) || !slices.Equal(restart, []string{"failover.steady"}) {
		t.Errorf("at once %v, after a restart %v", now, restart)
	}
}
