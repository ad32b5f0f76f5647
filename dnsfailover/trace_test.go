//go:build trace

package dnsfailover_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"understudy/dnsfailover/sim"
)

// TestTrace tells one history event by event: LAB_SEED=7 go test -tags trace -run TestTrace ./dnsfailover
func TestTrace(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("LAB_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("LAB_SEED names no history: %v", err)
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
