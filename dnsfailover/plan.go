package dnsfailover

import (
	"fmt"
	"slices"
)

// Preferences of mail exchangers: the preferred site's, the other's.
const (
	firstPreference  = 10
	secondPreference = 20
)

// wanted are the values while site i (0 or 1, in the order of sites) is active.
//
//	publish        values
//	active         those of the active site
//	both           those of both
//	prefer-active  10 the active site's, 20 the other's
//	equal          10 both
//	fixed          10 the first site's, 20 the second's
func (m Managed) wanted(i int) []string {
	var out []string
	add := func(site, preference int) {
		for _, v := range m.values[site] {
			if m.Type == "MX" {
				v = fmt.Sprintf("%d %s", preference, v)
			}
			out = append(out, v)
		}
	}
	switch m.Publish {
	case PublishBoth, Equal:
		add(0, firstPreference)
		add(1, firstPreference)
	case PreferActive:
		add(i, firstPreference)
		add(1-i, secondPreference)
	case FixedOrder:
		add(0, firstPreference)
		add(1, secondPreference)
	case PublishActive:
		add(i, firstPreference)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Step is what a plan does about one record set.
type Step struct {
	RRKey
	// Present and Wanted are the values before and after.
	Present, Wanted []string
	// Change is set where they differ and the change may be made.
	Change *RRChange
	// Foreign: the present values are neither site's, nor absent, nor adopted.
	Foreign bool
	// Warnings are for people: what would delay the move.
	Warnings []string
}

// PlanInput is what a Plan is made from.
type PlanInput struct {
	// Records are the managed ones, Sites the two sites in the configured order.
	Records []Managed
	Sites   [2]Site
	// Active is whose values are wanted.
	Active Site
	// Present are the values in the zones, in any order; a managed record that is
	// not among them is not looked at.
	Present []RRSet
	// Adopted are values that an operator has declared to be ours to replace.
	Adopted []RRSet
}

// Plan says, for each record that is present in the input, what making the
// active site's values public takes. It deletes no name and no type, writes no
// value that is not one of the two sites', and replaces none that nobody here
// wrote. Planning again after it was carried out gives no change.
func Plan(in PlanInput) []Step {
	var out []Step
	active := 0
	if in.Active == in.Sites[1] {
		active = 1
	}
	for _, m := range in.Records {
		i := slices.IndexFunc(in.Present, func(s RRSet) bool { return s.RRKey == m.RRKey })
		if i < 0 {
			continue
		}
		set := in.Present[i]
		st := Step{RRKey: m.RRKey, Present: set.Values, Wanted: m.wanted(active)}
		same := slices.Equal(set.Values, st.Wanted)
		st.Foreign = !same && !m.ours(set, in.Adopted)
		if !same && !st.Foreign && len(st.Wanted) > 0 {
			st.Change = &RRChange{RRKey: m.RRKey, TTL: m.TTL, Old: set.Values, New: st.Wanted}
		}
		if same && set.TTL != m.TTL {
			// The TTL alone is put right too: it decides how long a move takes.
			st.Change = &RRChange{RRKey: m.RRKey, TTL: m.TTL, Old: set.Values, New: st.Wanted}
		}
		st.Warnings = m.warnings(set)
		out = append(out, st)
	}
	return out
}

// ours says whether the present values are ones that this software writes, or
// that were adopted. An absent record is nobody's.
func (m Managed) ours(set RRSet, adopted []RRSet) bool {
	if len(set.Values) == 0 || slices.Equal(set.Values, m.wanted(0)) || slices.Equal(set.Values, m.wanted(1)) {
		return true
	}
	return slices.ContainsFunc(adopted, func(a RRSet) bool {
		return a.RRKey == m.RRKey && slices.Equal(a.Values, set.Values)
	})
}

func (m Managed) warnings(set RRSet) []string {
	var out []string
	if len(set.Values) > 0 && set.TTL != m.TTL {
		out = append(out, fmt.Sprintf("its TTL is %s, not %s: resolvers keep the old value that long", set.TTL, m.TTL))
	}
	if moves := m.Publish == PublishActive; moves && m.TTL > slowTTL {
		out = append(out, fmt.Sprintf("a TTL of %s keeps clients away for so long after a move", m.TTL))
	}
	if len(set.Values) == 0 {
		out = append(out, "it does not exist: resolvers may remember its absence for the zone's negative-cache time")
	}
	return out
}

// Changes are the changes of a plan, Foreign the record sets that forbid it.
func Changes(steps []Step) (changes []RRChange, foreign []RRSet) {
	for _, s := range steps {
		if s.Foreign {
			foreign = append(foreign, RRSet{RRKey: s.RRKey, Values: s.Present})
		}
		if s.Change != nil {
			changes = append(changes, *s.Change)
		}
	}
	return changes, foreign
}
