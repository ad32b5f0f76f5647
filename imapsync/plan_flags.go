package imapsync

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// storable says whether a side can keep a flag in a folder.
func (t *track) storable(s Side) func(imap.Flag) bool {
	d := t.delta[s]
	if d == nil {
		return func(imap.Flag) bool { return true }
	}
	return func(f imap.Flag) bool {
		return d.AnyKeyword && !strings.HasPrefix(string(f), `\`) || d.Permanent.Has(f)
	}
}

// merge is three-way, flag by flag: what was agreed, with what either side added,
// without what either side removed. A side removes only what it could have kept.
func merge(base, cur [2]Flags, can [2]func(imap.Flag) bool) Flags {
	var added, removed Flags
	for s := range base {
		added = added.Union(cur[s].Minus(base[s]))
		removed = removed.Union(base[s].Minus(cur[s]).keep(can[s]))
	}
	return base[A].Union(base[B]).Union(added).Minus(removed)
}

// union is the merge without a base: \Deleted only where both have it.
func union(cur [2]Flags) Flags {
	both := cur[A].And(cur[B])
	return cur[A].Union(cur[B]).keep(func(f imap.Flag) bool { return f != imap.FlagDeleted || both.Has(f) })
}

// mergeFlags adds the steps that make both sides' flags equal.
func (pl *planner) mergeFlags(it *item, e *entry) {
	can := [2]func(imap.Flag) bool{e.home.storable(A), e.home.storable(B)}
	pl.setFlags(e, it.cur, merge(it.pair.flags, it.cur, can), can)
}

// setFlags adds the steps that lead from cur to want.
func (pl *planner) setFlags(e *entry, cur [2]Flags, want Flags, can [2]func(imap.Flag) bool) {
	for s := range cur {
		add := want.Minus(cur[s]).keep(can[s])
		remove := cur[s].Minus(want)
		e.final[s] = cur[s].Union(add).Minus(remove)
		if len(add)+len(remove) == 0 {
			continue
		}
		st := &flagStep{side: Side(s), e: e, add: add, remove: remove}
		if e.old != nil && e.next.uid[s] == e.old.uid[s] && e.next.uid[s] != 0 {
			st.since = e.home.cursor(Side(s)).ModSeq
		}
		pl.p.flags = append(pl.p.flags, st)
	}
}

// adoptFlags looks whether changes of flags that were not confirmed have been made.
// What was made is agreed on: the other side may have changed its mind since, and
// that is a change of its own.
func (pl *planner) adoptFlags(in intent) {
	if in.Kind != "flag" {
		return
	}
	for _, t := range pl.in.tracks {
		if t.blocked || t.name[in.Side] != in.Box && t.base0() != in.Box || t.cursor(in.Side).Validity != in.Validity {
			continue
		}
		at := make(map[imap.UID]*item)
		for _, it := range t.items {
			if !it.gone[in.Side] {
				at[it.uid[in.Side]] = it
			}
		}
		for _, e := range in.Entries {
			it := at[e.UID]
			if it == nil || !it.pair.whole() {
				continue
			}
			add, remove := parseFlags(e.Flags), parseFlags(e.Remove)
			if len(add.Minus(it.cur[in.Side])) > 0 || len(remove.And(it.cur[in.Side])) > 0 {
				continue // it was not made
			}
			p := *it.pair
			for s := range p.flags {
				p.flags[s] = p.flags[s].Union(add.keep(t.storable(Side(s)))).Minus(remove)
			}
			p.dirty = true
			it.pair = &p
			pl.p.adopted = append(pl.p.adopted, it)
		}
	}
}
