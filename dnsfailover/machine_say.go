package dnsfailover

import "fmt"

// linkChanged takes in that the link came up or went down.
func (m *Machine) linkChanged(up bool) {
	if up == m.link {
		return
	}
	m.link, m.linkAt, m.sickAt = up, m.now, 0
	if up {
		m.objected = 0
		m.note("link", "to %s is up", m.cfg.Peer)
		return
	}
	m.note("link", "to %s is down", m.cfg.Peer)
}

// peerSays takes in what the peer tells about itself.
func (m *Machine) peerSays(p PeerState) {
	m.peer, m.peerAt = p, m.now
	switch {
	case !p.Sick:
		m.sickAt = 0
	case m.sickAt == 0:
		m.sickAt = m.now
	}
	// What it says is old by the way here: a little longer is what this site said
	// itself, and would grow with every message.
	if q := m.now.Add(p.QuietFor); p.QuietFor > 0 && m.now >= m.acked && q.Sub(m.quiet) > m.cfg.Timing.Poll+m.cfg.Timing.Request {
		m.quiet = q
	}
	if m.forced > 0 && p.Epoch >= m.forced && p.Holder == m.cfg.Peer {
		m.endForced("%s knows that it is active in epoch %d", m.cfg.Peer, p.Epoch)
	}
	if m.peerForced() && m.forcing != nil && m.reg.Holder == m.cfg.Site && m.link {
		m.note("failover refused", "%s is alive, and active by force in epoch %d", m.cfg.Peer, p.Forced)
		m.forcing = nil // or a later cut of the link would carry it out
	}
	if m.peerForced() && m.permit != 0 {
		m.note("stood down", "%s is active by force in epoch %d", m.cfg.Peer, p.Forced)
		m.permit = 0
	}
	if p.Epoch > m.reg.Epoch {
		m.nextRead = m.now
	}
}

// Says is what this site tells the peer.
func (m *Machine) Says() PeerState {
	v, _ := m.View()
	not := m.notReady()
	p := PeerState{
		Role: v.Role.String(), Epoch: m.reg.Epoch, Holder: m.reg.Holder,
		Sick: m.self.failed, GoodFor: m.self.goodFor(m.now), Ready: not == "", NotReady: not,
		Forced: m.forced, Config: m.cfg.Hash, Mode: m.cfg.Mode, Maintenance: m.maintenance,
	}
	if m.self.failed {
		p.Why = m.self.reason
	}
	if m.quiet > m.now {
		p.QuietFor = m.quiet.Sub(m.now)
	}
	return p
}

// notReady says why this site could not take the role now.
func (m *Machine) notReady() string {
	switch {
	case m.cfg.Mode == Observe:
		return "its mode is observe"
	case m.maintenance:
		return "it is in maintenance"
	case m.self.failed:
		return "its own probes fail: " + m.self.reason
	case !m.heard:
		return "it has not read the register since its start"
	case m.silent():
		return "it cannot read the register: " + m.deaf
	}
	return ""
}

// command obeys an operator, or says why not.
func (m *Machine) command(e Operator) (refused string) {
	me, peer := m.cfg.Site, m.cfg.Peer
	switch e.Command {
	case SwitchOver:
		return m.switchOver(e.To)
	case ForceFailover:
		return m.force()
	case Pause, Resume:
		want := e.Command == Pause
		m.wantPause, m.paused = &want, want
		m.nextRead = m.now
	case MaintenanceOn:
		if m.reg.Holder == me && m.drain == nil && m.heard && m.cfg.Mode != Observe {
			if not := m.peerUnfit(); not != "" {
				return fmt.Sprintf("%s is active and %s", me, not)
			}
			m.startDrain(peer, "maintenance", false)
		}
		if !m.maintenance {
			m.note("maintenance", "on: %s does not claim the role", me)
		}
		m.maintenance = true
	case MaintenanceOff:
		if m.maintenance {
			m.note("maintenance", "off")
		}
		m.maintenance = false
	case Acknowledge:
		m.quiet, m.backoff, m.objected = 0, 0, 0
		m.acked = m.now.Add(m.cfg.Timing.Poll + m.cfg.Timing.Request)
		m.note("acknowledged", "automatic moves are allowed again")
	case Initialise:
		return m.initialise(e)
	default:
		return fmt.Sprintf("unknown command %q", e.Command)
	}
	return ""
}

