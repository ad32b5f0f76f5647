package imapstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

// boxesAhead is how many mailboxes are asked about before the first answer is read.
// Their commands must fit into the kernel's buffers.
const boxesAhead = 16

// scan gathers what a server says of the messages of one mailbox.
type scan struct {
	store *Store
	known []imap.UID
	byUID map[imap.UID]*found
	limit imap.UID // UIDs from here on came later; 0: none
}

// found is a message in the making: a server may say it in several parts.
type found struct {
	imapsync.Message
	described bool
	flagged   bool // its flags were told
	header    string
	hasHeader bool
}

func (s *Store) newScan(known []imap.UID) *scan {
	return &scan{store: s, known: known, byUID: make(map[imap.UID]*found)}
}

func (sc *scan) add(m *wire.Message) error {
	f := sc.byUID[m.UID]
	if f == nil {
		f = &found{Message: imapsync.Message{UID: m.UID, Size: -1}}
		sc.byUID[m.UID] = f
	}
	if m.HasFlags {
		f.Flags, f.flagged = sc.store.flags(m.Flags), true
	}
	if m.ModSeq > f.ModSeq {
		f.ModSeq = m.ModSeq
	}
	if m.Size >= 0 {
		f.Size = m.Size
	}
	if !m.Date.IsZero() {
		f.Date, f.described = m.Date, true
	}
	if m.GUID != "" {
		f.GID = m.GUID
	}
	if m.HasHeader {
		f.header, f.hasHeader = m.Header, true
	}
	if f.hasHeader && f.Size >= 0 {
		f.Key = imapsync.NewKey([]byte(f.header), f.Size)
		f.header, f.hasHeader = "", false
	}
	return nil
}

func (sc *scan) knows(uid imap.UID) bool {
	_, ok := slices.BinarySearch(sc.known, uid)
	return ok
}

// flags makes a set once for all messages that have the same.
func (s *Store) flags(list []imap.Flag) imapsync.Flags {
	var b strings.Builder
	for _, f := range list {
		b.WriteString(string(f))
		b.WriteByte(' ')
	}
	if set, ok := s.flagSets[b.String()]; ok {
		return set
	}
	set := imapsync.NewFlags(list...)
	if len(s.flagSets) < 4096 {
		s.flagSets[b.String()] = set
	}
	return set
}

func fullItems(keys bool) wire.Items {
	items := wire.Items{Flags: true, Size: true, Date: true, ModSeq: true, GUID: true}
	if keys {
		items.Header = imapsync.KeyFields[:]
	}
	return items
}

// asked is one mailbox on its way.
type asked struct {
	since    imapsync.Since
	scan     *scan
	selected *wire.Reply[wire.Box]
	fetches  []*wire.Reply[struct{}]
	search   *wire.Reply[imap.UIDSet]
	resynced bool // vanished messages come with SELECT
	modern   bool // since.Cursor.ModSeq was used
	whole    bool // everything was asked for
	box      wire.Box
	delta    imapsync.Delta
	exist    imap.UIDSet
	searched bool
}

