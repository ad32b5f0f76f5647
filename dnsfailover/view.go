package dnsfailover

import "time"

// Site names one of the two sites, as in the configuration.
type Site string

// Role is what this site may do with the answer.
type Role uint8

// The roles. The zero value is Fenced: who does not know does not act.
const (
	// Fenced: this site may not act as active, and does not know who is.
	Fenced Role = iota
	// Standby: the other site is active.
	Standby
	// Active: this site is active, until View.Until.
	Active
)

// String is the role's name in logs, metrics and JSON.
func (r Role) String() string {
	switch r {
	case Active:
		return "active"
	case Standby:
		return "standby"
	case Fenced:
		return "fenced"
	default:
		return "unknown"
	}
}

// View is who is active, in which epoch, and whether this site may act on it.
type View struct {
	// Active is the active site, as far as this site knows.
	Active Site
	// Epoch counts the moves of the active role; 0 where it never moves.
	Epoch uint64
	// Role is this site's own part.
	Role Role
	// Until is when the permit to act ends; the zero time is "for ever".
	Until time.Time
}

// Fixed is the view where no failover is configured: primary is active for ever
// and every other site is standby.
func Fixed(site, primary Site) View {
	if site == primary {
		return View{Active: primary, Role: Active}
	}
	return View{Active: primary, Role: Standby}
}
