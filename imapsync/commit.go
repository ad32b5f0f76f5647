package imapsync

import (
	"fmt"
	"slices"
	"time"
)

// home makes sure that the base has a row for a folder.
func (x *exec) home(c *change, t *track) *baseBox {
	m := &x.r.img.meta
	if t.base == nil {
		m.NextID++
		t.base = &baseBox{ID: m.NextID, Name: x.p.final[t], loaded: true}
		for s := range t.base.Cursor {
			t.base.Cursor[s] = rewound(x.validity(t, Side(s)))
			t.base.Vacant[s] = t.base.Cursor[s].Validity == 0
		}
		x.fresh = append(x.fresh, t.base)
		c.meta = m
	}
	return t.base
}

// apply commits c with the folders that are new to the base, and remembers what is
// safe now: after a failure everything is still to be written.
func (x *exec) apply(c change, entries []*entry) error {
	for _, b := range x.fresh {
		if !slices.Contains(c.putBoxes, b) {
			c.putBoxes = append(c.putBoxes, b)
		}
	}
	c.meta = &x.r.img.meta
	if err := x.r.a.db.apply(c); err != nil {
		return err
	}
	x.fresh = nil
	for _, e := range entries {
		e.saved = true
	}
	return nil
}

// place adds the pair of a confirmed entry to c.
func (x *exec) place(c *change, e *entry) {
	if e.saved {
		return
	}
	if e.old != nil && e.old.id != 0 && (e.next == nil || e.next.box != e.old.box || x.p.reset[e.home] && e.next.id == 0) {
		c.dropPairs = append(c.dropPairs, e.old.place())
	}
	if e.next == nil {
		return
	}
	p := e.next
	p.flags = e.final
	m := &x.r.img.meta
	home := x.home(c, e.home)
	if e.old != nil && e.old.id != 0 && p.box != home.ID {
		c.dropPairs = append(c.dropPairs, e.old.place())
	}
	p.box = home.ID
	if p.id == 0 {
		m.NextID++
		p.id = m.NextID
		c.meta = m
	} else if e.old != nil && !e.old.dirty && equalPairs(p, e.old) {
		return
	}
	c.putPairs = append(c.putPairs, p)
}

func equalPairs(a, b *pair) bool {
	return a.box == b.box && a.uid == b.uid && a.size == b.size && a.key == b.key && a.gid == b.gid && a.half == b.half &&
		a.hold == b.hold && a.when.Equal(b.when) && slices.Equal(a.flags[A], b.flags[A]) && slices.Equal(a.flags[B], b.flags[B])
}

// journal writes what is about to be done, before it is.
func (x *exec) journal() error {
	var c change
	for _, t := range x.tracks {
		if !t.blocked && t.both() && t.base == nil {
			x.home(&c, t)
		}
	}
	c.dropIntents = x.settled()
	x.placeAdopted(&c)
	type route struct {
		kind     string
		side     Side
		src, dst *track
	}
	byRoute := make(map[route]*intent)
	add := func(r route, e intentEntry) {
		in := byRoute[r]
		if in == nil {
			in = &intent{Kind: r.kind, Side: r.side, Source: x.nameOf(r.src, r.side.Other()), Box: x.nameOf(r.dst, r.side)}
			if cur := r.dst.cursor(r.side); r.dst.box[r.side].Name != "" {
				in.Validity, in.Next = cur.Validity, cur.Next
			}
			byRoute[r] = in
			x.intents = append(x.intents, in)
		}
		in.Entries = append(in.Entries, e)
	}
	for _, st := range x.p.appends {
		add(route{"append", st.to, st.src, st.dst}, st.entry())
	}
	for _, st := range x.p.copies {
		o := st.side.Other()
		add(route{"copy", st.side, st.to, st.to}, intentEntry{UID: st.e.next.uid[o], Flags: st.e.next.flags[o].String(), Size: st.e.next.size, Key: st.e.next.key, GID: st.e.next.gid[o]})
	}
	for _, st := range x.p.moves {
		add(route{"move", st.side, st.from, st.to}, intentEntry{UID: st.uid})
	}
	for _, st := range x.p.flags {
		if st.e.old != nil && st.e.old.uid[st.side] != 0 && st.e.old.uid[st.side] == st.e.next.uid[st.side] {
			add(route{"flag", st.side, st.e.home, st.e.home}, intentEntry{UID: st.e.next.uid[st.side], Flags: st.add.String(), Remove: st.remove.String()})
		}
	}
	for _, d := range x.p.deletes {
		add(route{"delete", d.side, d.track, d.track}, intentEntry{UID: d.uid})
	}
	c.putIntents = x.intents
	if len(c.putIntents)+len(c.dropIntents)+len(c.putPairs)+len(x.fresh) == 0 {
		return nil
	}
	return x.apply(c, nil)
}

