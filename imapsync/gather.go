package imapsync

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sync/errgroup"
)

// round looks at both sides once, decides and acts; it returns how many steps the
// plan had that could be taken.
func (r *runner) round(ctx context.Context) (int, error) {
	img, err := r.a.db.load()
	if err != nil {
		return 0, err
	}
	r.img = img
	if r.report.Rounds == 1 && len(img.intents) > 0 {
		if err := r.letFinish(ctx); err != nil {
			return 0, err
		}
	}
	r.tell(func(p *Progress) { p.Phase = "list" })
	if err := r.listBoth(ctx); err != nil {
		return 0, err
	}
	blank, err := r.judgeMarkers(ctx)
	if err != nil {
		return 0, err
	}
	tracks := matchFolders(r.img.boxes, r.list, r.filter, blank)
	tracks = checkRenames(tracks, r.noRename)
	if len(r.filter.include) > 0 {
		tracks = slices.DeleteFunc(tracks, func(t *track) bool { return !matchAny(r.filter.include, t.label()) })
	}
	r.tell(func(p *Progress) { p.Phase = "compare" })
	if tracks, err = r.gather(ctx, tracks); err != nil {
		return 0, err
	}
	p, err := r.decide(ctx, tracks)
	if err != nil {
		return 0, err
	}
	r.report.Conflicts = append(r.report.Conflicts, p.conflicts...)
	r.report.Faults = append(r.report.Faults, p.faults...)
	if r.opt.DryRun {
		r.describe(p)
		return p.steps(), nil
	}
	r.report.Paired += p.paired
	return r.execute(ctx, tracks, p)
}

// inFlight is how long a server may still work on what a runner had sent it before
// it died.
const inFlight = 2 * time.Second

