package dnsfailover

import (
	"sync/atomic"
	"testing"
	"time"
)

// handClock is moved by hand.
type handClock struct{ now atomic.Int64 }

func (c *handClock) Now() Instant { return Instant(c.now.Load()) }

func (c *handClock) move(d time.Duration) { c.now.Add(int64(d)) }

func TestFeed(t *testing.T) {
	f := NewFeed(Fixed("b", "a"))
	v, changed := f.Changed()
	if v.Role != Standby {
		t.Fatalf("holds %+v", v)
	}
	clock := &handClock{}
	clock.move(time.Hour)
	active := View{Active: "b", Epoch: 2, Role: Active}
	f.publish(active, clock.Now().Add(20*time.Second), clock)
	select {
	case <-changed:
	default:
		t.Fatal("a new role is not told")
	}
	_, changed = f.Changed()
	f.publish(active, clock.Now().Add(25*time.Second), clock)
	select {
	case <-changed:
		t.Fatal("a longer permit is told as a change")
	default:
	}
	clock.move(25*time.Second - 1)
	if f.Load().Role != Active {
		t.Error("fenced before the permit ends")
	}
	clock.move(1)
	if got := f.Load(); got.Role != Fenced || got.Active != "b" || got.Epoch != 2 {
		t.Errorf("after its end the permit still says %+v", got)
	}
}

func TestBootClock(t *testing.T) {
	var c BootClock
	a := c.Now()
	for c.Now() <= a {
	}
	if c.Now().Sub(a) > time.Minute {
		t.Error("the clock leaps")
	}
}
