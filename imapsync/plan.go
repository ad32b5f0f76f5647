package imapsync

import (
	"time"

	"github.com/emersion/go-imap/v2"
)

// planInput is everything a decision depends on. There is nothing else: no clock,
// no network, no disk.
type planInput struct {
	cfg     planConfig
	now     time.Time
	tracks  []*track
	intents []intent
	holds   map[string]Hold
	// elsewhere are pairs of folders that were not read, by the identity of messages
	// that are new; their tracks by the id of the box.
	elsewhere [2][]*pair
	byBox     map[uint64]*track
	limit     [2]int64 // largest message a side takes; 0: not known
	total     int      // pairs in the account
	bodies    [2]map[place]digest
}

type planConfig struct {
	guard          GuardConfig
	prefer         Side
	keep           Flags
	retry          time.Duration
	sharedValidity bool
}

// newcomer is a message without a pair.
type newcomer struct {
	track *track
	side  Side
	m     Message
	taken bool
}

// item is a pair and what became of it.
type item struct {
	pair  *pair // as in the base; id 0: adopted from the journal, not there yet
	track *track
	uid   [2]imap.UID // where it still is, in track
	cur   [2]Flags
	gone  [2]bool
	loc   [2]*newcomer // where it went on that side
	gid   [2]string
	dirty bool // something to save, even without a step
}

// entry is what the base will say of one message when its steps have been confirmed.
type entry struct {
	old   *pair
	next  *pair // nil: nothing
	home  *track
	final [2]Flags // the flags of next, once all steps are confirmed
	// unplaced: a copy, move or deletion was not confirmed, the base keeps old.
	// unflagged: flags were not, next is saved with the flags agreed on before.
	unplaced, unflagged bool
	saved               bool
}

// transferStep copies or moves inside one side.
type transferStep struct {
	side     Side
	from, to *track
	uid      imap.UID
	move     bool
	e        *entry
	done     bool
	void     bool // certainly did not happen
}

// flagStep changes flags.
type flagStep struct {
	side        Side
	e           *entry
	add, remove Flags
	since       uint64
	done        bool
}

// appendStep copies a message from the other side.
type appendStep struct {
	to       Side
	src      *track
	uid      imap.UID
	dst      *track
	flags    Flags
	m        Message
	e        *entry
	replaces bool // the source is paired already; its other half was deleted
	done     bool
	void     bool // certainly did not happen
}

// deleteStep deletes a message.
type deleteStep struct {
	side     Side
	track    *track
	uid      imap.UID
	since    uint64
	approved bool
	e        *entry
	done     bool
}

// folderStep changes the folder tree of one side.
type folderStep struct {
	side  Side
	c     FolderChange
	track *track
	// twin, for CreateFolder: UIDVALIDITY of the other side, which the new folder must not get.
	twin uint32
	done bool
}

// plan is what has to be done, in the order of its fields.
type plan struct {
	bodies    [2]map[place]uint32 // UIDVALIDITY of bodies to read before planning again
	need      [2][]Pick           // content keys that are missing: describe them and plan again
	folders   []folderStep
	copies    []*transferStep
	moves     []*transferStep
	flags     []*flagStep
	appends   []*appendStep
	deletes   []*deleteStep
	removals  []folderStep // folders that are empty by now
	subs      []folderStep
	entries   []*entry
	newHolds  []Hold
	endHolds  []string
	conflicts []Conflict
	faults    []Fault
	paired    int
	reset     map[*track]bool // paired from scratch
	adopted   []*item         // pairs out of the journal: saved before anything is done
	dropped   []*track        // folders that neither side has any more
	final     map[*track]string
	subbed    map[*track]bool
}

// lacks says that something has to be read before there can be a plan.
func (p *plan) lacks() bool {
	return len(p.need[A])+len(p.need[B])+len(p.bodies[A])+len(p.bodies[B]) > 0
}

// steps counts what would be changed on the servers.
func (p *plan) steps() int {
	return len(p.folders) + len(p.copies) + len(p.moves) + len(p.flags) + len(p.appends) + len(p.deletes) + len(p.removals) + len(p.subs)
}

// planner holds what the parts of the decision share.
type planner struct {
	in    planInput
	p     *plan
	needs map[*track]*[2]bool // folders that have to exist for a step
}

// newPlan decides. It is pure: the same input gives the same plan.
//
//	A            B            result
//	-----------  -----------  ------------------------------------------------
//	there        there        flags: base + added - removed
//	moved to X   there        B moves it to X
//	moved to X   moved to X   nothing
//	moved to X   moved to Y   the preferred side wins, one copy
//	moved to X   deleted      B gets it again, in X
//	there        deleted      deleted, unless A added a flag that keeps it
//	deleted      deleted      nothing
//	new          -            B gets it: by COPY where B has it elsewhere
//	new          new, equal   paired
func newPlan(in planInput) *plan {
	pl := &planner{in: in, needs: make(map[*track]*[2]bool), p: &plan{
		reset: make(map[*track]bool), final: make(map[*track]string), subbed: make(map[*track]bool),
	}}
	for _, t := range in.tracks {
		pl.ingest(t)
	}
	if !in.cfg.sharedValidity {
		for _, t := range in.tracks {
			pl.checkValidity(t)
		}
	}
	for _, i := range in.intents {
		pl.adopt(i)
	}
	for _, i := range in.intents {
		pl.adoptMoved(i)
		pl.adoptFlags(i)
	}
	pl.findMoves(A)
	pl.findMoves(B)
	for _, t := range in.tracks {
		if t.blocked {
			continue
		}
		for _, it := range t.items {
			pl.decide(it)
		}
	}
	for _, t := range in.tracks {
		if !t.blocked {
			pl.pairFresh(t)
		}
	}
	if pl.p.lacks() {
		return pl.p
	}
	sources := pl.copySources()
	for _, t := range in.tracks {
		if t.blocked {
			continue
		}
		pl.spread(t, A, sources)
		pl.spread(t, B, sources)
	}
	pl.guard()
	for _, t := range in.tracks {
		if !t.blocked {
			pl.folder(t)
		}
	}
	pl.orderFolders()
	return pl.p
}

