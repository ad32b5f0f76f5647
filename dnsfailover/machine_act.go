package dnsfailover

import (
	"fmt"
	"time"
)

// act asks for the one request to the register that matters most, and for a
// promise where the register says nothing.
func (m *Machine) act() {
	m.begin()
	m.ask()
	if m.busy {
		return
	}
	if s, ok := m.change(); ok {
		m.busy = true
		m.out = append(m.out, s)
		return
	}
	if m.now >= m.nextRead {
		m.busy = true
		m.nextRead = m.now.Add(m.cfg.Timing.Poll)
		m.out = append(m.out, Read{})
	}
}

// maxTries is how often a hand-over or a take is sent while the register answers
// and does not do it.
const maxTries = 5

// begin starts what is due: a hand-over of a sick site, a forced epoch, a pause
// that only this site knows.
func (m *Machine) begin() {
	if why := m.whyHandOver(); why != "" {
		m.startDrain(m.cfg.Peer, why, true)
	}
	if d := m.drain; d != nil && d.tries >= maxTries && m.deaf == "" && m.reg.Holder == m.cfg.Site {
		m.giveUp("the register did not take it")
	} else if d != nil && d.tries == 0 && d.stopped && m.silent() {
		m.giveUp("the register says nothing (" + m.deaf + ")")
	}
	f := m.forcing
	if f == nil || f.asked > 0 || !m.silent() || m.now < f.since.Add(m.cfg.Timing.Wait) {
		return
	}
	// No register, and any permit of the other site has ended. One lost answer is
	// no silence: the register may hold an objection.
	f.asked = max(m.reg.Epoch, m.peer.Epoch, m.peer.Forced) + 1
	m.out = append(m.out, SaveForced{Epoch: f.asked})
}

// forcedSaved makes this site active without a register, unless that has answered
// meanwhile: then nothing may stay on disk for the next start.
func (m *Machine) forcedSaved(epoch uint64) {
	if epoch == 0 {
		return
	}
	if m.forcing == nil || epoch != m.forcing.asked || !m.silent() {
		if m.forcing != nil {
			m.forcing.asked = 0
		}
		m.out = append(m.out, SaveForced{})
		return
	}
	m.forcing, m.claim, m.forced = nil, nil, epoch
	m.note("forced", "active in epoch %d by an operator's order, without the register", epoch)
}

// startDrain ends this site's permit and asks for its work to stop.
func (m *Machine) startDrain(to Site, why string, auto bool) {
	m.drain = &drain{to: to, why: why, auto: auto, began: m.now}
	m.permit = 0
	m.note("handing over", "to %s: %s", to, why)
	m.out = append(m.out, StopWork{Epoch: m.reg.Epoch})
}

// change is the change of the register that is due, if one is.
func (m *Machine) change() (Swap, bool) {
	me := m.cfg.Site
	switch {
	case m.reg.IsZero() || !m.heard || m.absent || m.stale:
		return Swap{}, false
	case m.forced > 0:
		if m.reg.Epoch < m.forced && m.deaf == "" {
			return m.swap(Take, m.next(m.forced, me, Held), true), true
		}
		return Swap{}, false
	case m.peerForced():
		return m.overForced()
	case m.reg.Holder == me && m.drain != nil:
		return m.handOver()
	case m.reg.Holder == me && m.reg.State == Claimed:
		// A claim of the peer. A sick site that may hand over by itself lets it be.
		if m.faults.noObjection || m.self.failed && m.cfg.Mode == Automatic && !m.reg.Paused {
			return Swap{}, false
		}
		return m.swap(Object, m.next(m.reg.Epoch, me, Held), false), true
	case m.claim != nil:
		return m.claimed()
	case m.reg.Holder == me && (m.reg == m.first && !m.faults.permitWithoutRenewal || m.reg.Config != m.cfg.Hash) && m.deaf == "":
		return m.swap(Renew, m.next(m.reg.Epoch, me, Held), false), true
	case m.reg.State == Held && m.wantPause != nil && m.deaf == "":
		want := *m.wantPause
		if m.reg.Paused == want {
			m.wantPause = nil
			return Swap{}, false
		}
		n := m.next(m.reg.Epoch, m.reg.Holder, Held)
		n.Paused = want
		return m.swap(SetPause, n, false), true
	}
	return m.newClaim()
}

