package imapsync

import (
	"slices"
	"strings"
)

// folder decides what happens to a folder itself.
func (pl *planner) folder(t *track) {
	final := pl.finalName(t)
	pl.p.final[t] = final
	for _, s := range []Side{A, B} {
		if t.name[s] != "" && t.name[s] != final {
			pl.p.folders = append(pl.p.folders, folderStep{side: s, track: t, c: FolderChange{Op: RenameFolder, Name: t.name[s], To: final}})
		}
	}
	absent := A
	switch {
	case t.name[A] == "" && t.name[B] == "":
		if t.status[A] == missing && t.status[B] == missing {
			pl.p.dropped = append(pl.p.dropped, t)
		}
		return
	case t.both():
		pl.subscribe(t, final)
		return
	case t.name[B] == "":
		absent = B
	}
	here := absent.Other()
	create := t.base == nil || t.status[absent] == unknown
	if !create && pl.needed(t, absent) {
		create = true
		pl.conflict("folder-delete-mail", t, 0, here)
	}
	if create {
		c := FolderChange{Op: CreateFolder, Name: final, Use: pl.freeUse(t, absent)}
		pl.p.folders = append(pl.p.folders, folderStep{side: absent, track: t, c: c, twin: t.box[here].Cursor.Validity})
		pl.subscribe(t, final)
		return
	}
	if final == "INBOX" {
		return
	}
	for _, e := range pl.p.entries {
		if e.home == t && e.next != nil {
			return // something is held here
		}
	}
	pl.p.removals = append(pl.p.removals, folderStep{side: here, track: t, c: FolderChange{Op: DeleteFolder, Name: t.name[here]}})
}

// finalName: a rename wins over the name of the base, the preferred side over the other.
func (pl *planner) finalName(t *track) string {
	win := pl.in.cfg.prefer
	switch {
	case t.base == nil:
		return t.label()
	case t.renamed[A] && t.renamed[B] && t.name[A] != t.name[B]:
		pl.conflict("rename-rename", t, 0, win)
		return t.name[win]
	case t.renamed[A]:
		return t.name[A]
	case t.renamed[B]:
		return t.name[B]
	}
	return t.base.Name
}

// freeUse is the special use for a new folder, where that side has no such folder yet.
func (pl *planner) freeUse(t *track, s Side) string {
	use := t.box[s.Other()].Use
	for _, other := range pl.in.tracks {
		if use != "" && other != t && other.box[s].Use == use {
			return ""
		}
	}
	return use
}

// subscribe is three-way; without a base, one subscription is enough.
func (pl *planner) subscribe(t *track, final string) {
	cur := [2]bool{t.box[A].Subscribed, t.box[B].Subscribed}
	want := cur[A] || cur[B]
	if t.base != nil && !pl.p.reset[t] && t.both() {
		was := t.base.Subscribed
		want = was && cur[A] && cur[B] || !was && (cur[A] || cur[B])
	}
	pl.p.subbed[t] = want
	for s, c := range cur {
		if c == want {
			continue
		}
		op := UnsubscribeFolder
		if want {
			op = SubscribeFolder
		}
		pl.p.subs = append(pl.p.subs, folderStep{side: Side(s), track: t, c: FolderChange{Op: op, Name: final}})
	}
}

// orderFolders puts renames before new folders, parents before children (which
// come along with their parent), and deletes children first.
func (pl *planner) orderFolders() {
	depth := func(f folderStep) int { return strings.Count(f.c.Name, "/") }
	var renames, creates []folderStep
	for _, f := range pl.p.folders {
		if f.c.Op == RenameFolder {
			renames = append(renames, f)
		} else {
			creates = append(creates, f)
		}
	}
	slices.SortStableFunc(renames, func(a, b folderStep) int { return depth(a) - depth(b) })
	slices.SortStableFunc(creates, func(a, b folderStep) int { return depth(a) - depth(b) })
	out := make([]folderStep, 0, len(pl.p.folders))
	for _, f := range renames {
		for _, earlier := range out {
			if rest, below := strings.CutPrefix(f.c.Name, earlier.c.Name+"/"); below && earlier.side == f.side {
				f.c.Name = earlier.c.To + "/" + rest
			}
		}
		if f.c.Name != f.c.To {
			out = append(out, f)
		}
	}
	pl.p.folders = append(out, creates...)
	slices.SortStableFunc(pl.p.removals, func(a, b folderStep) int { return depth(b) - depth(a) })
}
