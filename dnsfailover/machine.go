package dnsfailover

import (
	"fmt"
	"time"
)

// MachineConfig is what a Machine knows from the beginning.
type MachineConfig struct {
	// Site is this one, Peer the other.
	Site, Peer Site
	// Primary is who is active in mode observe while there is no register.
	Primary Site
	Mode    Mode
	Timing  Timing
	// Hash is the first 8 hexadecimal digits of this site's configuration hash.
	Hash string
	// Nonce returns a value never returned before; Wall is the wall clock in
	// seconds, for people.
	Nonce func() string
	Wall  func() int64
	// Maintenance as it was before the restart.
	Maintenance bool
	// Forced is an epoch that an operator forced and no register has seen yet.
	Forced uint64
	// QuietFor is what is left of the time without automatic moves.
	QuietFor time.Duration
}

// Machine decides who is active, by the protocol of read permits and claims. It
// does no I/O, has no clock and no goroutine: it is told events with the moment
// at which they are told, and returns what is to be done. The same events give
// the same actions. It is not safe for concurrent use.
//
// The invariants, for clocks whose rates differ by less than Timing says:
//
//   - a permit is counted from the sending of the read (or change) that gave it,
//     and only a register that names this site and holds no claim gives one;
//   - a claim is open from its sending until the register says otherwise, and
//     while it is open this site promises nothing;
//   - the wait counts from the receipt of an answer that shows the claim in the
//     register; any sign of the active site (its objection) makes the take fail;
//   - a daemon that has not read the register since its start holds no permit and
//     promises nothing, and takes its first permit by a change of its own, so that
//     no change sent before its start can still take place;
//   - a hand-over that was sent is final until the register says otherwise.
type Machine struct {
	cfg  MachineConfig
	now  Instant
	born Instant
	out  []Action

	reg    Register // as last read or written
	regAt  Instant  // a moment at which reg was (at the earliest) asked for
	heard  bool     // the register was read since the start
	deaf   string   // why the last request said nothing; "" if it said something
	absent bool     // the authority answers, and there is no register
	stale  bool     // a change was refused or not answered: read before the next
	first  Register // a value that gives no permit before it was written anew

	permit Instant // its end; 0: none

	busy     bool // a Read or Swap is under way
	asking   bool // an AskPromise is under way
	nextRead Instant
	nextAsk  Instant

	claim    *openClaim
	drain    *drain
	forcing  *forcing
	forced   uint64  // active by force in this epoch
	promised Instant // no claim before it
	backoff  Instant // no claim before it
	quiet    Instant // no automatic move before it
	acked    Instant // until then the peer's word of quiet may be from before an acknowledgement
	objected int

	link    bool
	linkAt  Instant // since when the link is as it is
	peer    PeerState
	peerAt  Instant // when the peer last said something; 0: never in this life
	sickAt  Instant // since when the peer says that it is sick; 0: it does not
	self    health
	other   health
	foreign string

	wantPause   *bool
	paused      bool // here, for as long as the register cannot be told
	maintenance bool
	would       string // the last "would have moved because", to say it once

	alarms map[string]string
	faults faults
}

// openClaim is a claim that was sent and not yet answered for good.
type openClaim struct {
	old, new Register
	seen     Instant // receipt of the answer that shows it; 0: none yet
	sent     Instant
	take     Register // what is written after the wait; zero before the first try
	tries    int
	forced   bool
	give     bool // it is to be withdrawn
}

// drain is the role on its way to the peer.
type drain struct {
	to       Site
	why      string
	auto     bool
	began    Instant
	stopped  bool
	old, new Register // what was sent; zero: nothing yet
	tries    int
}

// forcing is an operator's order to take the role.
type forcing struct {
	since Instant
	asked uint64 // the epoch being saved; 0: not yet
}

// faults are the mistakes that the protocol is proof against; tests make them to
// see that they are found.
type faults struct {
	noWait               bool // take at once
	noObjection          bool // let claims be
	permitDuringClaim    bool // a claimed register gives permits
	permitFromReply      bool // count permits from the receipt of the answer
	waitFromSending      bool // count the wait from the sending of the claim
	promiseDuringClaim   bool
	promiseBeforeRead    bool
	resumeWait           bool // a claim found after a restart has waited already
	permitWithoutRenewal bool // the first permit after a start by a read
	permitDuringHandOver bool // a hand-over without an answer did not take place
}

