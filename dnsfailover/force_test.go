package dnsfailover_test

import (
	"fmt"
	"testing"
	"time"

	"understudy/dnsfailover"
)

// bench runs one machine, "b", against a register that answers at once.
type bench struct {
	t        *testing.T
	m        *dnsfailover.Machine
	now      dnsfailover.Instant
	register dnsfailover.Register
	deaf     bool                 // no answer to anything
	refuses  dnsfailover.SwapKind // is refused every time
	mute     dnsfailover.SwapKind
	saves    bool // a forced epoch reaches the disk at once
	disk     uint64
	requests int
	nonces   int
	stops    int
	refused  string // the last reply to an order
}

func newBench(t *testing.T, change func(*dnsfailover.MachineConfig)) *bench {
	t.Helper()
	b := &bench{t: t, now: dnsfailover.Instant(time.Hour), saves: true}
	b.register = dnsfailover.Register{
		Epoch: 7, Holder: "a", State: dnsfailover.Held, By: "a", Nonce: b.nonce(), Config: "0badcafe",
	}
	cfg := dnsfailover.MachineConfig{
		Site: "b", Peer: "a", Primary: "a", Mode: dnsfailover.Automatic, Timing: dnsfailover.DefaultTiming(),
		Hash: "0badcafe", Nonce: b.nonce, Wall: func() int64 { return 1 },
	}
	if change != nil {
		change(&cfg)
	}
	b.disk = cfg.Forced
	b.m = dnsfailover.NewMachine(cfg, b.now)
	return b
}

func (b *bench) nonce() string {
	b.nonces++
	return fmt.Sprintf("%016x", b.nonces)
}

// tell gives the machine an event and carries out what it wants. Requests take
// a millisecond.
func (b *bench) tell(ev dnsfailover.Event) {
	for _, a := range b.m.Step(b.now, ev) {
		switch a := a.(type) {
		case dnsfailover.Read:
			b.requests++
			done := dnsfailover.ReadDone{Sent: b.now, Outcome: dnsfailover.OK, Register: b.register}
			if b.deaf {
				done = dnsfailover.ReadDone{Sent: b.now, Reason: "no answer"}
			}
			b.now = b.now.Add(time.Millisecond)
			b.tell(done)
		case dnsfailover.Swap:
			b.requests++
			b.swap(a)
		case dnsfailover.Reply:
			b.refused = a.Refused
		case dnsfailover.StopWork:
			b.stops++
			b.tell(dnsfailover.Stopped(a))
		case dnsfailover.SaveForced:
			if b.saves {
				b.disk = a.Epoch
				b.tell(dnsfailover.ForcedSaved(a))
			}
		}
	}
}

func (b *bench) swap(s dnsfailover.Swap) {
	done := dnsfailover.SwapDone{Sent: b.now, Swap: s, Outcome: dnsfailover.Conflict}
	switch {
	case b.deaf, s.Kind == b.refuses:
		done.Outcome, done.Reason = dnsfailover.Unknown, "refused"
	case s.Old == b.register:
		b.register, done.Outcome = s.New, dnsfailover.OK
		if s.Kind == b.mute {
			done.Outcome, done.Reason = dnsfailover.Unknown, "no answer"
		}
	}
	b.now = b.now.Add(time.Millisecond)
	b.tell(done)
}

// pass lets d pass, tick by tick.
func (b *bench) pass(d time.Duration) {
	for end := b.now.Add(d); b.now < end; {
		b.now = min(end, max(b.m.Next(), b.now.Add(time.Millisecond)))
		b.tell(dnsfailover.Tick{})
	}
}

func (b *bench) role() dnsfailover.Role {
	v, _ := b.m.View()
	return v.Role
}

func (b *bench) force() {
	b.t.Helper()
	b.tell(dnsfailover.Operator{Command: dnsfailover.ForceFailover, To: "b"})
}

// object is the other site's answer to a claim.
func (b *bench) object() {
	b.register.State, b.register.By, b.register.Nonce = dnsfailover.Held, "a", b.nonce()
}

// TestForceEndsWithTheTake: an order that was carried out through the register is
// over, also where the answer to the take was lost. Later silence forces nothing.
func TestForceEndsWithTheTake(t *testing.T) {
	b := newBench(t, nil)
	b.tell(dnsfailover.Tick{})
	b.mute = dnsfailover.Take
	b.force()
	b.pass(30 * time.Second)
	if b.register.Holder != "b" || b.role() != dnsfailover.Active {
		t.Fatalf("%s, %s: the order was not carried out", b.register, b.role())
	}
	b.deaf = true
	b.pass(time.Hour)
	if b.role() != dnsfailover.Fenced || b.disk != 0 {
		t.Errorf("without register and peer: %s, forced epoch %d; want fenced", b.role(), b.disk)
	}
}

