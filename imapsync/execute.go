package imapsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// exec carries one plan out. Steps mark themselves done; what is not done when it
// commits stays in the base as it was.
type exec struct {
	r       *runner
	p       *plan
	tracks  []*track
	created map[*track]*[2]Cursor // folders made by this plan; zero until known
	intents []*intent
	fresh   []*baseBox // folders that the base does not have yet
	done    int
}

// execute acts, and always commits what was confirmed, also when a store failed.
func (r *runner) execute(ctx context.Context, tracks []*track, p *plan) (int, error) {
	x := &exec{r: r, p: p, tracks: tracks, created: make(map[*track]*[2]Cursor)}
	var err error
	if p.steps() > 0 {
		if err = r.claim(ctx); err != nil {
			return 0, err
		}
		err = x.phases(ctx)
	} else if err = r.tidyQuarantine(ctx); err != nil {
		return 0, err
	}
	r.tell(func(p *Progress) { p.Phase = "commit" })
	if saveErr := x.commit(); saveErr != nil {
		return x.done, errors.Join(err, saveErr)
	}
	return x.done, err
}

func (x *exec) phases(ctx context.Context) error {
	for _, phase := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"journal", func(context.Context) error { return x.vacate() }},
		{"folders", func(ctx context.Context) error { return x.bothSides(ctx, x.folders) }},
		{"journal", func(context.Context) error { return x.journal() }},
		{"move", func(ctx context.Context) error { return x.bothSides(ctx, x.transfers) }},
		{"flags", func(ctx context.Context) error { return x.bothSides(ctx, x.flags) }},
		{"copy", x.appends},
		{"delete", func(ctx context.Context) error { return x.bothSides(ctx, x.deletes) }},
		{"folders", func(ctx context.Context) error { return x.bothSides(ctx, x.lastFolders) }},
	} {
		if err := x.r.claim(ctx); err != nil {
			return err
		}
		x.r.tell(func(p *Progress) { p.Phase = phase.name })
		if err := phase.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	return nil
}

// bothSides runs one phase on both sides at once; one that fails does not stop the
// other in the middle of a command.
func (x *exec) bothSides(ctx context.Context, f func(context.Context, Side) error) error {
	errs := make(chan error, 1)
	go func() { errs <- f(ctx, B) }()
	err := f(ctx, A)
	if err != nil {
		err = fmt.Errorf("side a: %w", err)
	}
	if other := <-errs; other != nil {
		err = errors.Join(err, fmt.Errorf("side b: %w", other))
	}
	return err
}

