//go:build soak

package integration

import (
	"fmt"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/integration/mailpair"
)

// passed is one pass that brought everything over that was there when it began.
type passed struct{ start, end time.Time }

// verdict counts what must not be.
type verdict struct {
	deeds, checked                                             int
	lost, duplicated, resurrected, flags, misplaced, survivors int
	faults                                                     []string
}

func (v *verdict) fault(n *int, format string, args ...any) {
	*n++
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

func (v *verdict) String() string {
	return fmt.Sprintf("%d deeds, %d flags checked: %d lost, %d duplicated, %d resurrected, %d flags lost, %d misplaced; %d survived a delete that met a change",
		v.deeds, v.checked, v.lost, v.duplicated, v.resurrected, v.flags, v.misplaced, v.survivors)
}

// book is what happened to one message.
type book struct {
	id      string
	deeds   []deed
	passes  []passed
	initial []string
	home    string
	// shaky: nobody confirmed that it was stored.
	shaky bool
}

// before says that x was known at both sides when y began.
func (b *book) before(x, y deed) bool {
	if x.side == y.side {
		return !x.end.After(y.start)
	}
	for _, p := range b.passes {
		if !p.start.Before(x.end) {
			return !p.end.After(y.start)
		}
	}
	return false
}

func (b *book) apart(x, y deed) bool { return !b.before(x, y) && !b.before(y, x) }

func (b *book) of(kind string) (sure, maybe []deed) {
	for _, d := range b.deeds {
		switch {
		case d.kind != kind:
		case d.sure:
			sure = append(sure, d)
		default:
			maybe = append(maybe, d)
		}
	}
	return sure, maybe
}

// last is the last deed of each side, without those that the other's came after.
func (b *book) last(deeds []deed) []deed {
	var by [2]*deed
	for i := range deeds {
		if s := deeds[i].side; by[s] == nil || deeds[i].end.After(by[s].end) {
			by[s] = &deeds[i]
		}
	}
	a, z := by[imapsync.A], by[imapsync.B]
	switch {
	case a == nil && z == nil:
		return nil
	case z == nil || a != nil && b.before(*z, *a):
		return []deed{*a}
	case a == nil || b.before(*a, *z):
		return []deed{*z}
	}
	return []deed{*a, *z}
}

// spot is where a message was found.
type spot struct {
	shelf string
	flags []string
	uid   imap.UID // on side A
}

// judge compares the book of all messages with what there is.
func judge(deeds []deed, passes []passed, seeds, now mailpair.Mailboxes) *verdict {
	v := &verdict{deeds: len(deeds)}
	books := make(map[string]*book)
	open := func(id string) *book {
		if books[id] == nil {
			books[id] = &book{id: id, passes: passes}
		}
		return books[id]
	}
	for name, f := range seeds {
		for _, m := range f.Messages {
			b := open(m.ID)
			b.home, b.initial = shelf(name), m.Flags
		}
	}
	for _, d := range deeds {
		b := open(d.id)
		if d.kind == "append" {
			b.home, b.initial, b.shaky = d.to, d.had, !d.sure
		} else {
			b.deeds = append(b.deeds, d)
		}
	}
	spots := make(map[string][]spot)
	for name, f := range now {
		for _, m := range f.Messages {
			spots[m.ID] = append(spots[m.ID], spot{shelf(name), m.Flags, m.UID})
		}
	}
	for id := range spots {
		if books[id] == nil {
			v.fault(&v.duplicated, "message %q, which nobody wrote", id)
		}
	}
	for _, b := range books {
		v.message(b, spots[b.id])
	}
	return v
}

func (v *verdict) message(b *book, at []spot) {
	copies, perhaps := b.of("copy")
	deletes, perhapsGone := b.of("delete")
	most := 1 + len(copies) + len(perhaps)
	least := 1 + len(copies) - len(deletes) - len(perhapsGone)
	if b.shaky {
		least = 0
	}
	switch {
	case len(at) > most:
		v.fault(&v.duplicated, "%s: %d instead of at most %d: %v\n%s", b.id, len(at), most, at, b)
	case len(at) < least:
		v.fault(&v.lost, "%s: %d instead of at least %d: %v\n%s", b.id, len(at), least, at, b)
	}
	if len(copies)+len(perhaps) > 0 {
		return
	}
	if len(deletes) > 0 {
		if len(at) == 0 {
			return
		}
		v.survivors++
		if !b.contested(deletes) {
			v.fault(&v.resurrected, "%s is in %v\n%s", b.id, at, b)
		}
		return
	}
	if len(at) != 1 || len(perhapsGone) > 0 {
		return
	}
	v.place(b, at[0])
	for _, f := range chaosFlags {
		v.flag(b, at[0], mailpair.Flags(flagList(f))[0])
	}
}

// contested: the other side changed the message while it did not know of the delete.
func (b *book) contested(deletes []deed) bool {
	for _, d := range deletes {
		for _, x := range b.deeds {
			if x.side != d.side && x.kind != "delete" && b.apart(x, d) {
				return true
			}
		}
	}
	return false
}

func (v *verdict) place(b *book, at spot) {
	moves, perhaps := b.of("move")
	want := []string{b.home}
	if last := b.last(moves); len(last) > 0 {
		want = nil
		for _, d := range last {
			want = append(want, d.to)
		}
	}
	for _, d := range perhaps {
		want = append(want, d.to)
	}
	if !slices.Contains(want, at.shelf) {
		v.fault(&v.misplaced, "%s is in %s, not in %v\n%s", b.id, at.shelf, want, b)
	}
}

func (v *verdict) flag(b *book, at spot, flag string) {
	var changes []deed
	for _, d := range b.deeds {
		if d.kind == "flag" && d.flag == flag {
			if !d.sure {
				return
			}
			changes = append(changes, d)
		}
	}
	want := slices.Contains(b.initial, flag)
	last := b.last(changes)
	if len(last) == 2 && last[0].set != last[1].set {
		return // either is right
	}
	if len(last) > 0 {
		want = last[0].set
	}
	v.checked++
	if got := slices.Contains(at.flags, flag); got != want {
		v.fault(&v.flags, "%s in %s: %s is %v, not %v\n%s", b.id, at.shelf, flag, got, want, b)
	}
}

func (b *book) String() string {
	slices.SortFunc(b.deeds, func(x, y deed) int { return x.end.Compare(y.end) })
	out := fmt.Sprintf("    began in %s with %v\n", b.home, b.initial)
	for _, d := range b.deeds {
		out += fmt.Sprintf("    %s-%s (known at %s) side %s: %s UID %d %s %v %s (sure %v, %s)\n",
			d.start.Format("05.000"), d.end.Format("05.000"), b.known(d), d.side, d.kind, d.uid, d.flag, d.set, d.to, d.sure, d.note)
	}
	return out
}

// known is when the other side knew of a deed.
func (b *book) known(d deed) string {
	for _, p := range b.passes {
		if !p.start.Before(d.end) {
			return p.end.Format("05.000")
		}
	}
	return "the end"
}
