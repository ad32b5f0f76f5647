package storetest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
)

type store struct{ s *Server }

var _ imapsync.Store = (*store)(nil)

func (st *store) List(ctx context.Context) (l imapsync.Listing, err error) {
	s := st.s
	if err := s.enter(ctx, "list"); err != nil {
		return l, err
	}
	l = imapsync.Listing{GIDs: !s.features.NoGID, LimitBytes: s.features.LimitBytes}
	for name, b := range s.boxes {
		if s.Unlisted != nil && s.Unlisted(name) {
			continue
		}
		x := imapsync.Box{Name: name, ID: b.id, Subscribed: b.subscribed, Use: b.use, NoSelect: b.noselect, Foreign: b.foreign}
		if !b.noselect {
			x.Cursor = st.cursor(b)
		}
		l.Boxes = append(l.Boxes, x)
	}
	return l, s.leave("list")
}

func (st *store) cursor(b *box) imapsync.Cursor {
	c := imapsync.Cursor{Validity: b.validity, Next: b.next, ModSeq: b.modseq, Messages: uint32(len(b.msgs))}
	if st.s.features.NoCondstore {
		c.ModSeq = 0
	}
	return c
}

func (st *store) Changes(ctx context.Context, since []imapsync.Since) ([]imapsync.Delta, error) {
	s := st.s
	if err := s.enter(ctx, "changes"); err != nil {
		return nil, err
	}
	out := make([]imapsync.Delta, len(since))
	for i, q := range since {
		b := s.boxes[q.Box]
		if s.Unreadable != nil {
			if out[i].Err = s.Unreadable(q.Box); out[i].Err != nil {
				continue
			}
		}
		if b == nil || b.noselect {
			out[i].Err = imapsync.ErrNoBox
			continue
		}
		out[i] = st.delta(b, q)
	}
	return out, s.leave("changes")
}

func (st *store) delta(b *box, q imapsync.Since) imapsync.Delta {
	d := imapsync.Delta{Cursor: st.cursor(b), Permanent: systemFlags(), AnyKeyword: !st.s.features.NoKeywords}
	same := q.Cursor.Validity == b.validity
	for _, m := range b.msgs {
		if same && m.UID < q.Cursor.Next && !st.s.features.NoCondstore && q.Cursor.ModSeq != 0 && m.ModSeq <= q.Cursor.ModSeq {
			continue
		}
		_, known := slices.BinarySearch(q.Known, m.UID)
		x := imapsync.Message{UID: m.UID, Flags: m.Flags, ModSeq: m.ModSeq}
		if !same || !known || m.UID >= q.Cursor.Next {
			x = st.describe(m, q.Keys && (!known || !same))
		}
		d.Messages = append(d.Messages, x)
	}
	if same {
		for _, u := range q.Known {
			if b.find(u) == nil {
				d.Vanished = append(d.Vanished, u)
			}
		}
	}
	return d
}

func (st *store) describe(m *Message, key bool) imapsync.Message {
	x := imapsync.Message{UID: m.UID, Flags: m.Flags, Size: int64(len(m.Body)), Date: m.Date}
	if !st.s.features.NoCondstore {
		x.ModSeq = m.ModSeq
	}
	if !st.s.features.NoGID {
		x.GID = m.GID
	}
	if key {
		x.Key = imapsync.NewKey([]byte(m.Body), x.Size)
	}
	return x
}

// open finds the box of a pick; the lock is held.
func (st *store) open(p imapsync.Pick) (*box, error) {
	b := st.s.boxes[p.Box]
	switch {
	case b == nil || b.noselect:
		return nil, imapsync.ErrNoBox
	case b.validity != p.Validity:
		return nil, imapsync.ErrReplaced
	}
	return b, nil
}

func (st *store) Describe(ctx context.Context, picks []imapsync.Pick) ([][]imapsync.Message, error) {
	s := st.s
	if err := s.enter(ctx, "describe"); err != nil {
		return nil, err
	}
	out := make([][]imapsync.Message, len(picks))
	for i, p := range picks {
		b, err := st.open(p)
		if err != nil {
			continue
		}
		for _, u := range p.UIDs {
			if m := b.find(u); m != nil {
				out[i] = append(out[i], st.describe(m, true))
			}
		}
	}
	return out, s.leave("describe")
}