// overForced writes an epoch above one that the peer forced, where an operator says
// that it is gone: the register never heard of that epoch and still names this site.
func (m *Machine) overForced() (Swap, bool) {
	f := m.forcing
	if f == nil || m.deaf != "" || m.link || m.reg.Holder != m.cfg.Site || m.now < f.since.Add(m.cfg.Timing.Wait) {
		return Swap{}, false
	}
	return m.swap(Take, m.next(m.peer.Forced+1, m.cfg.Site, Held), true), true
}

// next is a new value of the register, written by this site.
func (m *Machine) next(epoch uint64, holder Site, state RegisterState) Register {
	return Register{
		Epoch: epoch, Holder: holder, State: state, By: m.cfg.Site, Nonce: m.cfg.Nonce(),
		Config: m.cfg.Hash, At: m.cfg.Wall(), Paused: m.reg.Paused,
	}
}

func (m *Machine) swap(kind SwapKind, to Register, records bool) Swap {
	return Swap{Kind: kind, Old: m.reg, New: to, Records: records}
}

// handOver gives the role to the peer once the work has stopped. What was sent
// is sent again as it was while the register has not changed: it is the same
// change, however often it arrives.
func (m *Machine) handOver() (Swap, bool) {
	d := m.drain
	limit := d.began.Add(m.cfg.Timing.Permit)
	if !d.stopped && m.now < limit {
		return Swap{}, false
	}
	if d.old != m.reg {
		d.old, d.new = m.reg, m.next(m.reg.Epoch+1, d.to, Held)
	}
	d.tries++
	return m.swap(HandOver, d.new, true), true
}

// claimed goes on with the open claim: wait, take, or withdraw it.
func (m *Machine) claimed() (Swap, bool) {
	c := m.claim
	if c.seen == 0 || m.reg.Nonce != c.new.Nonce || m.deaf != "" {
		return Swap{}, false // read until the register says what became of it
	}
	if c.tries >= maxTries && !c.give {
		c.give = true
		m.backoff = m.now.Add(m.cfg.Timing.Backoff)
		m.note("claim given up", "the register did not take it")
		m.forcing = nil
	}
	if why := m.whyWithdraw(); why != "" || c.give {
		c.give = true
		return m.swap(Withdraw, m.next(m.reg.Epoch, m.reg.Holder, Held), false), true
	}
	if m.now < c.seen.Add(m.cfg.Timing.Wait) && !m.faults.noWait {
		return Swap{}, false
	}
	if c.take.IsZero() {
		c.take = m.next(m.reg.Epoch+1, m.cfg.Site, Held)
	}
	c.tries++
	return m.swap(Take, c.take, true), true
}

// newClaim claims the role where that is called for and nothing speaks against.
func (m *Machine) newClaim() (Swap, bool) {
	if m.reg.Holder == m.cfg.Site {
		return Swap{}, false
	}
	why, forced := m.whyClaim(), m.forcing != nil
	if forced {
		why = "an operator's order"
	}
	if why == "" {
		m.would = ""
		return Swap{}, false
	}
	if not := m.whyNotClaim(forced); not != "" {
		if m.deaf != "" && !m.silent() {
			return Swap{}, false // one lost request is no news
		}
		if text := fmt.Sprintf("because %s; not done because %s", why, not); text != m.would {
			m.would = text
			m.note("would have moved", "%s", text)
		}
		return Swap{}, false
	}
	if m.now.Sub(m.regAt) > m.cfg.Timing.Poll+m.cfg.Timing.Request {
		m.nextRead = m.now // what is known is old
		return Swap{}, false
	}
	if m.would != why {
		m.would = why
		m.note("claiming", "because %s", why)
	}
	n := m.next(m.reg.Epoch, m.reg.Holder, Claimed)
	m.claim = &openClaim{old: m.reg, new: n, sent: m.now, forced: forced}
	return m.swap(Claim, n, false), true
}

