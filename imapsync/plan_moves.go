package imapsync

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// adoptMoved looks for copies that somebody moved on before they were confirmed.
func (pl *planner) adoptMoved(in intent) {
	if in.Kind != "append" && in.Kind != "copy" {
		return
	}
	o, f := in.Side, in.Side.Other()
	for _, src := range pl.in.tracks {
		if src.blocked || pl.p.reset[src] || src.name[f] != in.Source && src.base0() != in.Source {
			continue
		}
		for _, e := range in.Entries {
			i := slices.IndexFunc(src.fresh[f], func(n *newcomer) bool { return n.m.UID == e.UID && !n.taken && n.m.Key.Known() })
			if i < 0 {
				continue
			}
			n := src.fresh[f][i]
			c := pl.elsewhere(src, o, n.m.Key)
			if c == nil {
				continue
			}
			n.taken, c.taken = true, true
			flags := parseFlags(e.Flags)
			p := &pair{flags: [2]Flags{flags, flags}, size: n.m.Size, key: n.m.Key}
			p.uid[f], p.gid[f], p.gid[o] = n.m.UID, n.m.GID, c.m.GID
			it := &item{pair: p, track: src, uid: p.uid, cur: p.flags, gid: p.gid, dirty: true}
			it.cur[f], it.gone[o], it.loc[o] = n.m.Flags, true, c
			src.items = append(src.items, it)
			pl.p.adopted = append(pl.p.adopted, it)
			pl.p.paired++
		}
	}
}

// elsewhere finds a new message with this content in another folder than t.
func (pl *planner) elsewhere(t *track, s Side, key Key) *newcomer {
	for _, other := range pl.in.tracks {
		if other == t || other.blocked || pl.p.reset[other] && other.base != nil {
			continue
		}
		for _, c := range other.fresh[s] {
			if !c.taken && c.m.Key == key {
				return c
			}
		}
	}
	return nil
}

func sortFresh(list []*newcomer) {
	slices.SortFunc(list, func(a, b *newcomer) int { return int(int64(a.m.UID) - int64(b.m.UID)) })
}

// adopt looks for what an unconfirmed copy may have left behind, so that it is not
// copied again.
func (pl *planner) adopt(in intent) {
	if in.Kind != "append" && in.Kind != "copy" {
		return // an unconfirmed move or deletion shows in the folders themselves
	}
	var dst, src *track
	for _, t := range pl.in.tracks {
		if t.name[in.Side] == in.Box || t.base0() == in.Box && t.cursor(in.Side).Validity == in.Validity {
			dst = t // it may have been renamed since
		}
		if t.name[in.Side.Other()] == in.Source || t.base0() == in.Source {
			src = t
		}
	}
	if dst == nil || dst.blocked || len(dst.fresh[in.Side]) == 0 {
		return
	}
	if in.Validity != 0 && dst.cursor(in.Side).Validity != in.Validity {
		return
	}
	o, f := in.Side, in.Side.Other()
	news := make(map[imap.UID]*newcomer)
	items := make(map[imap.UID]*item)
	if src != nil {
		for _, n := range src.fresh[f] {
			news[n.m.UID] = n
		}
		for _, it := range src.items {
			if it.uid[f] != 0 {
				items[it.uid[f]] = it
			}
		}
	}
	free := make(map[Key][]*newcomer)
	for _, c := range dst.fresh[o] {
		if c.m.UID >= in.Next && !c.taken {
			free[c.m.Key] = append(free[c.m.Key], c)
		}
	}
	same := make(map[Key]int)
	for _, e := range in.Entries {
		same[e.Key]++
	}
	for _, e := range in.Entries {
		n, it := news[e.UID], items[e.UID]
		key := e.Key
		switch {
		case key.Known():
		case n != nil:
			key = n.m.Key
		case it != nil:
			key = it.pair.key
		}
		var c *newcomer
		if doubt := key.weak() || same[key] > 1 || len(free[key]) > 1; doubt && (n != nil || it != nil && !it.gone[f]) {
			for _, x := range free[key] {
				if c == nil && !x.taken && pl.sameBody(src, f, e.UID, x) {
					c = x
				}
			}
		} else if n != nil || it != nil || !key.weak() {
			c = takeKey(free, key) // without its source, a weak key proves nothing
		}
		if c == nil && n == nil && it == nil && !e.Key.Known() {
			c = takeGone(dst.fresh[o], in.Next, e)
		}
		if c != nil {
			pl.adoptOne(c, n, it, e, dst, f)
		}
	}
}

func takeKey(free map[Key][]*newcomer, key Key) *newcomer {
	if !key.Known() {
		return nil
	}
	for len(free[key]) > 0 {
		c := free[key][0]
		free[key] = free[key][1:]
		if !c.taken {
			return c
		}
	}
	return nil
}

