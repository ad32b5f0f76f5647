package imapstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

// errStopped ends a FETCH whose reader has seen enough.
var errStopped = errors.New("nobody reads on")

// Fetch implements imapsync.Reader.
func (s *Store) Fetch(ctx context.Context, picks []imapsync.Pick) iter.Seq2[imapsync.Body, error] {
	return func(yield func(imapsync.Body, error) bool) {
		f := &fetcher{s: s, picks: picks, yield: yield}
		err := f.run(ctx)
		_ = s.wrote(nil)
		if err != nil && !errors.Is(err, errStopped) {
			yield(imapsync.Body{}, fmt.Errorf("fetch messages: %w", err))
		}
	}
}

// fetcher streams the messages of picks. at and next name the message that the reader
// has not got yet.
type fetcher struct {
	s     *Store
	picks []imapsync.Pick
	yield func(imapsync.Body, error) bool

	at, next int
	first    bool // something was given
}

func (f *fetcher) run(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		err := f.attempt(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, wire.ErrOrder) && !f.s.alone:
			f.s.alone = true // reconnect, and one message a command from here on
		case errors.Is(err, errSizes) && !f.s.sizesFirst:
			f.s.sizesFirst = true
		case attempt == 0 && !f.first && errors.Is(err, wire.ErrClosed) && ctx.Err() == nil:
			// It had rested too long; nothing was read yet.
		default:
			return err
		}
		f.s.drop()
	}
}

// errSizes: bodies come before their sizes.
var errSizes = errors.New("body before its size")

// piece is one FETCH command.
type piece struct {
	pick  int
	set   imap.UIDSet
	reply *wire.Reply[struct{}]
}

// attempt streams what is still to come over one connection.
func (f *fetcher) attempt(ctx context.Context) error {
	c, err := f.s.writing(ctx)
	if err != nil {
		return err
	}
	var queue []piece
	finish := func() error {
		p := queue[0]
		queue = queue[1:]
		_, err := p.reply.Wait(ctx)
		if err != nil && !wire.Refused(err) {
			return err
		}
		why := imapsync.ErrGone
		if err != nil {
			if why = fault(err); !certain(why) {
				return why
			}
		}
		return f.pass(p.pick, last(p.set), why)
	}
	ahead := 4
	if f.s.alone {
		ahead = 1 // or it could not be told whose a body is
	}
	selected := ""
	for i := f.at; i < len(f.picks); i++ {
		p := f.picks[i]
		uids := p.UIDs
		if i == f.at {
			uids = uids[f.next:]
		}
		if len(uids) == 0 {
			continue
		}
		if selected != p.Box {
			for len(queue) > 0 { // whose box is whose must stay plain
				if len(queue) <= 1 && !f.s.alone {
					break
				}
				if err := finish(); err != nil {
					return err
				}
			}
			o := f.s.openNext(c, p.Box, selected)
			selected = p.Box
			if len(queue) == 0 || o.err != nil {
				box, err := o.wait(ctx)
				if err == nil && box.Validity != p.Validity {
					err = imapsync.ErrReplaced
				}
				if err != nil {
					selected = ""
					if !certain(err) {
						return err
					}
					for len(queue) > 0 {
						if err := finish(); err != nil {
							return err
						}
					}
					if err := f.pass(i, ^imap.UID(0), err); err != nil {
						return err
					}
					continue
				}
			}
		}
		for _, set := range f.sets(uids) {
			for len(queue) >= ahead {
				if err := finish(); err != nil {
					return err
				}
			}
			queue = append(queue, f.send(c, i, set))
		}
	}
	for len(queue) > 0 {
		if err := finish(); err != nil {
			return err
		}
	}
	return nil
}

// openNext is open for a mailbox that follows another one on the wire.
func (s *Store) openNext(c *wire.Client, canon, before string) *opening {
	if before == "" {
		return s.open(c, canon)
	}
	name, err := s.name(canon)
	if err != nil {
		return &opening{err: err}
	}
	return &opening{s: s, canon: canon, reply: c.Select(name, wire.SelectOptions{})}
}

func last(set imap.UIDSet) imap.UID { return set[len(set)-1].Stop }