// NewMachine returns a machine that knows nothing of the register yet.
func NewMachine(cfg MachineConfig, now Instant) *Machine {
	m := &Machine{
		cfg: cfg, now: now, born: now, linkAt: now, nextRead: now, forced: cfg.Forced,
		maintenance: cfg.Maintenance, alarms: map[string]string{},
	}
	m.self.since, m.other.since = now, now
	if cfg.QuietFor > 0 {
		m.quiet = now.Add(cfg.QuietFor)
	}
	return m
}

// Step tells the machine an event and returns what is to be done, in order.
func (m *Machine) Step(now Instant, ev Event) []Action {
	m.now = now
	m.out = nil
	switch e := ev.(type) {
	case Tick, Nudge:
		if _, ok := e.(Nudge); ok {
			m.nextRead = now
		}
	case ReadDone:
		m.busy = false
		m.readDone(e)
	case SwapDone:
		m.busy = false
		m.swapDone(e)
	case PromiseAsked:
		m.answerPromise(e)
	case PromiseDone:
		m.promiseDone(e)
	case Link:
		m.linkChanged(e.Up)
	case PeerSays:
		m.peerSays(e.PeerState)
	case Probed:
		h := &m.other
		if e.Self {
			h = &m.self
		}
		h.count(now, e.Failed, e.Reason, m.cfg.Timing)
	case Stopped:
		if m.drain != nil {
			m.drain.stopped = true
		}
	case Records:
		m.foreign = e.Foreign
	case Operator:
		m.out = append(m.out, Reply{Refused: m.command(e)})
	case ForcedSaved:
		m.forcedSaved(e.Epoch)
	case ForcedNotSaved:
		if m.forcing != nil && e.Epoch > 0 && e.Epoch == m.forcing.asked {
			m.forcing = nil
			m.note("failover refused", "epoch %d could not be put on disk; see the log", e.Epoch)
		}
	case Configured:
		m.cfg.Mode, m.cfg.Hash = e.Mode, e.Hash
	}
	m.act()
	m.watch()
	return m.out
}

// Next is when the machine wants a Tick at the latest.
func (m *Machine) Next() Instant {
	next := m.now.Add(m.cfg.Timing.Poll)
	sooner := func(i Instant) {
		if i > m.now && i < next {
			next = i
		}
	}
	if !m.busy {
		sooner(m.nextRead)
	}
	sooner(m.nextAsk)
	sooner(m.workEnd())
	sooner(m.backoff)
	if m.claim != nil && m.claim.seen != 0 {
		sooner(m.claim.seen.Add(m.cfg.Timing.Wait))
	}
	return next
}

// PermitEnd is when the last permit ends; 0 if there is none. Work stops
// StopAllowance before it.
func (m *Machine) PermitEnd() Instant { return m.permit }

func (m *Machine) workEnd() Instant {
	if m.permit == 0 {
		return 0
	}
	return m.permit.Add(-m.cfg.Timing.StopAllowance)
}

// Holder is who holds the role as far as this site knows, Epoch since when.
func (m *Machine) Holder() Site { return m.reg.Holder }

// Register is the register as last read or written, and whether it was read.
func (m *Machine) Register() (Register, bool) { return m.reg, m.heard }

// View is what the site may do now, and when that ends (0: never).
func (m *Machine) View() (View, Instant) {
	me := m.cfg.Site
	switch {
	case m.cfg.Mode == Observe:
		active := m.cfg.Primary
		if m.heard && !m.reg.IsZero() {
			active = m.reg.Holder
		}
		v := Fixed(me, active)
		v.Epoch = m.reg.Epoch
		return v, 0
	case m.forced > 0 && !m.heard && m.deaf == "":
		return View{}, 0 // just started: the register may have gone beyond it
	case m.forced > 0:
		return View{Active: me, Epoch: m.forced, Role: Active}, 0
	case !m.heard || m.reg.IsZero():
		return View{}, 0
	case m.peerForced():
		return View{Active: m.cfg.Peer, Epoch: m.peer.Forced, Role: Standby}, 0
	case m.drain != nil:
		return View{Active: m.drain.to, Epoch: m.reg.Epoch, Role: Standby}, 0
	case m.reg.Holder != me:
		return View{Active: m.reg.Holder, Epoch: m.reg.Epoch, Role: Standby}, 0
	case m.permit != 0 && m.now < m.workEnd():
		return View{Active: me, Epoch: m.reg.Epoch, Role: Active}, m.workEnd()
	case m.permit == 0 && m.reg == m.first && m.now < m.born.Add(m.cfg.Timing.Permit):
		return View{}, 0 // just started, and about to renew its role: not fenced yet
	}
	return View{Active: me, Epoch: m.reg.Epoch, Role: Fenced}, 0
}

