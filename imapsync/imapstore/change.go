package imapstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

var errHalfMoved = errors.New("server said NO and yet the message is gone")

// verify asks for the UIDVALIDITY of every box in one round trip, but for the one that
// is open. wrong has an error for each pick that must not be touched.
func (s *Store) verify(ctx context.Context, c *wire.Client, picks []imapsync.Pick) ([]error, error) {
	wrong := make([]error, len(picks))
	asked := make(map[string]*wire.Reply[wire.MailboxState])
	for i, p := range picks {
		name, err := s.name(p.Box)
		if err != nil {
			wrong[i] = fmt.Errorf("%w: %w", imapsync.ErrNoBox, err)
			continue
		}
		if sel := c.Selected(); sel != nil && sel.Name == name {
			continue
		}
		if asked[p.Box] == nil {
			asked[p.Box] = c.Status(name)
		}
	}
	for i, p := range picks {
		if wrong[i] != nil {
			continue
		}
		var validity uint32
		if r := asked[p.Box]; r != nil {
			st, err := r.Wait(ctx)
			if err != nil {
				if err = fault(err); !certain(err) {
					return nil, err
				}
				wrong[i] = err
				continue
			}
			validity = st.Validity
		} else if sel := c.Selected(); sel != nil {
			validity = sel.Validity
		}
		if validity != p.Validity {
			wrong[i] = fmt.Errorf("%w: %s has UIDVALIDITY %d, not %d", imapsync.ErrReplaced, p.Box, validity, p.Validity)
		}
	}
	return wrong, nil
}

// work is one request on its way: the mailbox it opened, if it did, and what follows.
type work struct {
	open  *opening
	parts []part
}

// part is one set of UIDs of a request.
type part struct {
	stores  []*wire.Reply[wire.StoreResult]
	expunge *wire.Reply[struct{}]
	set     imap.UIDSet
}

// SetFlags implements imapsync.Writer. The UIDVALIDITY of a mailbox that is not open is
// taken from what was last seen on this connection: flags are not worth a round trip.
func (s *Store) SetFlags(ctx context.Context, cs []imapsync.FlagChange) ([]imapsync.Outcome, error) {
	c, err := s.writing(ctx)
	if err != nil {
		return nil, fmt.Errorf("set flags: %w", err)
	}
	picks := make([]imapsync.Pick, len(cs))
	unseen := false
	for i, ch := range cs {
		picks[i] = ch.Pick
		if _, ok := s.seen[ch.Box]; !ok {
			unseen = true
		}
	}
	wrong := make([]error, len(cs))
	if unseen {
		if wrong, err = s.verify(ctx, c, picks); err != nil {
			return nil, s.wrote(fmt.Errorf("set flags: %w", err))
		}
	} else {
		for i, p := range picks {
			if s.seen[p.Box] != p.Validity {
				wrong[i] = fmt.Errorf("%w: UIDVALIDITY is %d, not %d", imapsync.ErrReplaced, s.seen[p.Box], p.Validity)
			}
		}
	}
	out, err := s.pipeline(ctx, c, picks, wrong, func(i int, set imap.UIDSet) part {
		p := part{set: set}
		if len(cs[i].Add) > 0 {
			p.stores = append(p.stores, c.Store(set, wire.AddFlags, cs[i].Add, cs[i].UnchangedSince))
		}
		// What the first STORE leaves alone, the second must leave alone too, and the
		// first has raised the mod-sequence of the others: see removeLater.
		if len(cs[i].Remove) > 0 && (len(cs[i].Add) == 0 || cs[i].UnchangedSince == 0) {
			p.stores = append(p.stores, c.Store(set, wire.RemoveFlags, cs[i].Remove, cs[i].UnchangedSince))
		}
		return p
	})
	if err == nil {
		err = s.removeLater(ctx, c, cs, out)
	}
	if err != nil {
		return nil, s.wrote(fmt.Errorf("set flags: %w", err))
	}
	return out, nil
}