// whyClaim says why this site should have the role, "" if it should not.
func (m *Machine) whyClaim() string {
	h := m.reg.Holder
	switch {
	case h == m.cfg.Site || h == "":
		return ""
	case !m.link && m.other.failed:
		return fmt.Sprintf("the link to %s is silent and its public probes fail (%s)", h, m.other.reason)
	case m.link && m.sickAt != 0 && m.now.Sub(m.sickAt) > 2*m.cfg.Timing.Poll:
		return fmt.Sprintf("%s says that it is sick (%s) and does not hand over", h, m.peer.Why)
	}
	return ""
}

// whyNotClaim says what speaks against a claim now, "" if nothing does.
func (m *Machine) whyNotClaim(forced bool) string {
	switch {
	case m.deaf != "":
		return "the register says nothing (" + m.deaf + ")"
	case m.reg.State == Claimed:
		return "a claim is open"
	case m.now < m.promised:
		return "this site has promised not to"
	case forced:
		return ""
	case m.cfg.Mode != Automatic:
		return fmt.Sprintf("the mode is %s", m.cfg.Mode)
	case m.reg.Paused || m.paused:
		return "failover is paused"
	case m.maintenance:
		return "this site is in maintenance"
	case m.self.failed:
		return "this site's own probes fail (" + m.self.reason + ")"
	case m.foreign != "":
		return "a record was changed by somebody else (" + m.foreign + "); see adopt"
	case m.reg.Config != m.cfg.Hash:
		return fmt.Sprintf("the configurations differ (register %s, here %s)", m.reg.Config, m.cfg.Hash)
	case m.now < m.backoff:
		return "the active site has objected"
	case m.now < m.quiet:
		return fmt.Sprintf("the last automatic move was less than %s ago; see failover acknowledge", m.cfg.Timing.BetweenMoves)
	}
	return ""
}

// whyWithdraw says why an open claim has lost its reason.
func (m *Machine) whyWithdraw() string {
	switch {
	case m.claim.forced:
		return ""
	case m.maintenance:
		return "maintenance"
	case m.self.failed:
		return "this site is sick"
	case m.reg.Paused || m.paused:
		return "paused"
	case m.cfg.Mode != Automatic:
		return "mode"
	case m.link && m.sickAt == 0 && m.now.Sub(m.linkAt) > m.cfg.Timing.Poll && m.peer.Role == Active.String():
		return "the peer is back"
	}
	return ""
}

// whyHandOver says why this active site should give the role away by itself.
func (m *Machine) whyHandOver() string {
	if m.drain != nil || m.reg.Holder != m.cfg.Site || !m.self.failed || m.cfg.Mode == Observe && m.would != "" {
		return ""
	}
	why := "its own probes fail (" + m.self.reason + ")"
	if not := m.whyNotHandOver(); not != "" {
		if text := fmt.Sprintf("because %s; not done because %s", why, not); text != m.would {
			m.would = text
			m.note("would have moved", "%s", text)
		}
		return ""
	}
	m.would = ""
	return why
}

func (m *Machine) whyNotHandOver() string {
	switch {
	case m.cfg.Mode != Automatic:
		return fmt.Sprintf("the mode is %s", m.cfg.Mode)
	case m.reg.Paused || m.paused:
		return "failover is paused"
	case m.now < m.quiet:
		return fmt.Sprintf("the last automatic move was less than %s ago; see failover acknowledge", m.cfg.Timing.BetweenMoves)
	case m.now < m.backoff:
		return "a hand-over was given up a moment ago"
	}
	return m.peerUnfit()
}

