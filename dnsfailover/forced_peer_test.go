package dnsfailover_test

import (
	"strings"
	"testing"
	"time"

	"understudy/dnsfailover"
)

// forcedElsewhere is a bench whose site held the role when the other one forced it,
// said so, and was gone; the register has returned and still names this site.
func forcedElsewhere(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, nil)
	b.register.Holder, b.register.By = "b", "b"
	b.tell(dnsfailover.Tick{})
	b.deaf = true
	b.pass(time.Minute)
	b.tell(dnsfailover.Link{Up: true})
	b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "active", Epoch: 7, Holder: "b", Forced: 8, Config: "0badcafe"}})
	b.deaf = false
	b.pass(time.Minute)
	if b.role() != dnsfailover.Standby {
		t.Fatalf("%s beside a site that is active by force", b.role())
	}
	return b
}

// order gives the order to force the role to this site; it returns why not.
func (b *bench) order() string {
	b.t.Helper()
	b.refused = "no reply"
	b.force()
	return b.refused
}

// TestForceBackFromTheDead: where the other site forced the role and died, an
// operator's order at this one goes through, after the wait, in an epoch above the
// forced one.
func TestForceBackFromTheDead(t *testing.T) {
	b := forcedElsewhere(t)
	if why := b.order(); !strings.Contains(why, "alive and active") {
		t.Fatalf("with the link up: %q", why)
	}
	b.tell(dnsfailover.Link{Up: false})
	if why := b.order(); why != "" {
		t.Fatalf("refused: %s", why)
	}
	b.pass(dnsfailover.DefaultTiming().Wait - time.Second)
	if b.role() == dnsfailover.Active {
		t.Fatal("active before the wait was over")
	}
	b.pass(10 * time.Second)
	if b.role() != dnsfailover.Active || b.register.Holder != "b" || b.register.Epoch <= 8 {
		t.Fatalf("%s, %s", b.role(), b.register)
	}
	b.tell(dnsfailover.Link{Up: true}) // it comes back, and reads the register only later
	b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "active", Epoch: 7, Holder: "b", Forced: 8, Config: "0badcafe"}})
	if b.role() != dnsfailover.Active {
		t.Errorf("%s after an old word of the other site", b.role())
	}
}

// TestForceBackAndItLives: the other site comes back before the wait is over, still
// active by force: nothing is taken from it.
func TestForceBackAndItLives(t *testing.T) {
	b := forcedElsewhere(t)
	b.tell(dnsfailover.Link{Up: false})
	if why := b.order(); why != "" {
		t.Fatalf("refused: %s", why)
	}
	b.pass(5 * time.Second)
	b.tell(dnsfailover.Link{Up: true})
	b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "active", Epoch: 7, Holder: "b", Forced: 8, Config: "0badcafe"}})
	b.pass(time.Minute)
	if b.role() == dnsfailover.Active {
		t.Error("two sites are active")
	}
}
