package dnsfailover

import "time"

// Snapshot is what a machine knows, for people. Durations are from its moment.
type Snapshot struct {
	Role       string        `json:"role"`
	Active     Site          `json:"active,omitempty"`
	Epoch      uint64        `json:"epoch"`
	PermitLeft time.Duration `json:"permit_left_ns,omitempty"`
	Mode       Mode          `json:"mode"`
	// Register is the text last read, Age how old it is; Silent says why the last
	// request brought nothing.
	Register string        `json:"register,omitempty"`
	Age      time.Duration `json:"register_age_ns,omitempty"`
	Silent   string        `json:"register_silent,omitempty"`
	// Claiming, HandingOver and Forced are what is under way.
	Claiming    bool          `json:"claiming,omitempty"`
	TakeIn      time.Duration `json:"take_in_ns,omitempty"`
	HandingOver string        `json:"handing_over,omitempty"`
	Forced      uint64        `json:"forced,omitempty"`
	// Settings and what keeps the role from moving by itself.
	Paused      bool          `json:"paused,omitempty"`
	Maintenance bool          `json:"maintenance,omitempty"`
	QuietFor    time.Duration `json:"quiet_for_ns,omitempty"`
	Foreign     string        `json:"foreign,omitempty"`
	WouldMove   string        `json:"would_move,omitempty"`
	// Link and Peer: the other site; Self and Other: the verdicts of the probes.
	Link  bool        `json:"link"`
	Peer  PeerState   `json:"peer"`
	Heard bool        `json:"peer_heard"`
	Self  ProbeStatus `json:"self"`
	Other ProbeStatus `json:"other"`
}

// ProbeStatus is a verdict with its counts.
type ProbeStatus struct {
	Failed  bool          `json:"failed"`
	Bad     int           `json:"bad"`
	Good    int           `json:"good"`
	Reason  string        `json:"reason,omitempty"`
	GoodFor time.Duration `json:"good_for_ns"`
	Checked bool          `json:"checked"`
}

func (h *health) status(now Instant) ProbeStatus {
	s := ProbeStatus{Failed: h.failed, Bad: h.bad, Good: h.good, GoodFor: h.goodFor(now), Checked: h.checked}
	if h.failed || h.bad > 0 {
		s.Reason = h.reason
	}
	return s
}

// Snapshot returns what the machine knows.
func (m *Machine) Snapshot() Snapshot {
	v, until := m.View()
	s := Snapshot{
		Role: v.Role.String(), Active: v.Active, Epoch: v.Epoch, Mode: m.cfg.Mode, Register: m.reg.String(), Silent: m.deaf,
		Forced: m.forced, Paused: m.paused || m.reg.Paused, Maintenance: m.maintenance, Foreign: m.foreign,
		WouldMove: m.would, Link: m.link, Peer: m.peer, Heard: m.peerAt != 0,
		Self: m.self.status(m.now), Other: m.other.status(m.now),
	}
	if until != 0 {
		s.PermitLeft = until.Sub(m.now)
	}
	if m.heard {
		s.Age = m.now.Sub(m.regAt)
	}
	if c := m.claim; c != nil {
		s.Claiming = true
		if c.seen != 0 {
			s.TakeIn = max(0, c.seen.Add(m.cfg.Timing.Wait).Sub(m.now))
		}
	}
	if m.drain != nil {
		s.HandingOver = "to " + string(m.drain.to) + ": " + m.drain.why
	}
	if m.quiet > m.now {
		s.QuietFor = m.quiet.Sub(m.now)
	}
	return s
}