// sets cuts UIDs into commands.
func (f *fetcher) sets(uids []imap.UID) []imap.UIDSet {
	step := 200
	if f.s.alone {
		step = 1
	}
	var out []imap.UIDSet
	for len(uids) > 0 {
		n := min(step, len(uids))
		out = append(out, wire.SplitUIDs(wire.UIDs(uids[:n]))...)
		uids = uids[n:]
	}
	return out
}

// send asks for the bodies of a set, with the sizes of all in front where the server
// would tell them too late.
func (f *fetcher) send(c *wire.Client, pick int, set imap.UIDSet) piece {
	type meta struct {
		size  int64
		date  time.Time
		flags imapsync.Flags
	}
	known := make(map[imap.UID]meta)
	collect := func(m *wire.Message) {
		k, ok := known[m.UID]
		if !ok {
			k.size = -1
		}
		if m.Size >= 0 {
			k.size = m.Size
		}
		if !m.Date.IsZero() {
			k.date = m.Date
		}
		if m.HasFlags {
			if k.flags = f.s.flags(m.Flags); k.flags == nil {
				k.flags = imapsync.Flags{}
			}
		}
		known[m.UID] = k
	}
	if f.s.sizesFirst {
		c.Fetch(set, wire.Items{Flags: true, Size: true, Date: true}, func(m *wire.Message) error { collect(m); return nil })
	}
	reply := c.Fetch(set, wire.Items{Flags: true, Size: true, Date: true, Body: true}, func(m *wire.Message) error {
		collect(m)
		if m.Body == nil || !set.Contains(m.UID) {
			return nil
		}
		if sel := c.Selected(); sel == nil || sel.Validity != f.picks[pick].Validity {
			return nil // finish says ErrGone; the box was replaced in this very moment
		}
		k := known[m.UID]
		delete(known, m.UID)
		if k.size < 0 || k.date.IsZero() {
			if f.s.sizesFirst {
				return f.give(pick, m.UID, imapsync.Body{Err: fmt.Errorf("%w: size not told", imapsync.ErrBadBody)})
			}
			return errSizes
		}
		body := imapsync.Body{Size: k.size, Date: k.date, Flags: k.flags, Reader: m.Body}
		if m.BodySize != k.size {
			body.Reader, body.Err = nil, fmt.Errorf("%w: %d bytes instead of %d", imapsync.ErrBadBody, m.BodySize, k.size)
		}
		return f.give(pick, m.UID, body)
	})
	return piece{pick: pick, set: set, reply: reply}
}

// give hands a message to the reader, after those before it that did not come.
func (f *fetcher) give(pick int, uid imap.UID, body imapsync.Body) error {
	if pick < f.at || pick == f.at && f.next > 0 && uid <= f.picks[pick].UIDs[f.next-1] {
		return nil // it was given already
	}
	if err := f.pass(pick, uid-1, imapsync.ErrGone); err != nil {
		return err
	}
	if pick != f.at || f.next >= len(f.picks[pick].UIDs) || f.picks[pick].UIDs[f.next] != uid {
		return nil // not asked for
	}
	f.next++
	return f.out(pick, uid, body)
}

// pass tells the reader of messages that do not come: all of earlier picks, and of this
// one those up to uid.
func (f *fetcher) pass(pick int, uid imap.UID, why error) error {
	for f.at <= pick && f.at < len(f.picks) {
		uids := f.picks[f.at].UIDs
		for f.next < len(uids) && (f.at < pick || uids[f.next] <= uid) {
			f.next++
			if err := f.out(f.at, uids[f.next-1], imapsync.Body{Err: why}); err != nil {
				return err
			}
		}
		if f.at == pick {
			return nil
		}
		f.at, f.next = f.at+1, 0
	}
	return nil
}

func (f *fetcher) out(pick int, uid imap.UID, body imapsync.Body) error {
	f.first = true
	body.Box, body.UID = f.picks[pick].Box, uid
	if body.Err != nil && errors.Is(body.Err, imapsync.ErrNoBox) {
		body.Err = fmt.Errorf("%w: %w", imapsync.ErrReplaced, body.Err)
	}
	if body.Reader == nil {
		body.Reader = io.LimitReader(nil, 0)
	}
	if !f.yield(body, nil) {
		return errStopped
	}
	return nil
}