// vacate prepares the base for folders that were deleted on one side and have to be
// made again there: what was in them is known to be deleted, whatever UIDs the new
// folder hands out. It is saved before the folder is made.
func (x *exec) vacate() error {
	var c change
	for _, f := range x.p.folders {
		t, s := f.track, f.side
		if f.c.Op != CreateFolder || t.base == nil || t.status[s] != missing || x.p.reset[t] {
			continue
		}
		for _, p := range t.base.pairs {
			if p.uid[s] == 0 {
				continue
			}
			p.uid[s] = 0
			if p.half == whole {
				p.half = doomed
			}
			c.putPairs = append(c.putPairs, p)
		}
		t.base.Cursor[s], t.base.Vacant[s], t.base.MailboxID[s] = Cursor{}, true, ""
		c.putBoxes = append(c.putBoxes, t.base)
	}
	if len(c.putBoxes) == 0 {
		return nil
	}
	return x.apply(c, nil)
}

// found notes the UIDVALIDITY of folders that were made a moment ago.
func (x *exec) found(c *change, t *track) {
	made := x.created[t]
	if made == nil || t.base == nil {
		return
	}
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	for s := range made {
		if t.box[s].Name == "" && made[s].Validity != 0 && t.base.Cursor[s].Validity == 0 {
			t.base.Cursor[s], t.base.Vacant[s] = made[s], false
			c.putBoxes = append(c.putBoxes, t.base)
		}
	}
}

// placeAdopted saves what the journal led to, in the transaction that forgets the
// journal: whatever happens next, these pairs are known.
func (x *exec) placeAdopted(c *change) {
	for _, it := range x.p.adopted {
		p, home := it.pair, x.home(c, it.track)
		p.box = home.ID
		if p.id == 0 {
			x.r.img.meta.NextID++
			p.id = x.r.img.meta.NextID
		}
		c.putPairs = append(c.putPairs, p)
		for _, e := range x.p.entries {
			if e.old == p && e.next != nil {
				e.next.id, e.next.box = p.id, p.box
			}
		}
	}
}

func (st *appendStep) entry() intentEntry {
	return intentEntry{UID: st.uid, Flags: st.flags.String(), Size: st.m.Size, Date: st.m.Date, Key: st.m.Key, GID: st.m.GID}
}

func (x *exec) nameOf(t *track, s Side) string {
	if t.name[s] != "" {
		return t.name[s]
	}
	return x.p.final[t]
}

// settled lists the old intents that the plan has looked at: their folders were
// read, so what they left behind is known.
func (x *exec) settled() []uint64 {
	var out []uint64
	for _, in := range x.r.img.intents {
		keep := len(x.r.filter.include) > 0
		for _, t := range x.tracks {
			if t.name[in.Side] == in.Box || t.name[in.Side.Other()] == in.Source {
				keep = t.blocked
				if keep {
					break
				}
			}
		}
		if !keep {
			out = append(out, in.seq)
		}
	}
	return out
}

// fail marks the entries and folders of the steps that were not confirmed.
func (x *exec) fail() {
	mark := func(ts ...*track) {
		for _, t := range ts {
			t.failed = [2]bool{true, true}
		}
	}
	for _, list := range [][]*transferStep{x.p.copies, x.p.moves} {
		for _, st := range list {
			if !st.done {
				st.e.unplaced = true
				mark(st.from, st.to, st.e.home)
			}
		}
	}
	for _, st := range x.p.appends {
		if !st.done {
			st.e.unplaced = true
			mark(st.src, st.dst)
		}
	}
	for _, d := range x.p.deletes {
		if !d.done {
			d.e.unplaced = true
			mark(d.track)
		}
	}
	for _, st := range x.p.flags {
		if !st.done {
			st.e.unflagged = true
			mark(st.e.home)
		}
	}
	for _, list := range [][]folderStep{x.p.folders, x.p.removals, x.p.subs} {
		for _, f := range list {
			if !f.done {
				mark(f.track)
			}
		}
	}
	// The folder a message was moved from must be read again with the one it went to.
	for _, e := range x.p.entries {
		if !e.unplaced || e.old == nil {
			continue
		}
		for _, t := range x.tracks {
			if t.base != nil && t.base.ID == e.old.box {
				mark(t)
			}
		}
	}
}