func (st *store) Fetch(ctx context.Context, picks []imapsync.Pick) iter.Seq2[imapsync.Body, error] {
	s := st.s
	return func(yield func(imapsync.Body, error) bool) {
		if err := s.enter(ctx, "fetch"); err != nil {
			yield(imapsync.Body{}, err)
			return
		}
		s.mu.Unlock()
		for _, p := range picks {
			for _, u := range p.UIDs {
				body := imapsync.Body{Box: p.Box, UID: u}
				s.mu.Lock()
				b, err := st.open(p)
				if err == nil {
					if m := b.find(u); m != nil {
						body.Size, body.Date, body.Flags, body.Reader = int64(len(m.Body)), m.Date, m.Flags, strings.NewReader(m.Body)
						s.bytes += body.Size
					} else {
						err = imapsync.ErrGone
					}
				}
				s.mu.Unlock()
				body.Err = err
				if err := ctx.Err(); err != nil {
					yield(imapsync.Body{}, err)
					return
				}
				if !yield(body, nil) {
					return
				}
				if s.Cut != nil && s.Cut("fetch", true) {
					yield(imapsync.Body{}, ErrCut)
					return
				}
			}
		}
	}
}

func (st *store) Append(ctx context.Context, msgs iter.Seq2[imapsync.Outgoing, error], done func(int, imapsync.Stored)) error {
	s := st.s
	if err := s.enter(ctx, "append"); err != nil {
		return err
	}
	s.mu.Unlock()
	n := 0
	for o, err := range msgs {
		if err != nil {
			return err
		}
		body, err := io.ReadAll(o.Reader)
		if err != nil {
			return err
		}
		if int64(len(body)) != o.Size {
			return fmt.Errorf("append: %d bytes instead of %d", len(body), o.Size)
		}
		if s.Cut != nil && s.Cut("append message", false) {
			return ErrCut
		}
		s.mu.Lock()
		res := st.store(o, body)
		s.mu.Unlock()
		if s.Cut != nil && s.Cut("append message", true) {
			return ErrCut
		}
		done(n, res)
		n++
	}
	return nil
}

func (st *store) store(o imapsync.Outgoing, body []byte) imapsync.Stored {
	s := st.s
	b := s.boxes[o.Box]
	switch {
	case b == nil || b.noselect:
		return imapsync.Stored{Err: imapsync.ErrNoBox}
	case o.Validity != 0 && o.Validity != b.validity:
		return imapsync.Stored{Err: imapsync.ErrReplaced}
	case s.features.MaxBytes > 0 && o.Size > s.features.MaxBytes:
		return imapsync.Stored{Err: imapsync.ErrTooBig}
	case s.features.QuotaBytes > 0 && s.used+o.Size > s.features.QuotaBytes:
		return imapsync.Stored{Err: imapsync.ErrOverQuota}
	}
	s.bytes += o.Size
	s.gid++
	u := s.add(b, &Message{Flags: o.Flags, Date: o.Date, Body: string(body), GID: fmt.Sprintf("G%d-%d", s.features.FirstValid, s.gid)})
	return st.stored(u, b)
}

func (st *store) stored(u imap.UID, b *box) imapsync.Stored {
	if st.s.features.NoUIDPlus {
		return imapsync.Stored{}
	}
	return imapsync.Stored{UID: u, Validity: b.validity}
}

func (st *store) Transfer(ctx context.Context, ts []imapsync.Transfer) ([][]imapsync.Stored, error) {
	s := st.s
	if err := s.enter(ctx, "transfer"); err != nil {
		return nil, err
	}
	out := make([][]imapsync.Stored, len(ts))
	for i, t := range ts {
		out[i] = make([]imapsync.Stored, len(t.From.UIDs))
		src, err := st.open(t.From)
		dst := s.boxes[t.To]
		if dst == nil && err == nil {
			err = imapsync.ErrNoBox
		}
		for j, u := range t.From.UIDs {
			if err != nil {
				out[i][j].Err = err
				continue
			}
			m := src.find(u)
			if m == nil {
				out[i][j].Err = imapsync.ErrGone
				continue
			}
			if t.Move {
				s.remove(src, u)
			}
			c := *m
			out[i][j] = st.stored(s.add(dst, &c), dst)
		}
	}
	if err := s.leave("transfer"); err != nil {
		return nil, err
	}
	return out, nil
}