// Changes implements imapsync.Reader.
func (s *Store) Changes(ctx context.Context, since []imapsync.Since) ([]imapsync.Delta, error) {
	var out []imapsync.Delta
	err := s.reading(ctx, func(c *wire.Client) error {
		if err := s.layout(ctx, c); err != nil {
			return err
		}
		out = make([]imapsync.Delta, len(since))
		for from := 0; from < len(since); from += boxesAhead {
			to := min(from+boxesAhead, len(since))
			if err := s.changes(ctx, c, since[from:to], out[from:to]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return out, nil
}

func (s *Store) changes(ctx context.Context, c *wire.Client, since []imapsync.Since, out []imapsync.Delta) error {
	asks := make([]*asked, len(since))
	for i, q := range since {
		asks[i] = s.ask1(c, q)
	}
	for _, a := range asks {
		if err := s.answer1(ctx, a); err != nil {
			return err
		}
	}
	// What the first look could not settle: a replaced mailbox, numbers that do not
	// agree, unknown messages below UIDNEXT.
	for _, a := range asks {
		if a.delta.Err == nil {
			if err := s.settle(ctx, c, a); err != nil {
				return err
			}
		}
	}
	for i, a := range asks {
		if a.delta.Err == nil {
			a.collect()
		}
		out[i] = a.delta
	}
	return nil
}

// ask1 sends the first look at a mailbox.
func (s *Store) ask1(c *wire.Client, q imapsync.Since) *asked {
	a := &asked{since: q, scan: s.newScan(q.Known)}
	name, err := s.name(q.Box)
	if err != nil {
		a.delta.Err = fmt.Errorf("%w: %w", imapsync.ErrNoBox, err)
		return a
	}
	opts := wire.SelectOptions{}
	cur := q.Cursor
	seen := cur.Validity != 0 && cur.Next != 0
	a.modern = seen && cur.ModSeq != 0 && c.Has(imap.CapCondStore)
	if a.modern && c.Resyncs() {
		a.resynced = true
		opts.Validity, opts.ModSeq, opts.Changed = cur.Validity, cur.ModSeq, a.scan.add
	}
	a.selected = c.Select(name, opts)
	fetch := func(set imap.UIDSet, items wire.Items) {
		a.fetches = append(a.fetches, c.Fetch(set, items, a.scan.add))
	}
	// What the caller has put there itself is known; what came in between is described
	// by settle.
	next := cur.Next
	if n := len(q.Known); n > 0 && q.Known[n-1] >= next {
		next = q.Known[n-1] + 1
	}
	rest := imap.UIDSet{{Start: next}} // to "*"
	switch {
	case a.resynced:
		items := fullItems(q.Keys)
		items.Flags, items.ModSeq = false, false // SELECT has them already
		fetch(rest, items)
	case a.modern:
		fetch(imap.UIDSet{{Start: 1}}, wire.Items{Flags: true, ModSeq: true, ChangedSince: cur.ModSeq})
		fetch(rest, fullItems(q.Keys))
		a.search = c.Search(wire.ByUID(imap.UIDSet{{Start: 1}}))
	case seen && len(q.Known) > 0:
		if next > 1 {
			fetch(imap.UIDSet{{Start: 1, Stop: next - 1}}, wire.Items{Flags: true, ModSeq: true})
		}
		fetch(rest, fullItems(q.Keys))
		a.whole = true
	default:
		fetch(imap.UIDSet{{Start: 1}}, fullItems(q.Keys))
		a.whole = true
	}
	return a
}

// answer1 reads what ask1 asked for. Only a broken connection is an error.
func (s *Store) answer1(ctx context.Context, a *asked) error {
	if a.selected == nil {
		return nil
	}
	box, err := a.selected.Wait(ctx)
	if err != nil {
		if !wire.Refused(err) {
			return err
		}
		a.delta.Err = fault(err)
		if !certain(a.delta.Err) {
			return a.delta.Err // nothing is known
		}
	}
	a.box = box
	var failed error
	for _, f := range a.fetches {
		if _, err := f.Wait(ctx); err != nil {
			if !wire.Refused(err) {
				return err
			}
			failed = err
		}
	}
	if a.search != nil {
		set, err := a.search.Wait(ctx)
		switch {
		case err == nil:
			a.exist, a.searched = set, true
		case !wire.Refused(err):
			return err
		default:
			failed = err
		}
	}
	if a.delta.Err != nil {
		return nil //nolint:nilerr // it is the answer for this box
	}
	s.seen[a.since.Box], s.readOnly[a.since.Box] = box.Validity, box.ReadOnly
	if failed != nil && box.Messages > 0 { // some servers refuse to fetch from nothing
		// RFC 7162, section 3.1.2.2: a mailbox without mod-sequences refuses CHANGEDSINCE.
		if a.modern && !a.resynced && box.ModSeq == 0 {
			a.modern = false // settle looks at everything
			return nil
		}
		a.delta.Err = fault(failed)
		if !certain(a.delta.Err) {
			return a.delta.Err
		}
	}
	return nil
}

// settle asks a second time where the first look was not enough.
func (s *Store) settle(ctx context.Context, c *wire.Client, a *asked) error {
	cur := a.since.Cursor
	replaced := cur.Validity != 0 && a.box.Validity != cur.Validity
	// Going backwards is a restored server; what it says since then is no answer.
	backwards := cur.ModSeq != 0 && a.box.ModSeq != 0 && a.box.ModSeq < cur.ModSeq || cur.Next != 0 && a.box.Next != 0 && a.box.Next < cur.Next
	again := !a.whole && (replaced || backwards || !a.modern) || a.whole && replaced && cur.Next > 1 && len(a.since.Known) > 0
	if again {
		a.scan = s.newScan(a.since.Known)
		a.resynced, a.modern, a.searched, a.whole = false, false, false, true
		if err := s.reopen(ctx, c, a); err != nil || a.delta.Err != nil {
			return err
		}
		if _, err := c.Fetch(imap.UIDSet{{Start: 1}}, fullItems(a.since.Keys), a.scan.add).Wait(ctx); err != nil {
			return a.fail(err)
		}
		return nil
	}
	a.scan.limit = a.box.Next
	if a.resynced && !a.agrees() {
		if err := s.reopen(ctx, c, a); err != nil || a.delta.Err != nil {
			return err
		}
		set, err := c.Search(wire.ByUID(imap.UIDSet{{Start: 1}})).Wait(ctx)
		if err != nil {
			return a.fail(err)
		}
		a.exist, a.searched = set, true
	}
	// Messages that the caller does not know are described.
	var missing []imap.UID
	for uid, f := range a.scan.byUID {
		if (!f.flagged || !f.described && !a.scan.knows(uid)) && (a.box.Next == 0 || uid < a.box.Next) {
			missing = append(missing, uid)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if err := s.reopen(ctx, c, a); err != nil || a.delta.Err != nil {
		return err
	}
	for _, set := range wire.SplitUIDs(wire.UIDs(missing)) {
		if _, err := c.Fetch(set, fullItems(a.since.Keys), a.scan.add).Wait(ctx); err != nil {
			return a.fail(err)
		}
	}
	return nil
}

func (a *asked) fail(err error) error {
	if !refused(err) {
		return err
	}
	if a.delta.Err = fault(err); !certain(a.delta.Err) {
		return a.delta.Err
	}
	return nil
}

// reopen opens the mailbox again where another one is open by now.
func (s *Store) reopen(ctx context.Context, c *wire.Client, a *asked) error {
	if sel := c.Selected(); sel != nil && sel.Name == a.box.Name && sel.Validity == a.box.Validity {
		return nil
	}
	box, err := c.Select(a.box.Name, wire.SelectOptions{}).Wait(ctx)
	if err != nil {
		return a.fail(err)
	}
	if box.Validity != a.box.Validity {
		return fmt.Errorf("mailbox %s: %w", a.box.Name, errMoving)
	}
	return nil
}

var errMoving = errors.New("replaced while it was read")

// agrees says whether the number of messages is what VANISHED and FETCH lead to.
func (a *asked) agrees() bool {
	next := a.since.Cursor.Next
	have := 0
	for _, uid := range a.since.Known {
		if uid < next && !a.box.Vanished.Contains(uid) {
			have++
		}
	}
	for uid := range a.scan.byUID {
		if uid >= next && (a.box.Next == 0 || uid < a.box.Next) {
			have++
		}
	}
	return have == int(a.box.Messages)
}

// collect makes the delta.
func (a *asked) collect() {
	box := a.box
	a.delta.Cursor = imapsync.Cursor{Validity: box.Validity, Next: box.Next, ModSeq: box.ModSeq, Messages: box.Messages}
	a.delta.Permanent = imapsync.NewFlags(box.Permanent...)
	a.delta.AnyKeyword = slices.Contains(box.Permanent, imap.FlagWildcard)
	if a.delta.AnyKeyword && len(a.delta.Permanent) == 0 {
		// go-imap's server says \* alone, and means all.
		a.delta.Permanent = imapsync.NewFlags(imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft)
	}
	highest := imap.UID(0)
	for uid, f := range a.scan.byUID {
		highest = max(highest, uid)
		switch {
		case box.Next != 0 && uid >= box.Next: // came after the SELECT
		case !a.whole && a.resynced && box.Vanished.Contains(uid):
		case !f.described && !a.scan.knows(uid):
			// Gone since it was told of, or told of by the way.
		case f.Size < 0 && f.described, !f.flagged:
		default:
			m := f.Message
			m.Size = max(m.Size, 0)
			a.delta.Messages = append(a.delta.Messages, m)
		}
	}
	slices.SortFunc(a.delta.Messages, func(x, y imapsync.Message) int { return int(int64(x.UID) - int64(y.UID)) })
	if box.Next == 0 { // RFC 3501, section 6.3.1: an old server need not say it
		a.delta.Cursor.Next = highest + 1
	}
	if a.since.Cursor.Validity != box.Validity {
		return
	}
	for _, uid := range a.since.Known {
		_, told := a.scan.byUID[uid]
		var gone bool
		switch {
		case a.whole:
			gone = !told
		case a.searched:
			gone = !a.exist.Contains(uid)
		default:
			gone = box.Vanished.Contains(uid)
		}
		if gone {
			a.delta.Vanished = append(a.delta.Vanished, uid)
		}
	}
}

// Describe implements imapsync.Reader.
func (s *Store) Describe(ctx context.Context, picks []imapsync.Pick) ([][]imapsync.Message, error) {
	var out [][]imapsync.Message
	err := s.reading(ctx, func(c *wire.Client) error {
		if err := s.layout(ctx, c); err != nil {
			return err
		}
		out = make([][]imapsync.Message, len(picks))
		for i, p := range picks {
			if len(p.UIDs) == 0 {
				continue
			}
			var err error
			if out[i], err = s.describe(ctx, c, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("describe messages: %w", err)
	}
	return out, nil
}

func (s *Store) describe(ctx context.Context, c *wire.Client, p imapsync.Pick) ([]imapsync.Message, error) {
	sc := s.newScan(nil)
	sel := s.open(c, p.Box)
	if sel.err != nil {
		return nil, nil //nolint:nilerr // a box that cannot be is a replaced one
	}
	var fetches []*wire.Reply[struct{}]
	for _, set := range wire.SplitUIDs(wire.UIDs(p.UIDs)) {
		if len(fetches) >= 4 {
			if _, err := fetches[len(fetches)-4].Wait(ctx); err != nil && !wire.Refused(err) {
				return nil, err
			}
		}
		fetches = append(fetches, c.Fetch(set, fullItems(true), sc.add))
	}
	box, err := sel.wait(ctx)
	for _, f := range fetches {
		if _, ferr := f.Wait(ctx); ferr != nil && err == nil {
			err = fault(ferr)
		}
	}
	if errors.Is(err, imapsync.ErrNoBox) || errors.Is(err, imapsync.ErrNoAccess) || err == nil && box.Validity != p.Validity {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]imapsync.Message, 0, len(p.UIDs))
	for _, uid := range p.UIDs {
		if f := sc.byUID[uid]; f != nil && f.described && f.Size >= 0 {
			out = append(out, f.Message)
		}
	}
	return out, nil
}

// opening is a SELECT on its way, or a mailbox that is open already.
type opening struct {
	s     *Store
	canon string
	box   *wire.Box
	reply *wire.Reply[wire.Box]
	err   error
}

// open sends SELECT unless the mailbox is open for writing.
func (s *Store) open(c *wire.Client, canon string) *opening {
	name, err := s.name(canon)
	if err != nil {
		return &opening{err: err}
	}
	if sel := c.Selected(); sel != nil && sel.Name == name && !sel.ReadOnly {
		return &opening{box: sel}
	}
	return &opening{s: s, canon: canon, reply: c.Select(name, wire.SelectOptions{})}
}

func (o *opening) wait(ctx context.Context) (wire.Box, error) {
	if o.err != nil {
		return wire.Box{}, o.err
	}
	if o.box != nil {
		return *o.box, nil
	}
	box, err := o.reply.Wait(ctx)
	if err != nil {
		return box, fault(err)
	}
	o.s.seen[o.canon], o.s.readOnly[o.canon] = box.Validity, box.ReadOnly
	return box, nil
}