// commit writes everything that was confirmed in one transaction: pairs, flags,
// cursors, journal, tombs and holds.
func (x *exec) commit() error {
	x.fail()
	m := &x.r.img.meta
	c := change{meta: m, putHolds: x.p.newHolds}
	for _, e := range x.p.entries {
		switch {
		case e.unplaced && e.old != nil && x.p.reset[e.home] && e.next == nil:
		case e.unplaced:
			continue
		case e.unflagged && e.next != nil:
			e.final = e.next.flags
		}
		x.place(&c, e)
	}
	c.dropHolds = x.endedHolds()
	before := len(c.putPairs) + len(c.dropPairs) + len(c.putHolds) + len(c.dropHolds)
	renamed := make(map[string]string)
	for _, t := range x.tracks {
		was := t.base0()
		x.commitBox(&c, t)
		if was != "" && t.base.Name != was {
			renamed[was] = t.base.Name
		}
	}
	x.renameHolds(&c, renamed)
	for _, t := range x.p.dropped {
		if t.base != nil {
			c.dropBoxes = append(c.dropBoxes, t.base)
		}
	}
	for _, f := range x.p.removals {
		if f.done && f.track.base != nil && !f.track.failed[A] {
			c.dropBoxes = append(c.dropBoxes, f.track.base)
		}
	}
	x.commitJournal(&c)
	x.commitTombs(&c)
	if before+len(x.fresh)+len(c.putBoxes)+len(c.dropBoxes)+len(c.putIntents)+len(c.dropIntents)+len(c.tombs) == 0 {
		return nil
	}
	return x.apply(c, nil)
}