// removeLater is the second half of conditional changes that add and remove: it leaves out
// what the first half left alone.
func (s *Store) removeLater(ctx context.Context, c *wire.Client, cs []imapsync.FlagChange, out []imapsync.Outcome) error {
	picks := make([]imapsync.Pick, len(cs))
	wrong := make([]error, len(cs))
	any := false
	for i, ch := range cs {
		picks[i] = ch.Pick
		wrong[i] = imapsync.ErrRefused // not concerned
		if len(ch.Add) == 0 || len(ch.Remove) == 0 || ch.UnchangedSince == 0 || out[i].Err != nil {
			continue
		}
		picks[i].UIDs = without(ch.UIDs, out[i].Modified)
		if len(picks[i].UIDs) > 0 {
			any, wrong[i] = true, nil
		}
	}
	if !any {
		return nil
	}
	more, err := s.pipeline(ctx, c, picks, wrong, func(i int, set imap.UIDSet) part {
		return part{set: set, stores: []*wire.Reply[wire.StoreResult]{c.Store(set, wire.RemoveFlags, cs[i].Remove, 0)}}
	})
	for i := range more {
		if wrong[i] == nil && more[i].Err != nil {
			out[i].Err = more[i].Err
		}
		if wrong[i] == nil {
			out[i].Missed = append(out[i].Missed, more[i].Missed...)
		}
	}
	return err
}

func without(list, drop []imap.UID) []imap.UID {
	gone := make(map[imap.UID]bool, len(drop))
	for _, u := range drop {
		gone[u] = true
	}
	var out []imap.UID
	for _, u := range list {
		if !gone[u] {
			out = append(out, u)
		}
	}
	return out
}

// Expunge implements imapsync.Writer.
func (s *Store) Expunge(ctx context.Context, rs []imapsync.Removal) ([]imapsync.Outcome, error) {
	c, err := s.writing(ctx)
	if err != nil {
		return nil, fmt.Errorf("expunge: %w", err)
	}
	picks := make([]imapsync.Pick, len(rs))
	for i, r := range rs {
		picks[i] = r.Pick
	}
	wrong, err := s.verify(ctx, c, picks)
	if err != nil {
		return nil, s.wrote(fmt.Errorf("expunge: %w", err))
	}
	out, err := s.pipeline(ctx, c, picks, wrong, func(i int, set imap.UIDSet) part {
		p := part{set: set}
		p.stores = append(p.stores, c.Store(set, wire.AddFlags, []imap.Flag{imap.FlagDeleted}, rs[i].UnchangedSince))
		// It may follow at once: what STORE left alone has no \Deleted, unless its
		// owner set it.
		if c.Has(imap.CapUIDPlus) {
			p.expunge = c.Expunge(set)
		}
		return p
	})
	if err != nil {
		return nil, s.wrote(fmt.Errorf("expunge: %w", err))
	}
	if !c.Has(imap.CapUIDPlus) {
		for i := range out {
			if out[i].Err == nil {
				out[i].Marked = without(rs[i].UIDs, out[i].Modified)
			}
		}
	}
	return out, nil
}