func (m *Machine) switchOver(to Site) string {
	switch {
	case to != m.cfg.Site && to != m.cfg.Peer:
		return fmt.Sprintf("there is no site %q", to)
	case m.cfg.Mode == Observe:
		return "the mode is observe: nothing moves"
	case m.heard && m.reg.Holder == to:
		return fmt.Sprintf("%s is active already", to)
	case m.reg.Holder != m.cfg.Site:
		return fmt.Sprintf("%s is not the active site: only the active one can hand over", m.cfg.Site)
	case m.drain != nil:
		return "a hand-over is under way"
	}
	if not := m.peerUnfit(); not != "" {
		return not
	}
	m.startDrain(to, "an operator's order", false)
	return ""
}

func (m *Machine) force() string {
	switch {
	case m.cfg.Mode == Observe:
		return "the mode is observe: nothing moves"
	case m.forced > 0 || m.reg.Holder == m.cfg.Site && !m.peerForced():
		return fmt.Sprintf("%s holds the role already", m.cfg.Site)
	case m.link && m.peer.Role == Active.String():
		return fmt.Sprintf("%s is alive and active, and the link to it is up: use switchover", m.cfg.Peer)
	case m.forcing != nil:
		return "an order is being carried out"
	}
	m.forcing = &forcing{since: m.now}
	m.backoff = 0
	m.nextRead = m.now
	m.note("forcing", "an operator takes the role for %s; it is active after %s at the earliest", m.cfg.Site, m.cfg.Timing.Wait)
	return ""
}

// initialise writes a register where the authority says that there is none.
func (m *Machine) initialise(e Operator) string {
	known := max(m.reg.Epoch, m.peer.Epoch, m.peer.Forced, m.forced)
	holder := e.To
	if holder == "" {
		holder = m.cfg.Primary
		if m.reg.Holder != "" {
			holder = m.reg.Holder
		}
	}
	epoch := e.Restore
	if epoch == 0 {
		epoch = known + 1
	}
	switch {
	case m.busy:
		return "the register is being asked; try again"
	case !m.absent:
		return "there is a register, or it cannot be reached"
	case epoch <= known:
		return fmt.Sprintf("epoch %d is not above %d, which was seen before", epoch, known)
	case m.reg.Holder != "" && holder != m.reg.Holder:
		return fmt.Sprintf("%s held the role: write the register for it and use switchover", m.reg.Holder)
	case m.peer.Holder != "" && holder != m.peer.Holder:
		return fmt.Sprintf("%s knows that %s held the role: write the register for it and use switchover", m.cfg.Peer, m.peer.Holder)
	}
	n := Register{
		Epoch: epoch, Holder: holder, State: Held, By: m.cfg.Site, Nonce: m.cfg.Nonce(),
		Config: m.cfg.Hash, At: m.cfg.Wall(), Paused: m.reg.Paused,
	}
	m.busy = true
	m.out = append(m.out, Swap{Kind: Write, New: n})
	return ""
}

// watch raises and clears the alarms that follow from the state.
func (m *Machine) watch() {
	m.alarm("failover_register", m.silent() || m.absent, "the register says nothing: "+m.deaf+"; no automatic move is possible")
	m.alarm("failover_foreign_record", m.foreign != "",
		"a managed record was changed by somebody else: "+m.foreign+"; nothing moves by itself until `understudy adopt`")
	m.alarm("failover_sick", m.self.failed, "this site's own probes fail: "+m.self.reason)
	m.alarm("failover_config", m.link && m.peerAt >= m.linkAt && m.peerAt != 0 && m.peer.Config != m.cfg.Hash,
		"the two sites' configurations differ; nothing moves by itself")
	v, _ := m.View()
	m.alarm("failover_fenced", v.Role == Fenced, "this site may not act as active: its permit has run out, or it has not read the register")
	m.alarm("failover_forced", m.forced > 0, fmt.Sprintf("active by force in epoch %d; the register does not know", m.forced))
	m.alarm("failover_objection", m.objected > 0 && !m.link,
		"the other site cannot be reached from here but is alive: the link between the sites is cut")
}

func (m *Machine) alarm(key string, raised bool, text string) {
	if !raised {
		text = ""
	}
	if m.alarms[key] == text {
		return
	}
	m.alarms[key] = text
	m.out = append(m.out, Alarm{Key: key, Text: text})
}