// letFinish waits where the journal says that an earlier runner did not see an
// answer: what it had sent may be on its way, or in the server's hands, and would
// come to be after this pass had looked. IMAP offers no better way to know.
func (r *runner) letFinish(ctx context.Context) error {
	t := time.NewTimer(r.a.inFlight)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// each runs f for both sides at the same time.
func (r *runner) each(ctx context.Context, f func(ctx context.Context, s Side) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range []Side{A, B} {
		g.Go(func() error {
			if err := f(ctx, s); err != nil {
				return fmt.Errorf("side %s: %w", s, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *runner) listBoth(ctx context.Context) error {
	return r.each(ctx, func(ctx context.Context, s Side) (err error) {
		r.list[s], err = r.stores[s].List(ctx)
		return err
	})
}

// checkRenames takes those apart that cannot be repeated on the other side, because
// the name is taken there or the server refused: the messages are moved instead.
func checkRenames(tracks []*track, noRename map[string]bool) []*track {
	for again := true; again; {
		again = false
		for _, t := range tracks {
			for _, s := range []Side{A, B} {
				if !t.renamed[s] {
					continue
				}
				below := t.name[s.Other()] != "" && strings.HasPrefix(t.name[s], t.name[s.Other()]+"/")
				if below || noRename[t.base.Name] || taken(tracks, t, s.Other(), t.name[s]) {
					tracks, again = split(tracks, t, s), true
				}
			}
		}
	}
	return tracks
}

// taken says that another folder than t has the name on a side.
func taken(tracks []*track, t *track, s Side, name string) bool {
	for _, other := range tracks {
		if other != t && other.name[s] == name {
			return true
		}
	}
	return false
}

// look says whether a folder has to be read on a side.
func (r *runner) look(t *track, s Side) bool {
	switch {
	case t.name[s] == "":
		return false
	case t.base == nil:
		return t.box[s].Cursor.Messages > 0
	}
	c := t.box[s].Cursor
	return t.status[s] == unknown || t.renamed[s] || r.opt.Full || c.ModSeq == 0 || c != t.base.Cursor[s]
}

// gather reads what changed, all folders of both sides, before anything is decided.
func (r *runner) gather(ctx context.Context, tracks []*track) ([]*track, error) {
	read := tracks
	for len(read) > 0 {
		var load []*baseBox
		for _, t := range read {
			if t.base != nil && (r.look(t, A) || r.look(t, B) || t.name[A] == "" || t.name[B] == "" || r.journalled(t) || r.waits(t)) {
				load = append(load, t.base)
			}
		}
		if err := r.a.db.loadPairs(load); err != nil {
			return nil, err
		}
		if err := r.each(ctx, func(ctx context.Context, s Side) error { return r.changes(ctx, s, read) }); err != nil {
			return nil, err
		}
		var err error
		if tracks, read, err = r.verifyRenames(ctx, tracks, read); err != nil {
			return nil, err
		}
	}
	err := r.each(ctx, func(ctx context.Context, s Side) error { return r.confirmAbsent(ctx, s, tracks) })
	return tracks, err
}

// waits says that a hold of the folder may have been decided by now.
func (r *runner) waits(t *track) bool {
	if t.base.Refused > 0 {
		return true // to be reported, or offered again
	}
	for _, h := range r.img.holds {
		if h.Folder == t.base.Name && (h.State != holdWaiting || !r.a.deps.Now().Before(h.Expires)) {
			return true
		}
	}
	return false
}

func (r *runner) journalled(t *track) bool {
	for _, in := range r.img.intents {
		if in.Source == t.base.Name || in.Box == t.base.Name {
			return true
		}
	}
	return false
}

// changes asks one side about the folders that changed there.
func (r *runner) changes(ctx context.Context, s Side, tracks []*track) error {
	var since []Since
	var asked []*track
	lacking := r.lacksGIDs(s, tracks)
	for _, t := range tracks {
		if t.delta[s] != nil || !r.look(t, s) {
			continue
		}
		q := Since{Box: t.name[s], Keys: r.keys(t, s) || lacking}
		if t.base != nil && t.status[s] == trusted {
			q.Cursor = t.base.Cursor[s]
			if r.opt.Full {
				q.Cursor = rewound(q.Cursor.Validity)
			}
			for _, p := range t.base.pairs {
				if p.uid[s] != 0 {
					q.Known = append(q.Known, p.uid[s])
				}
			}
			slices.Sort(q.Known)
		}
		since, asked = append(since, q), append(asked, t)
	}
	if len(since) == 0 {
		return nil
	}
	deltas, err := r.stores[s].Changes(ctx, since)
	if err != nil {
		return err
	}
	if len(deltas) != len(since) {
		return fmt.Errorf("read changes: %d answers to %d questions", len(deltas), len(since))
	}
	for i, t := range asked {
		t.delta[s] = &deltas[i]
		if deltas[i].Err == nil && deltas[i].Cursor.Validity != t.box[s].Cursor.Validity {
			// Replaced between the listing and now: the next round sees it whole.
			t.delta[s].Err = ErrReplaced
			r.mu.Lock()
			r.again = true
			r.mu.Unlock()
		}
	}
	return nil
}

// rewound is a cursor before everything in a folder that is still the same.
func rewound(validity uint32) Cursor {
	if validity == 0 {
		return Cursor{}
	}
	return Cursor{Validity: validity, Next: 1}
}

// lacksGIDs says that pairs can only be followed by content on this side.
func (r *runner) lacksGIDs(s Side, tracks []*track) bool {
	if len(r.img.boxes) == 0 {
		return false
	}
	if !r.list[s].GIDs || len(r.img.intents) > 0 {
		return true
	}
	for _, t := range tracks {
		if t.base == nil {
			continue
		}
		for _, p := range t.base.pairs {
			if p.uid[s] != 0 && p.gid[s] == "" {
				return true
			}
		}
	}
	return false
}

// keys says whether the content of what is new here will be compared.
func (r *runner) keys(t *track, s Side) bool {
	o := s.Other()
	if t.base == nil {
		return t.box[o].Cursor.Messages > 0
	}
	if t.status[s] == unknown || t.status[o] == unknown {
		return t.base.Pairs > 0 || t.box[o].Cursor.Messages > 0
	}
	return t.name[o] != "" && t.box[o].Cursor.Next != t.base.Cursor[o].Next ||
		t.box[A].Cursor.Validity == t.box[B].Cursor.Validity
}

// verifyRenames compares a sample of the messages of each renamed folder with what
// the base knows: UIDVALIDITY alone can be shared by two folders of one second. It
// returns the tracks, and those that have to be read now.
func (r *runner) verifyRenames(ctx context.Context, tracks, read []*track) (all, again []*track, err error) {
	for _, t := range read {
		for _, s := range []Side{A, B} {
			if !t.renamed[s] || t.delta[s] == nil || t.delta[s].Err != nil {
				continue
			}
			ok, err := r.sameFolder(ctx, t, s)
			if err != nil {
				return nil, nil, fmt.Errorf("side %s: %w", s, err)
			}
			if !ok {
				tracks = checkRenames(split(tracks, t, s), r.noRename)
			}
		}
	}
	for _, t := range tracks {
		if r.look(t, A) && t.delta[A] == nil || r.look(t, B) && t.delta[B] == nil {
			again = append(again, t)
		}
	}
	return tracks, again, nil
}

const sampleSize = 20

func (r *runner) sameFolder(ctx context.Context, t *track, s Side) (bool, error) {
	if t.box[s].ID != "" && t.box[s].ID == t.base.MailboxID[s] {
		return true, nil
	}
	known := make(map[imap.UID]*pair)
	for _, p := range t.base.pairs {
		if p.uid[s] != 0 {
			known[p.uid[s]] = p
		}
	}
	for _, u := range t.delta[s].Vanished {
		delete(known, u)
	}
	if len(known) == 0 {
		return t.box[s].Cursor.Next == t.base.Cursor[s].Next, nil
	}
	uids := make([]imap.UID, 0, len(known))
	for u := range known {
		uids = append(uids, u)
	}
	slices.Sort(uids)
	if len(uids) > sampleSize {
		uids = append(uids[:sampleSize/2:sampleSize/2], uids[len(uids)-sampleSize/2:]...)
	}
	lists, err := r.stores[s].Describe(ctx, []Pick{{Box: t.name[s], Validity: t.box[s].Cursor.Validity, UIDs: uids}})
	if err != nil || len(lists) != 1 {
		return false, err
	}
	equal := 0
	for _, m := range lists[0] {
		p := known[m.UID]
		if p != nil && (m.GID != "" && m.GID == p.gid[s] || m.Key.Known() && m.Key == p.key) {
			equal++
		}
	}
	return equal*10 >= len(uids)*8, nil
}

// decide makes the plan, and fetches the content keys it turns out to need.
func (r *runner) decide(ctx context.Context, tracks []*track) (*plan, error) {
	in := planInput{
		cfg: r.a.plan, now: r.a.deps.Now(), tracks: tracks, intents: r.img.intents, holds: make(map[string]Hold),
		byBox: make(map[uint64]*track), limit: [2]int64{r.list[A].LimitBytes, r.list[B].LimitBytes}, total: r.img.total(),
	}
	for _, h := range r.img.holds {
		in.holds[h.ID] = h
	}
	skip := make(map[uint64]bool)
	for _, t := range tracks {
		if t.base != nil {
			in.byBox[t.base.ID] = t
			skip[t.base.ID] = t.base.loaded
		}
	}
	for _, s := range []Side{A, B} {
		want := make(map[string]bool)
		for _, t := range tracks {
			if d := t.delta[s]; d != nil && len(r.img.boxes) > 0 {
				known := make(map[imap.UID]bool)
				if t.base != nil {
					for _, p := range t.base.pairs {
						known[p.uid[s]] = true
					}
				}
				for _, m := range d.Messages {
					if m.GID != "" && !known[m.UID] {
						want[m.GID] = true
					}
				}
			}
		}
		var err error
		if in.elsewhere[s], err = r.a.db.findGIDs(s, want, skip); err != nil {
			return nil, err
		}
	}
	in.bodies = [2]map[place]digest{make(map[place]digest), make(map[place]digest)}
	for range 8 { // keys, then the bodies that they do not tell apart
		p := newPlan(in)
		if !p.lacks() {
			return p, nil
		}
		if err := r.each(ctx, func(ctx context.Context, s Side) error {
			if err := r.fillKeys(ctx, s, p.need[s], tracks); err != nil {
				return err
			}
			return r.fillBodies(ctx, s, p.bodies[s], in.bodies[s])
		}); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("compare messages: %w: a server does not describe its messages", ErrRefused)
}

// fillKeys asks for content keys and puts them into the deltas. A message that is
// gone by now leaves the delta.
func (r *runner) fillKeys(ctx context.Context, s Side, picks []Pick, tracks []*track) error {
	if len(picks) == 0 {
		return nil
	}
	lists, err := r.stores[s].Describe(ctx, picks)
	if err != nil {
		return err
	}
	if len(lists) != len(picks) {
		return fmt.Errorf("describe messages: %d answers to %d questions", len(lists), len(picks))
	}
	r.mu.Lock()
	defer r.mu.Unlock() // pairs belong to both sides
	for i, pick := range picks {
		got := make(map[imap.UID]Message)
		asked := make(map[imap.UID]bool, len(pick.UIDs))
		for _, u := range pick.UIDs {
			asked[u] = true
		}
		for _, m := range lists[i] {
			got[m.UID] = m
		}
		for _, t := range tracks {
			if t.name[s] == pick.Box {
				t.fillKeys(s, asked, got)
			}
		}
	}
	return nil
}

func (t *track) fillKeys(s Side, asked map[imap.UID]bool, got map[imap.UID]Message) {
	if t.base != nil {
		for _, p := range t.base.pairs {
			if d, ok := got[p.uid[s]]; ok && !p.key.Known() {
				p.key, p.size = d.Key, d.Size
			}
		}
	}
	if t.delta[s] == nil {
		return
	}
	t.delta[s].Messages = slices.DeleteFunc(t.delta[s].Messages, func(m Message) bool {
		_, there := got[m.UID]
		return asked[m.UID] && !there
	})
	for j := range t.delta[s].Messages {
		m := &t.delta[s].Messages[j]
		if d, ok := got[m.UID]; ok {
			m.Key, m.Size, m.Date = d.Key, d.Size, d.Date
		}
	}
}