// takeGone finds the copy of a message whose source does not exist any more, and
// whose key therefore may never have been known.
func takeGone(list []*newcomer, from imap.UID, e intentEntry) *newcomer {
	for _, c := range list {
		if !c.taken && c.m.UID >= from && c.m.Size == e.Size && c.m.Date.Equal(e.Date) && !e.Date.IsZero() {
			return c
		}
	}
	return nil
}

func (pl *planner) adoptOne(c, n *newcomer, it *item, e intentEntry, dst *track, f Side) {
	o := f.Other()
	flags := parseFlags(e.Flags)
	c.taken = true
	if it != nil {
		if !it.gone[o] {
			c.taken = false // it has its counterpart: this is another message
			return
		}
		p := *it.pair
		p.flags, p.half, p.hold = [2]Flags{flags, flags}, whole, ""
		p.uid[o], p.gid[o], p.dirty = c.m.UID, c.m.GID, true
		pl.p.adopted = append(pl.p.adopted, it)
		it.pair, it.uid[o], it.gone[o], it.cur[o], it.gid[o], it.dirty = &p, c.m.UID, false, c.m.Flags, c.m.GID, true
		return
	}
	p := &pair{flags: [2]Flags{flags, flags}, size: c.m.Size, key: c.m.Key}
	p.gid[f], p.gid[o] = e.GID, c.m.GID
	p.uid[f], p.uid[o] = e.UID, c.m.UID
	adopted := &item{pair: p, track: dst, cur: p.flags, gid: p.gid, dirty: true}
	adopted.uid[o], adopted.cur[o] = c.m.UID, c.m.Flags
	if n != nil {
		n.taken = true
		adopted.uid[f], adopted.cur[f], adopted.gid[f] = n.m.UID, n.m.Flags, n.m.GID
	} else {
		adopted.gone[f] = true
	}
	pl.p.paired++
	pl.p.adopted = append(pl.p.adopted, adopted)
	dst.items = append(dst.items, adopted)
}

// findMoves looks for the messages that are gone from a folder of one side among
// those that are new in any: by the server's identity, else by content.
func (pl *planner) findMoves(s Side) {
	byGID, byKey := make(map[string][]*newcomer), make(map[Key][]*newcomer)
	for _, t := range pl.in.tracks {
		if t.blocked || t.status[A] == unknown && t.base != nil || t.status[B] == unknown && t.base != nil {
			continue // here everything looks new
		}
		for _, n := range t.fresh[s] {
			if n.taken {
				continue
			}
			if n.m.GID != "" {
				byGID[n.m.GID] = append(byGID[n.m.GID], n)
			}
			if n.m.Key.Known() {
				byKey[n.m.Key] = append(byKey[n.m.Key], n)
			}
		}
	}
	went := make(map[Key]int)
	for _, t := range pl.in.tracks {
		for _, it := range t.items {
			if !t.blocked && it.gone[s] {
				went[it.pair.key]++
			}
		}
	}
	for _, t := range pl.in.tracks {
		if t.blocked {
			continue
		}
		for _, it := range t.items {
			if !it.gone[s] || it.loc[s] != nil || it.pair.half == dead || it.pair.half == refused {
				continue
			}
			var with *track
			if s == B && it.loc[A] != nil {
				with = it.loc[A].track
			}
			n := pickNewcomer(byGID[it.gid[s]], with)
			if n == nil && it.pair.key.Known() {
				// Where both have an identity and it differs, they are two messages.
				o, key := s.Other(), it.pair.key
				doubt := !it.gone[o] && (key.weak() || went[key] > 1 || len(byKey[key]) > 1)
				n = pickNewcomer(slices.DeleteFunc(slices.Clone(byKey[key]), func(n *newcomer) bool {
					return n.taken || n.m.GID != "" && it.gid[s] != "" || doubt && !pl.sameBody(t, o, it.uid[o], n)
				}), with)
			}
			if n != nil {
				n.taken, it.loc[s] = true, n
			}
		}
	}
}

// pickNewcomer takes the first free one, if possible in the folder with.
func pickNewcomer(list []*newcomer, with *track) *newcomer {
	var first *newcomer
	for _, n := range list {
		if n.taken {
			continue
		}
		if with == nil || n.track == with {
			return n
		}
		if first == nil {
			first = n
		}
	}
	return first
}

// decide is the table of newPlan for one pair.
func (pl *planner) decide(it *item) {
	switch it.pair.half {
	case dead, refused:
		pl.decideOdd(it)
		return
	case whole, held, doomed:
	}
	switch a, b := it.loc[A], it.loc[B]; {
	case a != nil && b != nil:
		pl.bothMoved(it)
	case a != nil:
		pl.moved(it, A)
	case b != nil:
		pl.moved(it, B)
	case it.gone[A] && it.gone[B]:
		pl.keep(it, nil, nil)
	case it.gone[A]:
		pl.deleted(it, B)
	case it.gone[B]:
		pl.deleted(it, A)
	default:
		pl.mergeFlags(it, pl.newEntry(it, it.track, it.uid))
	}
}