// pipeline runs requests one behind the other, without waiting in between.
func (s *Store) pipeline(ctx context.Context, c *wire.Client, picks []imapsync.Pick, wrong []error, begin func(i int, set imap.UIDSet) part) ([]imapsync.Outcome, error) {
	out := make([]imapsync.Outcome, len(picks))
	works := make([]work, len(picks))
	before := ""
	read := 0
	for i, p := range picks {
		if out[i].Err = wrong[i]; wrong[i] != nil || len(p.UIDs) == 0 {
			continue
		}
		if before != p.Box {
			works[i].open = s.openNext(c, p.Box, before)
			before = p.Box
		}
		for _, set := range wire.SplitUIDs(wire.UIDs(p.UIDs)) {
			works[i].parts = append(works[i].parts, begin(i, set))
		}
		// No more than a few are unanswered.
		for ; i-read >= boxesAhead/2; read++ {
			if err := s.finish(ctx, picks, works, out, read); err != nil {
				return nil, err
			}
		}
	}
	for ; read < len(picks); read++ {
		if err := s.finish(ctx, picks, works, out, read); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Store) finish(ctx context.Context, picks []imapsync.Pick, works []work, out []imapsync.Outcome, i int) error {
	w, o := works[i], &out[i]
	note := func(err error) error {
		if err == nil {
			return nil
		}
		if err = fault(err); !certain(err) {
			return err
		}
		if o.Err == nil {
			o.Err = err
		}
		return nil
	}
	if w.open != nil {
		box, err := w.open.wait(ctx)
		if err == nil && box.Validity != picks[i].Validity {
			// Asked a moment ago it was the right one.
			err = fmt.Errorf("mailbox %s: %w", picks[i].Box, errMoving)
		}
		if err == nil && box.ReadOnly {
			err = fmt.Errorf("%w: %s is read-only", imapsync.ErrNoAccess, picks[i].Box)
		}
		if err := note(err); err != nil {
			return err
		}
	}
	for _, p := range w.parts {
		for _, st := range p.stores {
			res, err := st.Wait(ctx)
			if err := note(err); err != nil {
				return err
			}
			if mod, ok := res.Modified.Nums(); ok {
				o.Modified = append(o.Modified, mod...)
			}
			if p.expunge == nil {
				o.Missed = append(o.Missed, missed(p.set, res)...)
			}
		}
		if p.expunge != nil {
			_, err := p.expunge.Wait(ctx)
			if err := note(err); err != nil {
				return err
			}
		}
	}
	return nil
}

// missed are the messages of a STORE that the server did not tell of.
func missed(set imap.UIDSet, res wire.StoreResult) []imap.UID {
	told := make(map[imap.UID]bool, len(res.Updated))
	for _, u := range res.Updated {
		told[u.UID] = true
	}
	var out []imap.UID
	uids, _ := set.Nums() // made of a list
	for _, u := range uids {
		if !told[u] && !res.Modified.Contains(u) {
			out = append(out, u)
		}
	}
	return out
}

// Transfer implements imapsync.Writer.
func (s *Store) Transfer(ctx context.Context, ts []imapsync.Transfer) ([][]imapsync.Stored, error) {
	c, err := s.writing(ctx)
	if err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	picks := make([]imapsync.Pick, len(ts))
	for i, t := range ts {
		picks[i] = t.From
	}
	wrong, err := s.verify(ctx, c, picks)
	if err != nil {
		return nil, s.wrote(fmt.Errorf("transfer: %w", err))
	}
	out := make([][]imapsync.Stored, len(ts))
	before := ""
	moves := make([]*transfer, len(ts))
	read := 0
	settle := func(upTo int) error {
		for ; read < upTo; read++ {
			if moves[read] == nil {
				continue
			}
			if out[read], err = moves[read].settle(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	for i, t := range ts {
		out[i] = make([]imapsync.Stored, len(t.From.UIDs))
		to, err := s.name(t.To)
		if wrong[i] == nil && err != nil {
			wrong[i] = err
		}
		if wrong[i] != nil || len(t.From.UIDs) == 0 {
			for j := range out[i] {
				out[i][j].Err = wrong[i]
			}
			continue
		}
		moves[i] = s.transfer(c, t, to, before)
		before = t.From.Box
		// An answer of SEARCH without ESEARCH does not say whose it is.
		if i-read >= boxesAhead/2 || moves[i].slow() || !c.Has(imap.CapESearch) {
			if err := settle(i + 1); err != nil {
				return nil, s.wrote(fmt.Errorf("transfer: %w", err))
			}
		}
	}
	if err := settle(len(ts)); err != nil {
		return nil, s.wrote(fmt.Errorf("transfer: %w", err))
	}
	return out, s.wrote(nil)
}

// transfer is one request on its way.
type transfer struct {
	s     *Store
	c     *wire.Client
	t     imapsync.Transfer
	open  *opening
	parts []transferPart
}

type transferPart struct {
	set    imap.UIDSet
	before *wire.Reply[imap.UIDSet] // who was there
	copied *wire.Reply[wire.CopyResult]
}

func (s *Store) transfer(c *wire.Client, t imapsync.Transfer, to, before string) *transfer {
	m := &transfer{s: s, c: c, t: t}
	if before != t.From.Box {
		m.open = s.openNext(c, t.From.Box, before)
	}
	for _, set := range wire.SplitUIDs(wire.UIDs(t.From.UIDs)) {
		p := transferPart{set: set, before: c.Search(wire.ByUID(set))}
		if t.Move && c.Has(imap.CapMove) {
			p.copied = c.Move(set, to)
		} else {
			p.copied = c.Copy(set, to)
		}
		m.parts = append(m.parts, p)
	}
	return m
}

// slow says that more commands follow the answer, so that nothing may be sent before.
func (m *transfer) slow() bool { return m.t.Move && !m.c.Has(imap.CapMove) }

func (m *transfer) settle(ctx context.Context) ([]imapsync.Stored, error) {
	results := make(map[imap.UID]imapsync.Stored, len(m.t.From.UIDs))
	var wrong error
	if m.open != nil {
		box, err := m.open.wait(ctx)
		if err == nil && box.Validity != m.t.From.Validity {
			return nil, fmt.Errorf("mailbox %s: %w", m.t.From.Box, errMoving)
		}
		if err == nil && m.t.Move && box.ReadOnly {
			err = fmt.Errorf("%w: %s is read-only", imapsync.ErrNoAccess, m.t.From.Box)
		}
		if err != nil && !certain(err) {
			return nil, err
		}
		wrong = err
	}
	for _, p := range m.parts {
		there, err := p.before.Wait(ctx)
		if err != nil && !wire.Refused(err) {
			return nil, err
		}
		res, cerr := p.copied.Wait(ctx)
		if cerr != nil && !wire.Refused(cerr) {
			return nil, cerr
		}
		if wrong != nil || err != nil {
			continue
		}
		if err := m.judge(ctx, p.set, there, res, cerr, results); err != nil {
			return nil, err
		}
	}
	out := make([]imapsync.Stored, len(m.t.From.UIDs))
	for i, uid := range m.t.From.UIDs {
		st, ok := results[uid]
		switch {
		case wrong != nil:
			st = imapsync.Stored{Err: wrong}
		case !ok:
			st = imapsync.Stored{Err: imapsync.ErrGone}
		}
		out[i] = st
	}
	return out, nil
}

// judge says what became of the messages of one command.
func (m *transfer) judge(ctx context.Context, set, there imap.UIDSet, res wire.CopyResult, failed error, results map[imap.UID]imapsync.Stored) error {
	uids, _ := there.Nums() // a set that a search has found ends
	if failed != nil {
		verdict := fault(failed)
		left := there
		if m.t.Move && !m.slow() {
			// RFC 6851, section 3.3: a move may have been done in part.
			var err error
			if left, err = m.c.Search(wire.ByUID(set)).Wait(ctx); err != nil {
				return err
			}
		}
		for _, uid := range uids {
			switch {
			case left.Contains(uid):
				results[uid] = imapsync.Stored{Err: verdict}
			case res.To[uid] != 0:
				results[uid] = imapsync.Stored{UID: res.To[uid], Validity: res.Validity}
			default:
				results[uid] = imapsync.Stored{Err: fmt.Errorf("%w: %w", errHalfMoved, failed)}
			}
		}
		return nil
	}
	var confirmed []imap.UID
	for _, uid := range uids {
		switch to := res.To[uid]; {
		case to != 0:
			results[uid] = imapsync.Stored{UID: to, Validity: res.Validity}
			confirmed = append(confirmed, uid)
		case res.Validity == 0:
			results[uid] = imapsync.Stored{} // done, its UID is not known
		}
	}
	if m.slow() {
		return m.remove(ctx, there, confirmed, res.Validity != 0)
	}
	return nil
}

// remove is the second half of a move without MOVE. Only what the server says to have
// copied goes; where it cannot say, or cannot expunge alone, messages keep \Deleted.
func (m *transfer) remove(ctx context.Context, there imap.UIDSet, confirmed []imap.UID, told bool) error {
	set := wire.UIDs(confirmed)
	if !told {
		set = there
	}
	if len(set) == 0 {
		return nil
	}
	if _, err := m.c.Store(set, wire.AddFlags, []imap.Flag{imap.FlagDeleted}, 0).Wait(ctx); err != nil {
		return err
	}
	if !told || !m.c.Has(imap.CapUIDPlus) {
		m.s.log.Warn("messages were moved by copying and could only be marked deleted", "mailbox", m.t.From.Box, "messages", len(confirmed))
		return nil
	}
	_, err := m.c.Expunge(set).Wait(ctx)
	return err
}