// peerForced: the peer is active by force in an epoch the register here is older than.
func (m *Machine) peerForced() bool {
	return m.peer.Forced > m.reg.Epoch && m.forced < m.peer.Forced
}

// readDone takes in what a read said.
func (m *Machine) readDone(e ReadDone) {
	m.nextRead = max(m.now, e.Sent.Add(m.cfg.Timing.Poll))
	switch e.Outcome {
	case OK:
		m.deaf, m.absent, m.stale = "", false, false
		m.saw(e.Sent, e.Register)
	case Absent:
		m.deaf, m.absent = "there is no register", true
	case Unknown, Conflict, Foreign:
		m.deaf = e.Reason
		m.nextRead = m.now.Add(min(m.cfg.Timing.Poll, time.Second)) // again soon: a permit may run out
	}
}

// saw takes in a register that was asked for at sent or later.
func (m *Machine) saw(sent Instant, reg Register) {
	if !m.heard {
		m.heard, m.first = true, reg
	}
	before := m.reg
	m.reg, m.regAt = reg, sent
	if !before.IsZero() && before.Epoch != reg.Epoch {
		m.moved(before)
	}
	m.sawClaim()
	if m.drain != nil && reg.Holder != m.cfg.Site {
		m.note("handed over", "%s is active in epoch %d (%s)", reg.Holder, reg.Epoch, m.drain.why)
		m.drain = nil
		m.out = append(m.out, NudgePeer{})
	}
	if m.forced > 0 && reg.Epoch >= m.forced {
		m.endForced("the register has epoch %d", reg.Epoch)
	}
	if reg.Holder == m.cfg.Site && !m.peerForced() {
		m.forcing = nil // carried out, whatever became of the answer
	}
	m.grant(sent, false)
}

// sawClaim compares the open claim with the register.
func (m *Machine) sawClaim() {
	c, reg, me := m.claim, m.reg, m.cfg.Site
	mine := reg.State == Claimed && reg.By == me
	switch {
	case c == nil && mine:
		// Sent before a restart, or late: the wait begins now.
		m.claim = &openClaim{old: reg, new: reg, seen: m.now, sent: m.now}
		if m.faults.resumeWait {
			m.claim.seen = m.now.Add(-m.cfg.Timing.Wait)
		}
		m.note("claim found", "this site's own claim is in the register; the wait begins anew")
	case c == nil:
	case mine && reg.Nonce == c.new.Nonce:
		if c.seen == 0 {
			c.seen = m.now
			if m.faults.waitFromSending {
				c.seen = c.sent
			}
		}
	case reg.Holder == me:
		m.claim = nil
	case reg == c.old:
		// It has not arrived; should it still, the register will show it.
		m.claim = nil
	default:
		m.claim = nil
		if reg.Epoch == c.new.Epoch && !c.give {
			m.objected++
			wait := time.Duration(min(m.objected, 10)) * m.cfg.Timing.Backoff
			m.backoff = m.now.Add(wait)
			m.note("claim refused", "%s is alive and objects; no claim for %s", reg.Holder, wait)
			if m.forcing != nil {
				m.forcing = nil
				m.note("failover refused", "%s is alive; use switchover", reg.Holder)
			}
		}
	}
}

// grant extends the permit, if what the register says is one. written: by a
// change of our own that took place.
func (m *Machine) grant(sent Instant, written bool) {
	if written {
		m.first = Register{}
	}
	switch {
	case m.reg.Holder != m.cfg.Site:
		m.permit = 0
		return
	case m.reg.State != Held && !m.faults.permitDuringClaim || m.peerForced():
		return
	case m.drain != nil && !m.faults.permitDuringHandOver:
		return
	case m.reg == m.first && !m.faults.permitWithoutRenewal:
		return // to be renewed first
	}
	if m.faults.permitFromReply {
		sent = m.now
	}
	if end := sent.Add(m.cfg.Timing.Permit); end > m.permit {
		m.permit = end
	}
}

