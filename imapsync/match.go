package imapsync

import (
	"cmp"
	"slices"
	"strings"
)

// trust says what a side's view of a folder is worth.
type trust uint8

const (
	missing trust = iota // no folder of that name on this side
	trusted              // the folder the base knows: what vanished was deleted
	unknown              // another folder than the base knows, or no base: nothing was deleted
)

// track is one folder through time: in the base and on both sides.
type track struct {
	base   *baseBox // nil: the sides had no such folder in common
	name   [2]string
	box    [2]Box
	status [2]trust
	delta  [2]*Delta // nil: not read, because nothing changed
	// renamed: this side's name is not the base's; to be verified with the messages.
	renamed [2]bool
	items   []*item
	fresh   [2][]*newcomer // messages without a pair
	blocked bool           // nothing may be done here
	failed  [2]bool        // what is here was not all dealt with: keep the cursor
}

// label is the name to show people.
func (t *track) label() string {
	switch {
	case t.base != nil:
		return t.base.Name
	case t.name[A] != "":
		return t.name[A]
	}
	return t.name[B]
}

func (t *track) both() bool { return t.name[A] != "" && t.name[B] != "" }

// use is the special use of the folder, wherever it is known.
func (t *track) use() string {
	if u := cmp.Or(t.box[A].Use, t.box[B].Use); u != "" || t.base == nil {
		return u
	}
	return t.base.Use
}

// cursor is how far this side of the folder has been seen in this round.
func (t *track) cursor(s Side) Cursor {
	if t.delta[s] != nil {
		return t.delta[s].Cursor
	}
	return t.box[s].Cursor
}

// filter decides which folders take part.
type filter struct {
	exclude, include []glob
	foreign          bool
}

func (f filter) wants(b Box) bool {
	switch {
	case strings.HasPrefix(b.Name, HiddenPrefix), b.Foreign && !f.foreign:
		return false
	case matchAny(f.exclude, b.Name):
		return false
	}
	// RFC 6154, section 2: these are views of other folders.
	return b.Use != `\All` && b.Use != `\Flagged` && b.Use != `\Important`
}

// matchFolders finds the tracks: which folder of the base is which on either side.
// blank names sides of which nothing in the base can be trusted.
func matchFolders(base []*baseBox, list [2]Listing, f filter, blank [2]bool) []*track {
	var have [2]map[string]Box
	var left [2]map[string]bool // seen, and not wanted: no conclusion either
	for s := range have {
		have[s], left[s] = make(map[string]Box), make(map[string]bool)
		for _, b := range list[s].Boxes {
			switch {
			case !f.wants(b):
				left[s][b.Name] = true
			case !b.NoSelect:
				have[s][b.Name] = b
			}
		}
	}
	var tracks []*track
	for _, b := range base {
		if matchAny(f.exclude, b.Name) || left[A][b.Name] || left[B][b.Name] {
			continue
		}
		tracks = append(tracks, &track{base: b})
	}
	for _, s := range []Side{A, B} {
		claimed := make(map[string]bool)
		matchSide(tracks, s, have, claimed, blank[s])
		for _, t := range tracks {
			if t.name[s] != "" {
				claimed[t.name[s]] = true
			}
		}
		for _, name := range sortedKeys(have[s]) {
			if claimed[name] {
				continue
			}
			tracks = attachNew(tracks, s, have[s][name], left[s.Other()][name])
		}
	}
	slices.SortStableFunc(tracks, func(x, y *track) int { return compareNames(x.label(), y.label()) })
	return tracks
}

// attachNew puts a folder that the base does not know into a track.
func attachNew(tracks []*track, s Side, b Box, leftOut bool) []*track {
	if leftOut {
		return tracks
	}
	for _, t := range tracks {
		if t.name[s] == "" && (t.base == nil && t.name[s.Other()] == b.Name || t.base != nil && t.base.Name == b.Name) {
			t.name[s], t.box[s], t.status[s] = b.Name, b, unknown
			return tracks
		}
	}
	t := &track{}
	t.name[s], t.box[s], t.status[s] = b.Name, b, unknown
	return append(tracks, t)
}

// matchSide finds the base's folders on one side.
func matchSide(tracks []*track, s Side, have [2]map[string]Box, claimed map[string]bool, blank bool) {
	var displaced []*track
	for _, t := range tracks {
		b, there := have[s][t.base0()]
		if t.base == nil {
			continue
		}
		doubt := blank || t.base.Doubt[s]
		same := there && !doubt && (t.base.Vacant[s] || b.Cursor.Validity == t.base.Cursor[s].Validity &&
			(t.base.MailboxID[s] == "" || b.ID == "" || b.ID == t.base.MailboxID[s]))
		if !same {
			displaced = append(displaced, t)
			continue
		}
		t.name[s], t.box[s], t.status[s] = b.Name, b, trusted
		if !t.base.Vacant[s] && backwards(t.base.Cursor[s], b.Cursor) {
			t.status[s] = unknown
		}
		claimed[b.Name] = true
	}
	for _, t := range displaced {
		if t.base.Vacant[s] {
			continue // there is nothing it could be recognised by
		}
		if b, ok := findRenamed(t, s, have, claimed); ok && !blank && !t.base.Doubt[s] {
			t.name[s], t.box[s], t.status[s], t.renamed[s] = b.Name, b, trusted, true
			claimed[b.Name] = true
		}
	}
	for _, t := range displaced {
		if t.name[s] != "" {
			continue
		}
		if b, there := have[s][t.base.Name]; there && !claimed[b.Name] {
			t.name[s], t.box[s], t.status[s] = b.Name, b, unknown
			claimed[b.Name] = true
		} else if blank || t.base.Doubt[s] {
			t.status[s] = unknown // not there, and that says nothing
		}
	}
}

func (t *track) base0() string {
	if t.base == nil {
		return ""
	}
	return t.base.Name
}

// backwards says that a side went back in time: restored from a backup, or a
// virtual machine was rolled back.
func backwards(base, now Cursor) bool {
	return now.Next < base.Next || base.ModSeq != 0 && now.ModSeq != 0 && now.ModSeq < base.ModSeq
}

// findRenamed looks for the one folder that is new here and continues t.
func findRenamed(t *track, s Side, have [2]map[string]Box, claimed map[string]bool) (Box, bool) {
	if t.base.Name == "INBOX" {
		return Box{}, false // RFC 9051, section 6.3.6: renaming INBOX moves its messages
	}
	var found []Box
	for _, name := range sortedKeys(have[s]) {
		b := have[s][name]
		if name == t.base.Name || claimed[name] {
			continue
		}
		if t.base.MailboxID[s] != "" && b.ID != "" {
			if b.ID == t.base.MailboxID[s] {
				return b, true
			}
			continue
		}
		if b.Cursor.Validity == t.base.Cursor[s].Validity && !backwards(t.base.Cursor[s], b.Cursor) {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		return Box{}, false
	}
	return found[0], true
}

// split takes a rename that turned out to be none apart: the folder of the base is
// gone from this side, and the other one is new.
func split(tracks []*track, t *track, s Side) []*track {
	b := t.box[s]
	t.name[s], t.box[s], t.status[s], t.renamed[s], t.delta[s] = "", Box{}, missing, false, nil
	return attachNew(tracks, s, b, false)
}

// compareNames puts INBOX first and parents before children.
func compareNames(a, b string) int {
	if (a == "INBOX") != (b == "INBOX") {
		if a == "INBOX" {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, compareNames)
	return out
}
