package imapsync

import (
	"fmt"

	"github.com/emersion/go-imap/v2"
)

func untaken(list []*newcomer) []*newcomer {
	out := make([]*newcomer, 0, len(list))
	for _, n := range list {
		if !n.taken {
			out = append(out, n)
		}
	}
	return out
}

// identity is what makes two new messages one: the content key, and the body where
// the key alone does not tell.
type identity struct {
	key  Key
	body digest
}

// identities names what is new in a folder; false: bodies have to be read first.
func (pl *planner) identities(t *track, fresh [2][]*newcomer) (out [2][]identity, ok bool) {
	count := [2]map[Key]int{make(map[Key]int), make(map[Key]int)}
	for s := range fresh {
		for _, n := range fresh[s] {
			count[s][n.m.Key]++
		}
	}
	ok = true
	for s := range fresh {
		out[s] = make([]identity, len(fresh[s]))
		for i, n := range fresh[s] {
			k := n.m.Key
			out[s][i].key = k
			a, b := count[A][k], count[B][k]
			if a > 0 && b > 0 && (a > 1 || b > 1 || k.weak()) {
				d, read := pl.body(t, Side(s), n.m.UID)
				out[s][i].body, ok = d, ok && read
			}
		}
	}
	return out, ok
}

// pairFresh pairs what is new on both sides of a folder by content, as multisets
// in the order of UIDs: three equal messages on one side and two on the other are
// two pairs, and one message to copy.
func (pl *planner) pairFresh(t *track) {
	fresh := [2][]*newcomer{untaken(t.fresh[A]), untaken(t.fresh[B])}
	if len(fresh[A]) == 0 || len(fresh[B]) == 0 || pl.needKeys(t, fresh) {
		return
	}
	ids, ok := pl.identities(t, fresh)
	if !ok {
		return
	}
	equal := make(map[identity][]*newcomer)
	for i, n := range fresh[B] {
		equal[ids[B][i]] = append(equal[ids[B][i]], n)
	}
	can := [2]func(imap.Flag) bool{t.storable(A), t.storable(B)}
	for i, a := range fresh[A] {
		list := equal[ids[A][i]]
		if len(list) == 0 {
			continue
		}
		b := list[0]
		equal[ids[A][i]] = list[1:]
		a.taken, b.taken = true, true
		cur := [2]Flags{a.m.Flags, b.m.Flags}
		p := &pair{uid: [2]imap.UID{a.m.UID, b.m.UID}, flags: cur, size: a.m.Size, key: a.m.Key, gid: [2]string{a.m.GID, b.m.GID}}
		e := &entry{next: p, home: t}
		pl.p.entries = append(pl.p.entries, e)
		pl.p.paired++
		pl.setFlags(e, cur, union(cur), can)
	}
}

// needKeys asks for the content keys that are missing.
func (pl *planner) needKeys(t *track, fresh [2][]*newcomer) bool {
	asked := false
	for s := range fresh {
		var uids []imap.UID
		for _, n := range fresh[s] {
			if !n.m.Key.Known() {
				uids = append(uids, n.m.UID)
			}
		}
		if len(uids) > 0 {
			asked = true
			pl.p.need[s] = append(pl.p.need[s], Pick{Box: t.name[s], Validity: t.cursor(Side(s)).Validity, UIDs: uids})
		}
	}
	return asked
}