// moved notes that the epoch has changed.
func (m *Machine) moved(before Register) {
	m.objected, m.backoff = 0, 0
	if m.reg.By == m.reg.Holder && m.reg.State == Held {
		// Taken, not handed over: nobody was asked. A hand-over of a sick site is
		// noted by that site, which tells us.
		m.hush()
	}
	m.note("moved", "%s -> %s, epoch %d -> %d", before.Holder, m.reg.Holder, before.Epoch, m.reg.Epoch)
}

// hush begins the time without automatic moves.
func (m *Machine) hush() { m.quiet = m.now.Add(m.cfg.Timing.BetweenMoves) }

// swapDone takes in what came of a change.
func (m *Machine) swapDone(e SwapDone) {
	// Whatever it was: look. A quick refusal is not to be repeated without a pause.
	m.nextRead = max(m.now, e.Sent.Add(min(m.cfg.Timing.Poll, time.Second)))
	m.stale = e.Outcome != OK
	if e.Outcome != Unknown {
		m.deaf, m.absent = "", false
	} else {
		m.deaf = e.Reason
	}
	switch e.Outcome {
	case OK:
		m.wrote(e)
	case Foreign:
		m.foreign = e.Reason
		switch {
		case e.Swap.Kind == HandOver && m.drain != nil:
			m.giveUp("a record was changed by somebody else: " + e.Reason)
		case e.Swap.Kind == Take && m.claim != nil:
			m.claim.give = true
		}
	case Unknown, Conflict, Absent:
	}
}

// wrote takes in a change of our own that took place.
func (m *Machine) wrote(e SwapDone) {
	m.nextRead = m.now.Add(m.cfg.Timing.Poll)
	before := m.reg
	m.heard, m.reg, m.regAt = true, e.Swap.New, e.Sent
	if before.Epoch != m.reg.Epoch && !before.IsZero() {
		m.moved(before)
	}
	switch e.Swap.Kind {
	case Claim:
		m.sawClaim()
		m.note("claimed", "epoch %d, held by %s; the role is taken in %s unless it objects", m.reg.Epoch, m.reg.Holder, m.cfg.Timing.Wait)
	case Object:
		m.note("objected", "this site is alive and keeps the role")
	case Take:
		m.claim, m.forcing = nil, nil
		if m.forced > 0 {
			m.forced = 0
			m.out = append(m.out, SaveForced{})
		}
	case HandOver:
		if m.drain != nil {
			if m.drain.auto {
				m.hush()
			}
			m.note("handed over", "%s is active in epoch %d (%s)", m.reg.Holder, m.reg.Epoch, m.drain.why)
		}
		m.drain, m.permit = nil, 0
		m.out = append(m.out, NudgePeer{})
	case Withdraw:
		m.claim = nil
		m.note("claim withdrawn", "epoch %d, held by %s", m.reg.Epoch, m.reg.Holder)
	case SetPause:
		m.note("pause", "%s", map[bool]string{true: "no site moves the role by itself", false: "automatic moves are allowed again"}[m.reg.Paused])
		m.out = append(m.out, NudgePeer{})
	case Write:
		m.note("register written", "epoch %d, held by %s", m.reg.Epoch, m.reg.Holder)
		m.out = append(m.out, NudgePeer{})
	case Renew:
	}
	m.grant(e.Sent, true)
}

// endForced: the register decides again.
func (m *Machine) endForced(format string, args ...any) {
	m.note("forced epoch ended", format, args...)
	m.forced = 0
	m.out = append(m.out, SaveForced{})
}

// giveUp ends a hand-over that cannot be done. The next permit comes from a
// change of our own: it makes sure that no hand-over that was sent takes place.
func (m *Machine) giveUp(why string) {
	m.note("hand-over given up", "%s", why)
	if m.drain.tries > 0 {
		m.first = m.reg
	}
	if m.drain.auto {
		m.backoff = m.now.Add(m.cfg.Timing.Backoff)
	}
	m.drain = nil
	m.nextRead = m.now
}

// silent: the register has said nothing for longer than a lost request explains.
func (m *Machine) silent() bool {
	return m.deaf != "" && m.now.Sub(m.regAt) > 2*m.cfg.Timing.Poll+m.cfg.Timing.Request
}

// note adds a line to the history.
func (m *Machine) note(kind, format string, args ...any) {
	m.out = append(m.out, Note{Kind: kind, Text: fmt.Sprintf(format, args...)})
}