// TestForceNeedsSilence: one lost answer is no silence of the register, which may
// hold the other site's objection.
func TestForceNeedsSilence(t *testing.T) {
	b := newBench(t, nil)
	b.tell(dnsfailover.Tick{})
	b.force()
	b.pass(dnsfailover.DefaultTiming().Wait - time.Second)
	if b.register.State != dnsfailover.Claimed {
		t.Fatalf("%s: no claim", b.register)
	}
	b.object()
	b.deaf = true
	b.pass(2 * time.Second)
	if b.disk != 0 || b.role() == dnsfailover.Active {
		t.Errorf("%s, forced epoch %d, after one lost answer", b.role(), b.disk)
	}
	b.deaf = false
	b.pass(time.Minute)
	if b.register.Holder != "a" || b.role() != dnsfailover.Standby {
		t.Errorf("%s, %s: an objection was overruled", b.register, b.role())
	}
}

// TestForceGivesWayToTheRegister: where the register answers before the forced
// epoch is on disk, it decides, and nothing stays on the disk for the next start.
func TestForceGivesWayToTheRegister(t *testing.T) {
	b := newBench(t, nil)
	b.tell(dnsfailover.Tick{})
	b.deaf, b.saves = true, false
	b.pass(20 * time.Second)
	b.force()
	b.pass(40 * time.Second)
	b.deaf, b.saves = false, true
	b.pass(5 * time.Second) // reads the register, and claims
	b.object()
	b.pass(5 * time.Second)
	b.disk = 8 // at last
	b.tell(dnsfailover.ForcedSaved{Epoch: 8})
	if b.role() != dnsfailover.Standby || b.disk != 0 {
		t.Errorf("%s, forced epoch %d on disk; want standby and none", b.role(), b.disk)
	}
}

// TestForcedIsOver: a forced epoch on disk that the register has gone beyond does
// not make this site active, neither at its start nor when the other site says so.
func TestForcedIsOver(t *testing.T) {
	forced := func(c *dnsfailover.MachineConfig) { c.Forced = 8 }
	t.Run("at the start", func(t *testing.T) {
		b := newBench(t, forced)
		b.register.Epoch = 9
		if r := b.role(); r == dnsfailover.Active {
			t.Error("active before the register was asked")
		}
		b.tell(dnsfailover.Tick{})
		if b.role() != dnsfailover.Standby || b.disk != 0 {
			t.Errorf("%s, forced epoch %d", b.role(), b.disk)
		}
	})
	t.Run("at the start, no register", func(t *testing.T) {
		b := newBench(t, forced)
		b.deaf = true
		b.pass(time.Minute)
		if b.role() != dnsfailover.Active {
			t.Errorf("%s; the order is still in force", b.role())
		}
	})
	t.Run("the other site knows", func(t *testing.T) {
		b := newBench(t, forced)
		b.deaf = true
		b.pass(time.Minute)
		b.tell(dnsfailover.Link{Up: true})
		b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "active", Epoch: 9, Holder: "a", Config: "0badcafe"}})
		if b.role() == dnsfailover.Active || b.disk != 0 {
			t.Errorf("%s, forced epoch %d, and a is active in epoch 9", b.role(), b.disk)
		}
	})
	t.Run("the other site has not seen the return", func(t *testing.T) {
		b := newBench(t, forced)
		b.deaf = true
		b.pass(time.Minute)
		b.tell(dnsfailover.Link{Up: true})
		b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "standby", Epoch: 8, Holder: "b", Config: "0badcafe"}})
		if b.role() != dnsfailover.Active {
			t.Errorf("%s, and a says that the register names b", b.role())
		}
	})
}

// TestRefusedTake: a register that refuses the take again and again is not asked
// without a pause, and the claim does not stand for ever.
func TestRefusedTake(t *testing.T) {
	b := newBench(t, nil)
	b.tell(dnsfailover.Tick{})
	b.refuses = dnsfailover.Take
	for range 3 {
		b.tell(dnsfailover.Probed{Failed: true, Reason: "no answer"})
	}
	b.pass(dnsfailover.DefaultTiming().Wait - time.Second)
	if b.register.State != dnsfailover.Claimed {
		t.Fatalf("%s: no claim", b.register)
	}
	before := b.requests
	b.pass(20 * time.Second)
	if n := b.requests - before; n > 60 {
		t.Errorf("%d requests in 20 s", n)
	}
	if b.register.State != dnsfailover.Held {
		t.Errorf("%s: the claim stands", b.register)
	}
}