// endedHolds are the holds that nothing waits for any more. A deletion that was
// approved and not confirmed still does: it goes on in the next pass.
func (x *exec) endedHolds() []string {
	waits := make(map[string]bool)
	for _, e := range x.p.entries {
		if e.unplaced && e.old != nil && e.old.half == held {
			waits[e.old.hold] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(x.p.endHolds), func(id string) bool { return waits[id] })
}

// renameHolds lets holds follow their folders.
func (x *exec) renameHolds(c *change, renamed map[string]string) {
	if len(renamed) == 0 {
		return
	}
	list := slices.Clone(c.putHolds)
	for _, h := range x.r.img.holds {
		if renamed[h.Folder] != "" && !slices.Contains(c.dropHolds, h.ID) {
			list = append(list, h)
		}
	}
	for i := range list {
		if name := renamed[list[i].Folder]; name != "" {
			list[i].Folder = name
		}
	}
	c.putHolds = list
}

// commitBox writes cursors: only as far as everything was dealt with.
func (x *exec) commitBox(c *change, t *track) {
	final, planned := x.p.final[t]
	if t.blocked || !planned || t.base == nil && !t.both() || slices.Contains(x.p.dropped, t) {
		return
	}
	box := x.home(c, t)
	old := *box
	if t.both() && t.name[A] == final && t.name[B] == final {
		box.Name = final
	}
	for s := range box.Cursor {
		switch {
		case t.name[s] == "":
		case x.created[t] != nil && t.box[s].Name == "":
			x.found(c, t)
		case t.failed[s]:
			if x.p.reset[t] {
				box.Cursor[s], box.Vacant[s] = rewound(t.cursor(Side(s)).Validity), false
			}
		default:
			box.Cursor[s], box.Vacant[s] = t.cursor(Side(s)), false
		}
		if x.p.reset[t] && t.name[s] != "" {
			box.Doubt[s] = false
		}
		if t.box[s].Name != "" && t.box[s].ID != "" {
			box.MailboxID[s] = t.box[s].ID
		}
	}
	if want, ok := x.p.subbed[t]; ok && !t.failed[A] {
		box.Subscribed = want
	}
	box.Use = t.use()
	if old.Name != box.Name || old.Cursor != box.Cursor || old.Vacant != box.Vacant || old.Doubt != box.Doubt || old.MailboxID != box.MailboxID || old.Subscribed != box.Subscribed || old.Use != box.Use {
		if !slices.Contains(c.putBoxes, box) {
			c.putBoxes = append(c.putBoxes, box)
		}
	}
}

// commitJournal forgets what was confirmed and keeps the rest.
func (x *exec) commitJournal(c *change) {
	if len(x.intents) == 0 {
		c.dropIntents = append(c.dropIntents, x.settled()...)
		return
	}
	for _, in := range x.intents {
		c.dropIntents = append(c.dropIntents, in.seq)
	}
	type key struct {
		side Side
		box  string
		uid  uint32
	}
	open := make(map[key]bool)
	for _, st := range x.p.appends {
		if !st.done && !st.void {
			open[key{st.to, x.nameOf(st.src, st.to.Other()), uint32(st.uid)}] = true
		}
	}
	for _, st := range x.p.copies {
		if !st.done && !st.void {
			open[key{st.side, x.nameOf(st.to, st.side.Other()), uint32(st.e.next.uid[st.side.Other()])}] = true
		}
	}
	for _, st := range x.p.flags {
		if !st.done && st.e.next != nil {
			open[key{st.side, x.nameOf(st.e.home, st.side.Other()), uint32(st.e.next.uid[st.side])}] = true
		}
	}
	moves := false
	for _, st := range x.p.moves {
		moves = moves || !st.done
	}
	for _, in := range x.intents {
		left := *in
		left.Entries = nil
		for _, e := range in.Entries {
			if open[key{in.Side, in.Source, uint32(e.UID)}] && (in.Kind == "append" || in.Kind == "copy" || in.Kind == "flag") || in.Kind == "move" && moves {
				left.Entries = append(left.Entries, e)
			}
		}
		if len(left.Entries) > 0 {
			c.putIntents = append(c.putIntents, &left)
		}
	}
}

func (x *exec) commitTombs(c *change) {
	for _, d := range x.p.deletes {
		if d.done && d.e.old != nil {
			c.tombs = append(c.tombs, tomb{
				Side: d.side, Box: d.track.label(), Key: d.e.old.key.String(), Size: d.e.old.size, When: x.r.a.deps.Now().UTC().Truncate(time.Second),
			})
		}
	}
}

// describe puts a plan into words.
func (r *runner) describe(p *plan) {
	say := func(format string, args ...any) {
		r.report.Actions = append(r.report.Actions, fmt.Sprintf(format, args...))
	}
	for _, f := range p.folders {
		if f.c.Op == RenameFolder {
			say("%s: rename folder %q to %q", f.side, f.c.Name, f.c.To)
		} else {
			say("%s: create folder %q", f.side, f.c.Name)
		}
	}
	for _, st := range p.copies {
		say("%s: copy UID %d from %q to %q", st.side, st.uid, st.from.label(), st.to.label())
	}
	for _, st := range p.moves {
		say("%s: move UID %d from %q to %q", st.side, st.uid, st.from.label(), st.to.label())
	}
	for _, st := range p.flags {
		say("%s: flags of UID %d in %q: +(%s) -(%s)", st.side, st.e.next.uid[st.side], st.e.home.label(), st.add, st.remove)
	}
	for _, st := range p.appends {
		say("%s: copy UID %d of side %s into %q (%d bytes)", st.to, st.uid, st.to.Other(), st.dst.label(), st.m.Size)
	}
	for _, d := range p.deletes {
		say("%s: delete UID %d of %q", d.side, d.uid, d.track.label())
	}
	for _, f := range p.removals {
		say("%s: delete folder %q", f.side, f.c.Name)
	}
	for _, f := range p.subs {
		say("%s: subscription of %q changes", f.side, f.c.Name)
	}
	for _, h := range p.newHolds {
		say("%s: hold %d deletions in %q: %s", h.Side, h.Messages, h.Folder, h.Reason)
	}
	r.report.Paired = p.paired
}