func (st *store) SetFlags(ctx context.Context, cs []imapsync.FlagChange) ([]imapsync.Outcome, error) {
	s := st.s
	if err := s.enter(ctx, "flags"); err != nil {
		return nil, err
	}
	out := make([]imapsync.Outcome, len(cs))
	for i, c := range cs {
		b, err := st.open(c.Pick)
		if err != nil {
			out[i].Err = err
			continue
		}
		for _, u := range c.UIDs {
			m := b.find(u)
			switch {
			case m == nil:
				out[i].Missed = append(out[i].Missed, u)
			case c.UnchangedSince != 0 && !s.features.NoCondstore && m.ModSeq > c.UnchangedSince:
				out[i].Modified = append(out[i].Modified, u)
			default:
				s.setFlags(b, m, c.Add, c.Remove)
			}
		}
	}
	if err := s.leave("flags"); err != nil {
		return nil, err
	}
	return out, nil
}

func (st *store) Expunge(ctx context.Context, rs []imapsync.Removal) ([]imapsync.Outcome, error) {
	s := st.s
	if err := s.enter(ctx, "expunge"); err != nil {
		return nil, err
	}
	out := make([]imapsync.Outcome, len(rs))
	for i, r := range rs {
		b, err := st.open(r.Pick)
		if err != nil {
			out[i].Err = err
			continue
		}
		for _, u := range r.UIDs {
			m := b.find(u)
			switch {
			case m == nil:
			case r.UnchangedSince != 0 && !s.features.NoCondstore && m.ModSeq > r.UnchangedSince:
				out[i].Modified = append(out[i].Modified, u)
			case s.features.NoUIDPlus:
				s.setFlags(b, m, imapsync.NewFlags(imap.FlagDeleted), nil)
				out[i].Marked = append(out[i].Marked, u)
			default:
				s.remove(b, u)
			}
		}
	}
	if err := s.leave("expunge"); err != nil {
		return nil, err
	}
	return out, nil
}

func (st *store) Folders(ctx context.Context, cs []imapsync.FolderChange) ([]error, error) {
	s := st.s
	if err := s.enter(ctx, "folders"); err != nil {
		return nil, err
	}
	out := make([]error, len(cs))
	for i, c := range cs {
		out[i] = st.folder(c)
	}
	if err := s.leave("folders"); err != nil {
		return nil, err
	}
	return out, nil
}

func (st *store) folder(c imapsync.FolderChange) error {
	s := st.s
	b := s.boxes[c.Name]
	for _, name := range []string{c.Name, c.To} {
		if name != "" && slices.Contains(strings.Split(name, "/"), "") || c.Name == "" {
			return imapsync.ErrNoName
		}
	}
	switch c.Op {
	case imapsync.CreateFolder:
		if b != nil && !b.noselect {
			return imapsync.ErrBoxExists
		}
		s.create(c.Name, c.Use)
	case imapsync.RenameFolder:
		return s.rename(c.Name, c.To)
	case imapsync.DeleteFolder:
		if b == nil {
			return imapsync.ErrNoBox
		}
		for name := range s.boxes {
			if strings.HasPrefix(name, c.Name+"/") {
				return imapsync.ErrNotEmpty
			}
		}
		if len(b.msgs) > 0 || c.Name == "INBOX" {
			return imapsync.ErrNotEmpty
		}
		delete(s.boxes, c.Name)
	case imapsync.SubscribeFolder, imapsync.UnsubscribeFolder:
		if b == nil {
			return imapsync.ErrNoBox
		}
		b.subscribed = c.Op == imapsync.SubscribeFolder
	default:
		return imapsync.ErrRefused
	}
	return nil
}
