package sieve

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	"understudy/imapsync"
)

// Snapshot is the scripts of one side.
type Snapshot struct {
	Scripts map[string]string `json:"scripts"` // text, by name; in the base: hashes
	Active  string            `json:"active"`
}

// Step is one change of one side.
type Step struct {
	Side imapsync.Side
	// Op is "put", "activate" or "delete".
	Op         string
	Name, Text string
}

// newPlan decides what makes both sides equal. base is what both had after the last
// pass, its texts as hashes; nil: there was none. conflicts are the names under
// which the losing script is kept.
func newPlan(base *Snapshot, sides [2]Snapshot, prefer imapsync.Side) (steps []Step, conflicts []string) {
	if base == nil {
		base = &Snapshot{}
	}
	names := map[string]bool{}
	for _, s := range sides {
		for name := range s.Scripts {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var text [2]string
		var there, changed [2]bool
		for s := range sides {
			text[s], there[s] = sides[s].Scripts[name]
			before, known := base.Scripts[name]
			changed[s] = there[s] != known || there[s] && hash(text[s]) != before
		}
		switch a, b := imapsync.A, imapsync.B; {
		case there[a] && there[b] && text[a] == text[b]:
		case !changed[a]:
			steps = append(steps, follow(a, there, name, text, sides[a].Active))
		case !changed[b]:
			steps = append(steps, follow(b, there, name, text, sides[b].Active))
		case !there[a]: // deleted there, changed here: the change lives
			steps = append(steps, Step{a, "put", name, text[b]})
		case !there[b]:
			steps = append(steps, Step{b, "put", name, text[a]})
		default:
			lost := text[prefer.Other()]
			kept := name + ".conflict-" + hash(lost)[:8]
			conflicts = append(conflicts, kept)
			steps = append(steps, Step{prefer.Other(), "put", name, text[prefer]},
				Step{a, "put", kept, lost}, Step{b, "put", kept, lost})
		}
	}
	if a, b := sides[imapsync.A].Active, sides[imapsync.B].Active; a != b {
		switch {
		case a == base.Active: // only b changed it
			steps = append(steps, Step{imapsync.A, "activate", b, ""})
		case b == base.Active:
			steps = append(steps, Step{imapsync.B, "activate", a, ""})
		default:
			steps = append(steps, Step{prefer.Other(), "activate", sides[prefer].Active, ""})
		}
	}
	// A script is deleted after another one was activated: the active one cannot be.
	slices.SortStableFunc(steps, func(x, y Step) int { return order(x.Op) - order(y.Op) })
	return steps, conflicts
}

// follow makes side, which has not changed, what the other side has become. A
// script that is active here is not deleted: nobody would sort that mail. It goes
// back to the other side.
func follow(side imapsync.Side, there [2]bool, name string, text [2]string, active string) Step {
	switch {
	case there[side.Other()]:
		return Step{side, "put", name, text[side.Other()]}
	case name == active:
		return Step{side.Other(), "put", name, text[side]}
	default:
		return Step{side, "delete", name, ""}
	}
}

func order(op string) int { return slices.Index([]string{"put", "activate", "delete"}, op) }

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
