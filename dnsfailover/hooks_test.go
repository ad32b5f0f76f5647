package dnsfailover_test

import (
	"strings"
	"testing"
	"time"

	"understudy/dnsfailover"
)

// TestFenceHooksInTime: fence hooks that may outlast the wait of a claim are refused:
// the other site would be active while they still stop the writers of this one.
func TestFenceHooksInTime(t *testing.T) {
	t.Parallel()
	cfg := func(wait, timeout time.Duration, n int) dnsfailover.Config {
		c := dnsfailover.Config{Mode: dnsfailover.Automatic, Timing: dnsfailover.DefaultTiming()}
		c.Timing.Wait, c.Hooks.Timeout = wait, timeout
		c.Hooks.OnFence = []string{"one", "two", "three"}[:n]
		return c
	}
	const wait = 23 * time.Second
	for name, row := range map[string]struct {
		cfg   dnsfailover.Config
		fault bool
	}{
		"none":            {cfg(wait, 10*time.Second, 0), false},
		"one, by default": {cfg(wait, 10*time.Second, 1), true},
		"one, in time":    {cfg(wait, 4*time.Second, 1), false},
		"two, together":   {cfg(wait, 4*time.Second, 2), true},
		"two, in time":    {cfg(wait, 2*time.Second, 2), false},
		"a longer wait":   {cfg(30*time.Second, 10*time.Second, 1), false},
		"not long enough": {cfg(29*time.Second, 10*time.Second, 1), true},
	} {
		err := row.cfg.Validate()
		if got := err != nil && strings.Contains(err.Error(), "hooks.on_fence"); got != row.fault {
			t.Errorf("%s: %v", name, err)
		}
		if !row.fault && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
