package dnsfailover_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"understudy/dnsfailover"
)

// TestControllerSilentSite: connections to a site that is gone time out, none is
// refused. Over all phases of the probes the names still move within 40 s as a rule.
func TestControllerSilentSite(t *testing.T) {
	var took []time.Duration
	for phase := range 10 {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, dnsfailover.Automatic)
			pass(time.Duration(phase) * 500 * time.Millisecond)
			p.sites[0].kill()
			p.sites[1].public.silent.Store(true)
			began := time.Now()
			for p.role(1) != dnsfailover.Active {
				if time.Since(began) > 2*time.Minute {
					t.Fatal(p.story())
				}
				pass(100 * time.Millisecond)
			}
			took = append(took, time.Since(began))
		})
	}
	slices.Sort(took)
	if p50, slowest := took[len(took)/2], took[len(took)-1]; p50 > 38500*time.Millisecond || slowest > 42*time.Second {
		t.Errorf("p50 %s, slowest %s: %v", p50, slowest, took)
	} else {
		t.Logf("p50 %s, slowest %s", p50, slowest)
	}
}