// peerUnfit says why the peer cannot be given the role.
func (m *Machine) peerUnfit() string {
	switch {
	case m.forced > 0:
		return "the role is held by force, without the register"
	case !m.heard || m.silent():
		return "the register says nothing (" + m.deaf + ")"
	case !m.link:
		return fmt.Sprintf("there is no link to %s", m.cfg.Peer)
	case m.peerAt == 0 || m.peerAt < m.linkAt || m.now.Sub(m.peerAt) > 3*m.cfg.Timing.Poll+m.cfg.Timing.Request:
		return fmt.Sprintf("%s has not said how it is", m.cfg.Peer)
	case !m.peer.Ready:
		return fmt.Sprintf("%s is not ready (%s)", m.cfg.Peer, m.peer.NotReady)
	case m.peer.Config != m.cfg.Hash:
		return fmt.Sprintf("the configurations differ (%s has %s, %s has %s)", m.cfg.Site, m.cfg.Hash, m.cfg.Peer, m.peer.Config)
	case m.foreign != "":
		return "a record was changed by somebody else (" + m.foreign + "); see adopt"
	}
	return ""
}

// ask asks the peer for a promise while the register says nothing.
func (m *Machine) ask() {
	if m.asking || !m.heard || m.deaf == "" || !m.link || m.reg.Holder != m.cfg.Site || m.now < m.nextAsk ||
		m.drain != nil || m.forced > 0 || m.reg.State != Held || m.reg == m.first {
		return
	}
	m.asking = true
	m.nextAsk = m.now.Add(m.cfg.Timing.Poll)
	m.out = append(m.out, AskPromise{Epoch: m.reg.Epoch})
}

func (m *Machine) promiseDone(e PromiseDone) {
	m.asking = false
	if !e.Given {
		m.nextAsk = m.now.Add(min(m.cfg.Timing.Poll, time.Second))
	}
	if !e.Given || e.Epoch != m.reg.Epoch || m.reg.Holder != m.cfg.Site || m.drain != nil || m.peerForced() || m.reg == m.first {
		return
	}
	sent := e.Sent
	if m.faults.permitFromReply {
		sent = m.now
	}
	if end := sent.Add(m.cfg.Timing.Permit); end > m.permit {
		m.permit = end
	}
}

// answerPromise promises not to claim for as long as the permit lasts that the
// peer takes from it.
func (m *Machine) answerPromise(e PromiseAsked) {
	refuse := ""
	switch {
	case !m.heard && !m.faults.promiseBeforeRead:
		refuse = "the register was not read since the start"
	case m.claim != nil && !m.faults.promiseDuringClaim:
		refuse = "a claim is open"
	case m.forced > 0:
		refuse = "the role was forced to this site"
	case m.reg.Holder == m.cfg.Site:
		refuse = "this site holds the role"
	case e.Epoch < m.reg.Epoch:
		refuse = fmt.Sprintf("epoch %d is over", e.Epoch)
	case m.forcing != nil:
		refuse = "an operator forces the role to this site"
	}
	if refuse == "" {
		m.promised = m.now.Add(m.cfg.Timing.stretched(m.cfg.Timing.Permit))
	}
	m.out = append(m.out, PromiseAnswer{Given: refuse == "", Reason: refuse})
}

// health counts probes with hysteresis.
type health struct {
	failed    bool
	bad, good int
	since     Instant // of the last failure, or the start
	reason    string
	checked   bool
}

func (h *health) count(now Instant, failed bool, reason string, t Timing) {
	h.checked = true
	if failed {
		h.bad, h.good, h.since, h.reason = h.bad+1, 0, now, reason
		h.failed = h.failed || h.bad >= t.Bad
		return
	}
	h.bad, h.good = 0, h.good+1
	if h.good >= t.Good {
		h.failed = false
	}
}

// goodFor is how long every probe has succeeded.
func (h *health) goodFor(now Instant) time.Duration {
	if !h.checked || h.bad > 0 || h.failed {
		return 0
	}
	return now.Sub(h.since)
}