// ingest turns what was read of a folder into items and newcomers.
func (pl *planner) ingest(t *track) {
	t.items, t.fresh, t.blocked = nil, [2][]*newcomer{}, false
	for s := range t.delta {
		if d := t.delta[s]; d != nil && d.Err != nil {
			t.blocked = true
			pl.p.faults = append(pl.p.faults, Fault{Side: Side(s), Folder: t.label(), Kind: "unreadable", Text: d.Err.Error()})
		}
	}
	if t.blocked || t.base != nil && !t.base.loaded {
		return
	}
	if t.base == nil {
		for s := range t.delta {
			pl.ingestFresh(t, Side(s), nil)
		}
		pl.p.reset[t] = true
		return
	}
	if t.status[A] == unknown || t.status[B] == unknown {
		pl.startOver(t)
		return
	}
	var at [2]map[imap.UID]*item
	at[A], at[B] = make(map[imap.UID]*item, len(t.base.pairs)), make(map[imap.UID]*item, len(t.base.pairs))
	for _, p := range t.base.pairs {
		it := &item{pair: p, track: t, uid: p.uid, cur: p.flags, gid: p.gid}
		for s := range p.uid {
			if p.uid[s] == 0 || t.status[s] == missing {
				it.gone[s] = true
			} else {
				at[s][p.uid[s]] = it
			}
		}
		t.items = append(t.items, it)
	}
	for s, d := range t.delta {
		if d == nil {
			continue
		}
		for _, u := range d.Vanished {
			if it := at[s][u]; it != nil {
				it.gone[s] = true
			}
		}
		pl.ingestFresh(t, Side(s), at[s])
	}
}

// ingestFresh sorts the messages of a delta into those that are known and new ones.
func (pl *planner) ingestFresh(t *track, s Side, at map[imap.UID]*item) {
	d := t.delta[s]
	if d == nil {
		return
	}
	for _, m := range d.Messages {
		it := at[m.UID]
		if it == nil {
			t.fresh[s] = append(t.fresh[s], &newcomer{track: t, side: s, m: m})
			continue
		}
		if it.gone[s] {
			continue
		}
		it.cur[s] = m.Flags
		if it.gid[s] == "" && m.GID != "" {
			it.gid[s], it.dirty = m.GID, true
		}
	}
}

// startOver forgets the pairs of a folder, but not what is known about the
// messages: they are all new and will find each other by content. Nothing is
// deleted because of it.
func (pl *planner) startOver(t *track) {
	pl.p.reset[t] = true
	for _, p := range t.base.pairs {
		pl.p.entries = append(pl.p.entries, &entry{old: p, home: t})
	}
	for s := range t.delta {
		if t.status[s] != trusted {
			pl.ingestFresh(t, Side(s), nil)
			continue
		}
		vanished := make(map[imap.UID]bool)
		now := make(map[imap.UID]Message)
		twice := make(map[imap.UID]bool) // an earlier attempt may have saved some pairs already
		if d := t.delta[s]; d != nil {
			for _, u := range d.Vanished {
				vanished[u] = true
			}
			for _, m := range d.Messages {
				now[m.UID] = m
			}
		}
		for _, p := range t.base.pairs {
			u := p.uid[s]
			if u == 0 || vanished[u] || twice[u] {
				continue
			}
			twice[u] = true
			m := Message{UID: u, Flags: p.flags[s]}
			if seen, ok := now[u]; ok {
				m = seen
				delete(now, u)
			}
			m.Size, m.Key = p.size, p.key
			if m.GID == "" {
				m.GID = p.gid[s]
			}
			t.fresh[s] = append(t.fresh[s], &newcomer{track: t, side: Side(s), m: m})
		}
		if d := t.delta[s]; d != nil {
			for _, m := range d.Messages {
				if _, left := now[m.UID]; left {
					t.fresh[s] = append(t.fresh[s], &newcomer{track: t, side: Side(s), m: m})
				}
			}
		}
		sortFresh(t.fresh[s])
	}
}

// need says that a folder has to be there on a side.
func (pl *planner) need(t *track, s Side) {
	if pl.needs[t] == nil {
		pl.needs[t] = new([2]bool)
	}
	pl.needs[t][s] = true
}

func (pl *planner) needed(t *track, s Side) bool { return pl.needs[t] != nil && pl.needs[t][s] }

func (pl *planner) conflict(kind string, t *track, uid imap.UID, won Side) {
	pl.p.conflicts = append(pl.p.conflicts, Conflict{Kind: kind, Folder: t.label(), UID: uid, Side: won})
}

func (pl *planner) fault(s Side, t *track, uid imap.UID, kind, text string) {
	pl.p.faults = append(pl.p.faults, Fault{Side: s, Folder: t.label(), UID: uid, Kind: kind, Text: text})
}
