package relay

import (
	"time"
)

// State is what a next hop is believed to be.
type State uint8

// The states; doc.go draws how they follow each other.
const (
	// Up: it is used.
	Up State = iota
	// Down: it cannot be reached. Messages wait, without being tried.
	Down
	// Paused: it can be reached and takes nothing, for reasons of its own.
	Paused
)

// String is the word in logs, metrics and JSON.
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	case Paused:
		return "paused"
	}
	return "unknown"
}

// tuning is what a machine needs of the configuration.
type tuning struct {
	max          int // messages on their way at most
	lanes        int // connections at most
	pauseAfter   int
	pauseFirst   time.Duration
	pauseMax     time.Duration
	crowdedAfter time.Duration // how long a refused further connection is remembered
}

// doubtFactor times pauseAfter messages in a row with nobody known to a hop make it
// unproven.
const doubtFactor = 4

// Waits of a hop that is paused because it answers "not now" to everything.
const (
	busyFirst = 2 * time.Second
	busyMax   = time.Minute
)

// machine decides how much a next hop may be given. It is pure: time comes in
// as an argument, and what follows from a change of state is its caller's to do.
type machine struct {
	t     tuning
	state State
	since time.Time
	why   string // of Down and Paused: the hop's own words

	limit     float64 // messages on their way
	threshold float64 // below it, the limit doubles each round
	round     uint64  // counts the cuts
	lanes     int     // connections the hop was seen to allow; 0 is any number
	lanesTill time.Time

	proven   bool   // it has accepted something since it came up
	accepted uint64 // acceptances, ever
	streak   map[string]bool
	refusals bool // a 5xx is among the streak
	unknown  int  // messages in a row whose recipients it did not know

	shut int           // connections in a row that were refused with 5xx
	wait time.Duration // of Paused
	next time.Time     // of Paused: when one message may be tried
}

func newMachine(t tuning, now time.Time) *machine {
	m := &machine{t: t, since: now}
	m.fresh()
	return m
}

// fresh is the state of knowledge about a hop that has just come up.
func (m *machine) fresh() {
	m.limit, m.threshold = 1, float64(m.t.max)
	m.proven, m.refusals, m.wait, m.unknown = false, false, 0, 0
	m.streak = map[string]bool{}
}

func (m *machine) enter(s State, now time.Time, why string) {
	m.state, m.since, m.why = s, now, why
}

// allowed is how many messages may be on their way now.
func (m *machine) allowed(now time.Time) int {
	switch m.state {
	case Up:
		return int(m.limit)
	case Paused:
		if !now.Before(m.next) {
			return 1
		}
	case Down:
	}
	return 0
}

// connections is how many connections may be open now.
func (m *machine) connections(now time.Time) int {
	n := min(m.t.lanes, max(1, int(m.limit)))
	if m.lanes > 0 && now.Before(m.lanesTill) {
		n = min(n, m.lanes)
	}
	return n
}

// reached: a connection was made and greeted.
func (m *machine) reached(now time.Time) {
	m.shut = 0
	if m.state == Down {
		m.enter(Up, now, "")
		m.fresh()
	}
}

// unreachable: a connection could not be made, and none is open.
func (m *machine) unreachable(now time.Time, why string) {
	if m.state == Down {
		m.why = why
		return
	}
	m.enter(Down, now, why)
}

// turnedAway: the connection itself was refused with 5xx, and none is open.
func (m *machine) turnedAway(now time.Time, why string) {
	m.shut++
	switch {
	case m.state == Paused:
		m.why = why
		m.retry(now)
	case m.shut >= m.t.pauseAfter:
		m.enter(Paused, now, why)
		m.refusals, m.wait = true, 0
		m.retry(now)
	default:
		m.unreachable(now, why)
	}
}

// crowded: a further connection could not be made while open were.
func (m *machine) crowded(now time.Time, open int) {
	m.lanes, m.lanesTill = max(1, open), now.Add(m.t.crowdedAfter)
}

// accept: a message was taken for at least one recipient.
func (m *machine) accept(now time.Time) {
	m.accepted++
	if m.state == Paused {
		m.enter(Up, now, "")
		m.fresh()
	}
	m.proven, m.refusals, m.unknown = true, false, 0
	clear(m.streak)
	if m.limit < m.threshold {
		m.limit++ // each message of a round adds one: the next round has twice as many
	} else {
		m.limit += 4 / m.limit
	}
	m.limit = min(m.limit, float64(m.t.max))
}

// congested: a connection was lost or closed with 421, or time ran out. All
// that was sent before the last cut counts once.
func (m *machine) congested(round uint64) {
	if round != m.round {
		return
	}
	m.round++
	m.limit = max(1, m.limit/2)
	m.threshold = max(2, m.limit)
}

// refuse: message id was refused, for a reason about it or about the hop.
// Every refusal counts until the hop is proven, afterwards only those of the
// hop's own.
func (m *machine) refuse(now time.Time, id, why string, own bool) {
	if own || !m.proven {
		m.refusals = true
		m.suspect(now, id, why)
	} else {
		m.retry(now)
	}
}

// nobody: the hop knew none of a message's recipients. They existed when the message
// was taken: many in a row say that it has lost its list, and its refusals do not
// count until it has accepted something again.
func (m *machine) nobody() {
	if m.unknown++; m.unknown >= doubtFactor*m.t.pauseAfter {
		m.proven = false
	}
}

// busy: message id was put off for a reason of the hop's own (4.3.x, 421).
func (m *machine) busy(now time.Time, id, why string) { m.suspect(now, id, why) }

// deferred: message id was put off for a reason of its own.
func (m *machine) deferred(now time.Time) { m.retry(now) }

func (m *machine) suspect(now time.Time, id, why string) {
	if m.state == Up {
		m.streak[id] = true
	}
	if m.state == Up && len(m.streak) >= m.t.pauseAfter {
		m.enter(Paused, now, why)
		m.wait = 0
	}
	if m.state == Paused {
		m.why = why
	}
	m.retry(now)
}

// retry sets the time of a paused hop's next trial.
func (m *machine) retry(now time.Time) {
	if m.state != Paused {
		return
	}
	first, longest := m.t.pauseFirst, m.t.pauseMax
	if !m.refusals {
		first, longest = min(busyFirst, first), min(busyMax, longest)
	}
	m.wait = min(max(2*m.wait, first), longest)
	m.next = now.Add(m.wait)
}

// resume: an operator says that the hop is fine.
func (m *machine) resume(now time.Time) {
	m.enter(Up, now, "")
	m.fresh()
}