// known says that an error is a clear answer about one thing.
func known(err error) bool {
	for _, s := range []error{ErrNoBox, ErrBoxExists, ErrNotEmpty, ErrReplaced, ErrNoAccess, ErrOverQuota, ErrTooBig, ErrRefused, ErrBadBody, ErrNoName, ErrGone} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// fault reports what a server refused. What only changed meanwhile is no fault: the
// next round looks again.
func (x *exec) fault(s Side, t *track, uid imap.UID, err error) {
	kind := ""
	switch {
	case errors.Is(err, ErrReplaced), errors.Is(err, ErrGone), errors.Is(err, ErrNoBox), errors.Is(err, ErrBoxExists), errors.Is(err, ErrNotEmpty):
		x.r.mu.Lock()
		x.r.again = true
		x.r.mu.Unlock()
		return
	case errors.Is(err, ErrOverQuota):
		kind = "over-quota"
	case errors.Is(err, ErrTooBig):
		kind = "too-big"
	case errors.Is(err, ErrNoAccess):
		kind = "no-access"
	case errors.Is(err, ErrNoName):
		kind = "name"
	case errors.Is(err, ErrBadBody):
		kind = "bad-body"
	default:
		kind = "refused"
	}
	f := Fault{Side: s, Folder: t.label(), UID: uid, Kind: kind, Text: err.Error()}
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	for _, have := range x.r.report.Faults {
		if have.Side == f.Side && have.Folder == f.Folder && have.Kind == f.Kind && kind == "over-quota" {
			return
		}
	}
	x.r.report.Faults = append(x.r.report.Faults, f)
}

// count notes a change that was confirmed.
func (x *exec) count(s Side, f func(*SideReport)) {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	f(&x.r.report.Sides[s])
	x.done++
}

// folders renames and creates.
func (x *exec) folders(ctx context.Context, s Side) error {
	var steps []*folderStep
	var cs []FolderChange
	var twin uint32
	for i := range x.p.folders {
		if f := &x.p.folders[i]; f.side == s {
			steps, cs = append(steps, f), append(cs, f.c)
			if f.c.Op == CreateFolder {
				twin = max(twin, f.twin)
			}
		}
	}
	if len(cs) == 0 {
		return nil
	}
	if !x.r.a.cfg.SharedValidity {
		if err := x.awaitValidity(ctx, twin); err != nil {
			return err
		}
	}
	errs, err := x.r.stores[s].Folders(ctx, cs)
	for i, f := range steps {
		if i >= len(errs) {
			break
		}
		if errs[i] != nil {
			if !known(errs[i]) {
				err = errors.Join(err, errs[i])
			} else {
				x.fault(s, f.track, 0, errs[i])
				if f.c.Op == RenameFolder && f.track.base != nil {
					x.r.mu.Lock()
					x.r.noRename[f.track.base.Name], x.r.again = true, true
					x.r.mu.Unlock()
				}
			}
			continue
		}
		f.done = true
		x.count(s, func(r *SideReport) {
			if f.c.Op == CreateFolder {
				r.FoldersCreated++
			} else {
				r.FoldersRenamed++
			}
		})
	}
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	for _, f := range steps {
		if !f.done {
			continue
		}
		f.track.name[s] = f.c.Name
		if f.c.Op == CreateFolder {
			if x.created[f.track] == nil {
				x.created[f.track] = new([2]Cursor)
			}
			continue
		}
		f.track.name[s] = f.c.To
		for _, t := range x.tracks { // children come along
			if rest, below := strings.CutPrefix(t.name[s], f.c.Name+"/"); below {
				t.name[s] = f.c.To + "/" + rest
			}
		}
	}
	return err
}

// awaitValidity keeps a new folder from getting the UIDVALIDITY that its twin got
// this very second: many servers take it from the clock.
func (x *exec) awaitValidity(ctx context.Context, twin uint32) error {
	now := x.r.a.deps.Now()
	until := time.Unix(int64(twin)+1, 0)
	if d := until.Sub(now); d > 0 && d <= 2*time.Second {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	return nil
}

// pick names messages as they are on a side now.
func (x *exec) pick(t *track, s Side, uids []imap.UID) Pick {
	return Pick{Box: t.name[s], Validity: x.validity(t, s), UIDs: uids}
}

func (x *exec) validity(t *track, s Side) uint32 {
	if c := x.created[t]; c != nil && t.box[s].Name == "" {
		return c[s].Validity
	}
	return t.cursor(s).Validity
}

// transfers copies, then moves, inside one side.
func (x *exec) transfers(ctx context.Context, s Side) error {
	for _, list := range [][]*transferStep{x.p.copies, x.p.moves} {
		type route struct{ from, to *track }
		groups := make(map[route][]*transferStep)
		var order []route
		for _, st := range list {
			if st.side != s || st.from.name[s] == "" || st.to.name[s] == "" {
				continue
			}
			k := route{st.from, st.to}
			if groups[k] == nil {
				order = append(order, k)
			}
			groups[k] = append(groups[k], st)
		}
		var ts []Transfer
		for _, k := range order {
			slices.SortFunc(groups[k], func(a, b *transferStep) int { return int(int64(a.uid) - int64(b.uid)) })
			uids := make([]imap.UID, len(groups[k]))
			for i, st := range groups[k] {
				uids[i] = st.uid
			}
			ts = append(ts, Transfer{From: x.pick(k.from, s, slices.Compact(uids)), To: k.to.name[s], Move: groups[k][0].move})
		}
		if len(ts) == 0 {
			continue
		}
		results, err := x.r.stores[s].Transfer(ctx, ts)
		for i, k := range order {
			if i >= len(results) {
				break
			}
			at := make(map[imap.UID]Stored)
			for j, res := range results[i] {
				if j < len(ts[i].From.UIDs) {
					at[ts[i].From.UIDs[j]] = res
				}
			}
			used := make(map[imap.UID]bool)
			for _, st := range groups[k] {
				res, ok := at[st.uid]
				if !ok || used[st.uid] { // one copy a source and call; the next round makes another
					continue
				}
				used[st.uid] = true
				err = errors.Join(err, x.transferred(st, res))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *exec) transferred(st *transferStep, res Stored) error {
	switch {
	case res.Err != nil && !known(res.Err):
		return res.Err
	case res.Err != nil:
		x.fault(st.side, st.from, st.uid, res.Err)
		return nil //nolint:nilerr // it is in the report; the pass goes on
	}
	x.count(st.side, func(r *SideReport) {
		if st.move {
			r.Moved++
		} else {
			r.Copied++
		}
	})
	x.r.tell(func(p *Progress) { p.Moved++ })
	if res.UID == 0 {
		return nil // it is somewhere: the next round finds it
	}
	st.e.next.uid[st.side] = res.UID
	st.done = true
	x.setValidity(st.to, st.side, res.Validity)
	return nil
}

func (x *exec) setValidity(t *track, s Side, validity uint32) {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	if c := x.created[t]; c != nil && t.box[s].Name == "" && c[s].Validity == 0 {
		c[s] = rewound(validity)
	}
}

// flags sends each kind of change once a folder.
func (x *exec) flags(ctx context.Context, s Side) error {
	type kind struct {
		t           *track
		add, remove string
		since       uint64
	}
	groups := make(map[kind][]*flagStep)
	var order []kind
	for _, st := range x.p.flags {
		if st.side != s || st.e.next == nil || st.e.next.uid[s] == 0 || st.e.home.name[s] == "" || x.waiting(st.e) {
			continue
		}
		k := kind{st.e.home, st.add.String(), st.remove.String(), st.since}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], st)
	}
	if len(order) == 0 {
		return nil
	}
	cs := make([]FlagChange, 0, len(order))
	for _, k := range order {
		uids := make([]imap.UID, 0, len(groups[k]))
		for _, st := range groups[k] {
			uids = append(uids, st.e.next.uid[s])
		}
		slices.Sort(uids)
		cs = append(cs, FlagChange{Pick: x.pick(k.t, s, uids), Add: groups[k][0].add, Remove: groups[k][0].remove, UnchangedSince: k.since})
	}
	outs, err := x.r.stores[s].SetFlags(ctx, cs)
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
		if len(outs[i].Modified)+len(outs[i].Missed) > 0 {
			x.r.mu.Lock()
			x.r.again = true
			x.r.mu.Unlock()
		}
		for _, st := range groups[k] {
			if u := st.e.next.uid[s]; !slices.Contains(outs[i].Modified, u) && !slices.Contains(outs[i].Missed, u) {
				st.done = true
				x.count(s, func(r *SideReport) { r.FlagChanges++ })
			}
		}
		x.r.tell(func(p *Progress) { p.Flags += len(groups[k]) })
	}
	return err
}

// waiting says that a move of the message has not been confirmed, so its UID is an old one.
func (x *exec) waiting(e *entry) bool {
	for _, st := range x.p.moves {
		if st.e == e && !st.done {
			return true
		}
	}
	return false
}

// lastFolders deletes empty folders and changes subscriptions.
func (x *exec) lastFolders(ctx context.Context, s Side) error {
	var steps []*folderStep
	var cs []FolderChange
	for _, list := range [][]folderStep{x.p.removals, x.p.subs} {
		for i := range list {
			f := &list[i]
			if f.side != s || f.c.Op != DeleteFolder && f.track.name[s] == "" {
				continue
			}
			steps, cs = append(steps, f), append(cs, f.c)
		}
	}
	if len(cs) == 0 {
		return nil
	}
	errs, err := x.r.stores[s].Folders(ctx, cs)
	for i, f := range steps {
		if i >= len(errs) {
			break
		}
		if e := errs[i]; e != nil && f.c.Op == DeleteFolder && (errors.Is(e, ErrNotEmpty) || errors.Is(e, ErrNoBox)) {
			// Mail came meanwhile, or it has children: it stays, and is new to the other side.
			f.done = true
			x.count(s, func(*SideReport) {})
			continue
		} else if e != nil {
			if !known(e) {
				err = errors.Join(err, e)
			} else {
				x.fault(s, f.track, 0, e)
			}
			continue
		}
		f.done = true
		x.count(s, func(r *SideReport) {
			if f.c.Op == DeleteFolder {
				r.FoldersDeleted++
			} else {
				r.Subscriptions++
			}
		})
	}
	return err
}
