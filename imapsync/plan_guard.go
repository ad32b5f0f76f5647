package imapsync

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// The states of a hold.
const (
	holdWaiting  = "waiting"
	holdApproved = "approved"
	holdRejected = "rejected"
)

type guardKey struct {
	t    *track
	side Side
}

// guard holds large deletions: they are taken out of the plan and wait for a person.
func (pl *planner) guard() {
	g := pl.in.cfg.guard
	groups := make(map[guardKey][]*deleteStep)
	var order []guardKey
	account := 0
	for _, d := range pl.p.deletes {
		if d.approved || slices.Contains(g.Exempt, d.track.use()) {
			continue
		}
		k := guardKey{d.track, d.side}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], d)
		account++
	}
	wholeAccount := !g.Off && account > max(g.Messages, pl.in.total*g.AccountPercent/100)
	hold := make(map[*deleteStep]string)
	for _, k := range order {
		if g.Off {
			break
		}
		reason := pl.holdReason(k, len(groups[k]))
		if reason == "" && wholeAccount {
			reason = fmt.Sprintf("%d deletions in the account, more than %d %% of its %d messages", account, g.AccountPercent, pl.in.total)
		}
		if reason == "" {
			continue
		}
		h := Hold{
			ID: holdID(k, groups[k]), Side: k.side, Folder: k.t.label(), Messages: len(groups[k]), Of: k.t.base.Pairs, Reason: reason,
			Created: pl.in.now, Expires: pl.in.now.Add(g.Expire), State: holdWaiting,
		}
		pl.p.newHolds = append(pl.p.newHolds, h)
		for _, d := range groups[k] {
			hold[d] = h.ID
		}
	}
	pl.p.deletes = slices.DeleteFunc(pl.p.deletes, func(d *deleteStep) bool {
		id, ok := hold[d]
		if !ok {
			return false
		}
		next := *d.e.old
		next.half, next.hold = held, id
		next.uid[d.side.Other()] = 0
		d.e.next, d.e.final = &next, next.flags
		return true
	})
	pl.endHolds()
}

func (pl *planner) holdReason(k guardKey, n int) string {
	g, of, s := pl.in.cfg.guard, k.t.base.Pairs, k.side.Other()
	switch {
	case k.t.name[s] == "":
		return fmt.Sprintf("the folder was deleted with %d messages in it", n)
	case g.Emptied > 0 && of >= g.Emptied && k.t.cursor(s).Messages == 0:
		return fmt.Sprintf("the folder is empty, it had %d messages", of)
	case n > max(g.Messages, of*g.BoxPercent/100):
		return fmt.Sprintf("%d of %d messages were deleted, more than %d %%", n, of, g.BoxPercent)
	}
	return ""
}

// holdID is short and the same for the same deletions.
func holdID(k guardKey, list []*deleteStep) string {
	b := fmt.Appendf(nil, "%s %s", k.t.label(), k.side)
	for _, d := range list {
		b = fmt.Appendf(b, " %d/%d", d.track.cursor(d.side).Validity, d.uid)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:4])
}

// endHolds closes holds that nothing waits for any more.
func (pl *planner) endHolds() {
	used := make(map[string]bool)
	for _, e := range pl.p.entries {
		if e.next != nil && e.next.half == held {
			used[e.next.hold] = true
		}
	}
	read := make(map[string]bool)
	for _, t := range pl.in.tracks {
		if t.base != nil && t.base.loaded && !t.blocked {
			read[t.base.Name] = true
		}
	}
	for id, h := range pl.in.holds {
		if read[h.Folder] && !used[id] {
			pl.p.endHolds = append(pl.p.endHolds, id)
		}
	}
	slices.Sort(pl.p.endHolds)
}