// TestRefusedClaim: nor is one that refuses the claim itself.
func TestRefusedClaim(t *testing.T) {
	b := newBench(t, nil)
	b.tell(dnsfailover.Tick{})
	b.refuses = dnsfailover.Claim
	for range 3 {
		b.tell(dnsfailover.Probed{Failed: true, Reason: "no answer"})
	}
	b.pass(20 * time.Second)
	if b.requests < 5 || b.requests > 60 {
		t.Errorf("%d requests in 20 s", b.requests)
	}
}

// TestRefusedHandOver: nor is one that refuses what a sick site wants.
func TestRefusedHandOver(t *testing.T) {
	b := newBench(t, nil)
	b.register.Holder, b.register.By = "b", "b"
	b.refuses = dnsfailover.HandOver
	b.tell(dnsfailover.Tick{})
	for range 20 {
		b.tell(dnsfailover.Link{Up: true})
		b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "standby", Epoch: 7, Holder: "b", Config: "0badcafe", Ready: true}})
		b.tell(dnsfailover.Probed{Self: true, Failed: true, Reason: "sick"})
		b.pass(time.Second)
	}
	if b.requests > 40 || b.stops > 1 {
		t.Errorf("%d requests and %d times stopped in 20 s", b.requests, b.stops)
	}
	if b.stops == 0 {
		t.Error("no hand-over was tried")
	}
}

// TestQuietEnds: two sites that tell each other how long there will be no move do
// not prolong it by doing so.
func TestQuietEnds(t *testing.T) {
	const quiet = 10 * time.Minute
	short := func(c *dnsfailover.MachineConfig) { c.QuietFor, c.Timing.BetweenMoves = quiet, quiet }
	a, b := newBench(t, short), newBench(t, short)
	a.tell(dnsfailover.Link{Up: true})
	b.tell(dnsfailover.Link{Up: true})
	for range int(2 * quiet / time.Second) { // each tells the other half a second late
		saysA, saysB := a.m.Says(), b.m.Says()
		a.pass(500 * time.Millisecond)
		b.pass(500 * time.Millisecond)
		b.tell(dnsfailover.PeerSays{PeerState: saysA})
		a.pass(500 * time.Millisecond)
		b.pass(500 * time.Millisecond)
		a.tell(dnsfailover.PeerSays{PeerState: saysB})
	}
	if left := a.m.Snapshot().QuietFor; left > 0 {
		t.Errorf("after %s no move for %s more", 2*quiet, left)
	}
}

// TestAcknowledgeStays: what the other site had sent before it heard of it does not
// undo an operator's acknowledgement.
func TestAcknowledgeStays(t *testing.T) {
	b := newBench(t, func(c *dnsfailover.MachineConfig) { c.QuietFor = time.Hour })
	b.tell(dnsfailover.Link{Up: true})
	b.tell(dnsfailover.Operator{Command: dnsfailover.Acknowledge})
	b.pass(100 * time.Millisecond)
	b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "active", Epoch: 7, Holder: "a", QuietFor: time.Hour}})
	if q := b.m.Snapshot().QuietFor; q > 0 {
		t.Errorf("no move for %s after an acknowledgement", q)
	}
	b.pass(time.Minute)
	b.tell(dnsfailover.PeerSays{PeerState: dnsfailover.PeerState{Role: "active", Epoch: 7, Holder: "a", QuietFor: time.Hour}})
	if b.m.Snapshot().QuietFor == 0 {
		t.Error("a later move is not taken in")
	}
}

// TestForceNotSaved: an order that cannot be put on disk is over, and says so; the
// operator can give it again.
func TestForceNotSaved(t *testing.T) {
	b := newBench(t, nil)
	b.tell(dnsfailover.Tick{})
	b.deaf, b.saves = true, false
	b.force()
	b.pass(40 * time.Second)
	b.tell(dnsfailover.ForcedNotSaved{Epoch: 8})
	if b.role() == dnsfailover.Active {
		t.Fatal("active in an epoch that is not on disk")
	}
	b.saves = true
	refused := "no reply"
	for _, a := range b.m.Step(b.now, dnsfailover.Operator{Command: dnsfailover.ForceFailover, To: "b"}) {
		if r, ok := a.(dnsfailover.Reply); ok {
			refused = r.Refused
		}
	}
	if refused != "" {
		t.Fatalf("the order cannot be given again: %s", refused)
	}
}