// checkValidity blocks a folder that has one UIDVALIDITY on both sides and
// different UIDs: a client that is led to the other site would take one message
// for the other.
func (pl *planner) checkValidity(t *track) {
	if t.blocked || !t.both() || t.cursor(A).Validity != t.cursor(B).Validity || t.cursor(A).Validity == 0 {
		return
	}
	block := func(a, b imap.UID) {
		t.blocked = true
		pl.fault(B, t, a, "same-uidvalidity", fmt.Sprintf("both sides have UIDVALIDITY %d, but UID %d here is UID %d there: "+
			"mail programs would show wrong messages after a failover. Give the folder a new UIDVALIDITY on one side "+
			"(Dovecot: doveadm mailbox update --uid-validity N), or allow it with allow_same_uidvalidity", t.cursor(A).Validity, a, b))
	}
	for _, it := range t.items {
		if it.pair.whole() && !it.gone[A] && !it.gone[B] && it.uid[A] != it.uid[B] {
			block(it.uid[A], it.uid[B])
			return
		}
	}
	if pl.needKeys(t, t.fresh) {
		return
	}
	at := make(map[imap.UID]Key)
	first := make(map[Key]imap.UID)
	for _, n := range t.fresh[B] {
		at[n.m.UID] = n.m.Key
		if first[n.m.Key] == 0 {
			first[n.m.Key] = n.m.UID
		}
	}
	for _, n := range t.fresh[A] {
		key, there := at[n.m.UID]
		if there && key != n.m.Key {
			block(n.m.UID, n.m.UID)
			return
		}
		if u := first[n.m.Key]; u != 0 && !there {
			block(n.m.UID, u)
			return
		}
	}
}

// source is where a side has a message that can be copied.
type source struct {
	track *track
	uid   imap.UID
	flags Flags
	key   Key
}

// copySources lists, by the identity a message has on side s, where the *other*
// side has it.
func (pl *planner) copySources() [2]map[string]source {
	var out [2]map[string]source
	for i := range out {
		s := Side(i)
		o := s.Other()
		out[s] = make(map[string]source)
		for _, t := range pl.in.tracks {
			if t.blocked {
				continue
			}
			for _, it := range t.items {
				if it.gid[s] == "" || !it.pair.whole() {
					continue
				}
				if n := it.loc[o]; n != nil {
					out[s][it.gid[s]] = source{n.track, n.m.UID, n.m.Flags, it.pair.key}
				} else if !it.gone[o] {
					out[s][it.gid[s]] = source{t, it.uid[o], it.cur[o], it.pair.key}
				}
			}
		}
		for _, p := range pl.in.elsewhere[s] {
			t := pl.in.byBox[p.box]
			if _, have := out[s][p.gid[s]]; have || t == nil || t.blocked || t.name[o] == "" || !p.whole() || p.uid[o] == 0 {
				continue
			}
			out[s][p.gid[s]] = source{t, p.uid[o], p.flags[o], p.key}
		}
	}
	return out
}

// spread brings what is new on side s to the other one.
func (pl *planner) spread(t *track, s Side, sources [2]map[string]source) {
	o := s.Other()
	for _, n := range t.fresh[s] {
		if n.taken {
			continue
		}
		n.taken = true
		p := &pair{size: n.m.Size, key: n.m.Key}
		p.uid[s], p.gid[s] = n.m.UID, n.m.GID
		p.flags = [2]Flags{n.m.Flags, n.m.Flags}
		e := &entry{next: p, home: t, final: p.flags}
		pl.p.entries = append(pl.p.entries, e)
		src, ok := sources[s][n.m.GID]
		if n.m.GID == "" || !ok {
			pl.append(t, o, n.m, e, false)
			continue
		}
		// The server copies: no body passes. Flags come along with the source.
		if !p.key.Known() {
			p.key = src.key
		}
		pl.need(t, o)
		pl.p.copies = append(pl.p.copies, &transferStep{side: o, from: src.track, to: t, uid: src.uid, e: e})
		if add, remove := n.m.Flags.Minus(src.flags), src.flags.Minus(n.m.Flags); len(add)+len(remove) > 0 {
			pl.p.flags = append(pl.p.flags, &flagStep{side: o, e: e, add: add, remove: remove})
		}
	}
}

// append copies the body, unless the other side is known not to take it.
func (pl *planner) append(t *track, to Side, m Message, e *entry, replaces bool) {
	if limit := pl.in.limit[to]; limit > 0 && m.Size > limit {
		pl.fault(to, t, m.UID, "too-big", fmt.Sprintf("%d bytes, this side takes %d", m.Size, limit))
		e.next.uid[to], e.next.half, e.next.when = 0, refused, pl.in.now
		return
	}
	pl.need(t, to)
	pl.p.appends = append(pl.p.appends, &appendStep{to: to, src: t, uid: m.UID, dst: t, flags: m.Flags, m: m, e: e, replaces: replaces})
}
