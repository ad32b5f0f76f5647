package dnsfailover_test

import (
	"testing"
	"testing/synctest"
	"time"

	"understudy/dnsfailover"
)

// TestConfigure: a hash that a reload has changed is what the status shows, what
// the register carries, and what the other site must have too.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.sites[0].ctrl.Configure(t.Context(), dnsfailover.Automatic, "11111111")
		pass(10 * time.Second)
		if h := p.sites[0].ctrl.Status().Hash; h != "11111111" {
			t.Errorf("status shows %s", h)
		}
		if r := p.zone.Register(); r.Config != "11111111" || r.Holder != "a" {
			t.Errorf("the register is %s", r)
		}
		p.zone.Edit(dnsfailover.RRSet{RRKey: webA, TTL: time.Minute, Values: second})
		if _, err := p.sites[0].ctrl.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := p.zone.Register(); r.Config != "11111111" {
			t.Errorf("after plan --yes the register is %s", r)
		}
		if p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}).Err() == nil {
			t.Error("a switchover between different configurations")
		}
		p.sites[1].ctrl.Configure(t.Context(), dnsfailover.Automatic, "11111111")
		pass(10 * time.Second)
		if err := p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}).Err(); err != nil {
			t.Errorf("a switchover between equal ones: %v", err)
		}
	})
}
