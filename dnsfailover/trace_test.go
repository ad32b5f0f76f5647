package dnsfailover_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"understudy/dnsfailover/sim"
)

// TestTrace tells one history, LAB_SEED, event by event.
func TestTrace(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("LAB_SEED"), 10, 64)
	if err != nil {
		t.Skip("LAB_SEED names no history")
	}
	w := sim.New(chaos(seed))
	var told time.Duration
	w.Trace(func(format string, args ...any) {
		if d := w.TwoActive(); d > told {
			t.Logf("%s TWO ACTIVE for %s", w.Now(), d-told)
			told = d
		}
		t.Logf("%s "+format, append([]any{w.Now()}, args...)...)
	})
	w.Chaos(15*time.Minute, 30)
}