// newEntry is the pair as it will be.
func (pl *planner) newEntry(it *item, home *track, uid [2]imap.UID) *entry {
	next := *it.pair
	next.uid, next.gid, next.half, next.hold = uid, it.gid, whole, ""
	e := &entry{old: it.pair, next: &next, home: home, final: it.cur}
	pl.p.entries = append(pl.p.entries, e)
	return e
}

// keep saves a pair as next, nil for nothing.
func (pl *planner) keep(it *item, next *pair, home *track) {
	e := &entry{old: it.pair, next: next, home: home}
	if next != nil {
		e.final = next.flags
	}
	pl.p.entries = append(pl.p.entries, e)
}

// moved: side s moved it.
func (pl *planner) moved(it *item, s Side) {
	n, o := it.loc[s], s.Other()
	if it.gone[o] {
		// Deleted there, moved here: it survives where it was moved to.
		pl.conflict("delete-move", n.track, n.m.UID, s)
		pl.keep(it, nil, nil)
		n.taken = false
		return
	}
	uid := it.uid
	uid[s], it.cur[s] = n.m.UID, n.m.Flags
	if n.m.GID != "" {
		it.gid[s] = n.m.GID
	}
	e := pl.newEntry(it, n.track, uid)
	if n.track != it.track {
		pl.need(n.track, o)
		pl.p.moves = append(pl.p.moves, &transferStep{side: o, from: it.track, to: n.track, uid: it.uid[o], move: true, e: e})
	}
	pl.mergeFlags(it, e)
}

// bothMoved: to one folder, or the preferred side wins.
func (pl *planner) bothMoved(it *item) {
	win := pl.in.cfg.prefer
	lose := win.Other()
	w, l := it.loc[win], it.loc[lose]
	var uid [2]imap.UID
	for _, n := range []*newcomer{w, l} {
		uid[n.side], it.cur[n.side] = n.m.UID, n.m.Flags
		if n.m.GID != "" {
			it.gid[n.side] = n.m.GID
		}
	}
	e := pl.newEntry(it, w.track, uid)
	if w.track != l.track {
		pl.conflict("move-move", w.track, w.m.UID, win)
		pl.need(w.track, lose)
		pl.p.moves = append(pl.p.moves, &transferStep{side: lose, from: l.track, to: w.track, uid: l.m.UID, move: true, e: e})
	}
	pl.mergeFlags(it, e)
}

// deleted: only side o still has it.
func (pl *planner) deleted(it *item, o Side) {
	s := o.Other()
	restore := false
	approved := false
	if it.pair.half == held {
		h, known := pl.in.holds[it.pair.hold]
		switch {
		case known && h.State == holdApproved:
			approved = true
		case known && h.State == holdWaiting && pl.in.now.Before(h.Expires):
			next := *it.pair
			next.uid[s], next.flags[o], next.gid[o] = 0, it.cur[o], it.gid[o]
			pl.keep(it, &next, it.track)
			return
		default:
			restore = true
		}
	}
	added := it.cur[o].Minus(it.pair.flags[o])
	if len(added.And(pl.in.cfg.keep)) > 0 {
		pl.conflict("delete-flag", it.track, it.uid[o], o)
		restore = true
	}
	if restore {
		uid := it.uid
		uid[s] = 0
		e := pl.newEntry(it, it.track, uid)
		e.final = [2]Flags{it.cur[o], it.cur[o]}
		e.next.gid[s] = ""
		m := Message{UID: it.uid[o], Flags: it.cur[o], Size: it.pair.size, Key: it.pair.key, GID: it.gid[o]}
		pl.append(it.track, s, m, e, true)
		return
	}
	e := &entry{old: it.pair, home: it.track}
	pl.p.entries = append(pl.p.entries, e)
	pl.p.deletes = append(pl.p.deletes, &deleteStep{
		side: o, track: it.track, uid: it.uid[o], since: it.track.cursor(o).ModSeq, approved: approved, e: e,
	})
}

// decideOdd deals with pairs that have one half for good.
func (pl *planner) decideOdd(it *item) {
	k := A // where it is
	if it.pair.uid[A] == 0 {
		k = B
	}
	if it.gone[k] {
		pl.keep(it, nil, nil)
		return
	}
	again := it.pair.half == refused && pl.in.now.Sub(it.pair.when) >= pl.in.cfg.retry ||
		it.pair.half == dead && !it.cur[k].Has(imap.FlagDeleted)
	if !again {
		if it.pair.half == refused {
			pl.fault(k.Other(), it.track, it.uid[k], "too-big", "was refused by this side; it is offered again later")
		}
		next := *it.pair
		next.flags[k], next.gid[k] = it.cur[k], it.gid[k]
		pl.keep(it, &next, it.track)
		return
	}
	e := pl.newEntry(it, it.track, it.uid)
	e.final = [2]Flags{it.cur[k], it.cur[k]}
	m := Message{UID: it.uid[k], Flags: it.cur[k], Size: it.pair.size, Key: it.pair.key, GID: it.gid[k]}
	pl.append(it.track, k.Other(), m, e, true)
}
