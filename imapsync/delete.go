package imapsync

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// quarantineBox keeps deleted messages where the configuration wants that.
const quarantineBox = HiddenPrefix + "-deleted"

// deletes carries deletions out, or moves the messages into quarantine.
func (x *exec) deletes(ctx context.Context, s Side) error {
	type kind struct {
		t     *track
		since uint64
	}
	groups := make(map[kind][]*deleteStep)
	var order []kind
	for _, d := range x.p.deletes {
		if d.side != s || d.track.name[s] == "" {
			continue
		}
		k := kind{d.track, d.since}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], d)
	}
	if len(order) == 0 {
		return nil
	}
	picks := make([]Pick, len(order))
	for i, k := range order {
		slices.SortFunc(groups[k], func(a, b *deleteStep) int { return int(int64(a.uid) - int64(b.uid)) })
		uids := make([]imap.UID, len(groups[k]))
		for j, d := range groups[k] {
			uids[j] = d.uid
		}
		picks[i] = x.pick(k.t, s, uids)
	}
	if x.r.a.cfg.Quarantine > 0 {
		var steps [][]*deleteStep
		for _, k := range order {
			steps = append(steps, groups[k])
		}
		return x.quarantine(ctx, s, steps, picks)
	}
	rs := make([]Removal, len(order))
	for i, k := range order {
		rs[i] = Removal{Pick: picks[i], UnchangedSince: k.since}
	}
	outs, err := x.r.stores[s].Expunge(ctx, rs)
	for i, k := range order {
		if i >= len(outs) {
			break
		}
		if e := outs[i].Err; e != nil {
			if !known(e) {
				err = errors.Join(err, e)
			} else {
				x.fault(s, k.t, 0, e)
			}
			continue
		}
		x.removed(s, k.t, groups[k], outs[i])
	}
	return err
}

func (x *exec) removed(s Side, t *track, steps []*deleteStep, out Outcome) {
	if len(out.Marked) > 0 {
		x.r.mu.Lock()
		x.r.report.Faults = append(x.r.report.Faults, Fault{
			Side: s, Folder: t.label(), Kind: "no-uidplus",
			Text: fmt.Sprintf("%d deleted messages stay marked \\Deleted: the server cannot expunge single messages", len(out.Marked)),
		})
		x.r.mu.Unlock()
	}
	for _, d := range steps {
		if slices.Contains(out.Modified, d.uid) {
			x.r.mu.Lock()
			x.r.again = true
			x.r.mu.Unlock()
			continue
		}
		d.done = true
		if slices.Contains(out.Marked, d.uid) {
			next := *d.e.old
			next.half, next.uid[s.Other()] = dead, 0
			d.e.next = &next
			d.e.final[s] = next.flags[s].Union(NewFlags(imap.FlagDeleted))
			d.e.final[s.Other()] = d.e.final[s]
		}
		x.count(s, func(r *SideReport) { r.Deleted++ })
	}
	x.r.tell(func(p *Progress) { p.Del += len(steps) })
}

// quarantine moves instead of expunging.
func (x *exec) quarantine(ctx context.Context, s Side, steps [][]*deleteStep, picks []Pick) error {
	there := false
	for _, b := range x.r.list[s].Boxes {
		there = there || b.Name == quarantineBox
	}
	if !there {
		if err := x.r.createHidden(ctx, s, quarantineBox); err != nil {
			return err
		}
	}
	ts := make([]Transfer, len(picks))
	for i, p := range picks {
		ts[i] = Transfer{From: p, To: quarantineBox, Move: true}
	}
	results, err := x.r.stores[s].Transfer(ctx, ts)
	for i := range min(len(results), len(steps)) {
		for j, d := range steps[i] {
			if j >= len(results[i]) {
				break
			}
			e := results[i][j].Err
			switch {
			case e == nil, errors.Is(e, ErrGone):
				d.done = true
				x.count(s, func(r *SideReport) { r.Deleted++ })
			case known(e):
				x.fault(s, d.track, d.uid, e)
			default:
				err = errors.Join(err, e)
			}
		}
	}
	return err
}

// tidyQuarantine expunges what has been in quarantine for long enough. When a
// message came is known from how far UIDNEXT was at which time.
func (r *runner) tidyQuarantine(ctx context.Context) error {
	now := r.a.deps.Now()
	keep := r.a.cfg.Quarantine
	for _, s := range []Side{A, B} {
		var box *Box
		for i := range r.list[s].Boxes {
			if r.list[s].Boxes[i].Name == quarantineBox {
				box = &r.list[s].Boxes[i]
			}
		}
		if box == nil || keep == 0 {
			continue
		}
		m := &r.img.meta
		stamps := slices.DeleteFunc(slices.Clone(m.Stamps[s]), func(st stamp) bool { return st.Validity != box.Cursor.Validity })
		var expired imap.UID
		for len(stamps) > 0 && now.Sub(stamps[0].At) >= keep {
			expired = stamps[0].Next
			stamps = stamps[1:]
		}
		if len(stamps) == 0 && box.Cursor.Next > max(expired, 1) || len(stamps) > 0 && stamps[len(stamps)-1].Next != box.Cursor.Next {
			stamps = append(stamps, stamp{At: now, Validity: box.Cursor.Validity, Next: box.Cursor.Next})
		}
		if expired > 1 && box.Cursor.Messages > 0 {
			if err := r.expungeBelow(ctx, s, box, expired); err != nil {
				return fmt.Errorf("side %s: tidy quarantine: %w", s, err)
			}
		}
		if !slices.Equal(stamps, m.Stamps[s]) {
			m.Stamps[s] = stamps
			if err := r.a.db.apply(change{meta: m}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) expungeBelow(ctx context.Context, s Side, box *Box, below imap.UID) error {
	deltas, err := r.stores[s].Changes(ctx, []Since{{Box: box.Name}})
	if err != nil || len(deltas) != 1 || deltas[0].Err != nil {
		return err
	}
	var uids []imap.UID
	for _, m := range deltas[0].Messages {
		if m.UID < below {
			uids = append(uids, m.UID)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	_, err = r.stores[s].Expunge(ctx, []Removal{{Pick: Pick{Box: box.Name, Validity: deltas[0].Cursor.Validity, UIDs: uids}}})
	return err
}
