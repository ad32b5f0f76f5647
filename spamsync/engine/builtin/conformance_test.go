package builtin

import (
	"testing"
	"time"

	"understudy/spamsync/engine/enginetest"
)

// TestConformance: the builtin engine meets what all engines promise, as far as
// there is no server behind it that could break. Its thresholds are so high that
// only the test word for spam counts: the suite's messages are odd on purpose.
func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.RunLocal(t, func(t *testing.T, _ enginetest.Behaviour, _ time.Duration) enginetest.Subject {
		t.Helper()
		f := newFilter(t, func(c *Config, d *Deps) {
			d.Resolver = &zoneResolver{}
			c.Thresholds.Greylist, c.Thresholds.AddHeader, c.Thresholds.Reject = 50, 60, 70
		})
		return enginetest.Subject{
			Filter: f, Rejects: true,
			Word: "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
		}
	})
}
