package imapsync

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// saveEvery is how many confirmed copies are written into the base at once.
const saveEvery = 500

// appends copies bodies, one direction after the other: a store that is being read
// from is not written to.
func (x *exec) appends(ctx context.Context) error {
	x.r.tell(func(p *Progress) {
		for _, st := range x.p.appends {
			p.MessagesTotal++
			p.BytesTotal += st.m.Size
		}
	})
	for _, to := range []Side{A, B} {
		var steps []*appendStep
		for _, st := range x.p.appends {
			if st.to == to && st.dst.name[to] != "" && st.src.name[to.Other()] != "" {
				steps = append(steps, st)
			}
		}
		slices.SortStableFunc(steps, func(a, b *appendStep) int {
			if c := compareNames(a.src.label(), b.src.label()); c != 0 {
				return c
			}
			return int(int64(a.uid) - int64(b.uid))
		})
		for len(steps) > 0 {
			if err := x.r.claim(ctx); err != nil {
				return err
			}
			c := &copier{x: x, to: to, steps: steps}
			err := c.run(ctx)
			if err != nil {
				return fmt.Errorf("side %s to %s: %w", to.Other(), to, err)
			}
			if c.stop || len(c.rest) == len(steps) {
				break
			}
			steps = c.rest
		}
	}
	return nil
}

// copier is one stream of messages from one side to the other.
type copier struct {
	x       *exec
	to      Side
	steps   []*appendStep
	sent    []*appendStep
	flags   []Flags
	readers []*keyReader  // nil once their message was answered
	rest    []*appendStep // not reached before the lease had to be renewed
	stop    bool          // the account is full
	unsaved []*entry
	unclear error
}

// run streams until everything is there, the lease needs renewal, or a store fails.
func (c *copier) run(ctx context.Context) error {
	x, from := c.x, c.to.Other()
	var picks []Pick
	for i := 0; i < len(c.steps); {
		t := c.steps[i].src
		var uids []imap.UID
		for ; i < len(c.steps) && c.steps[i].src == t; i++ {
			uids = append(uids, c.steps[i].uid)
		}
		picks = append(picks, x.pick(t, from, slices.Compact(uids)))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := x.r.stores[c.to].Append(ctx, c.outgoing(ctx, picks), c.stored)
	err = errors.Join(err, c.save(), c.unclear)
	return err
}

// outgoing turns bodies of one side into messages for the other.
func (c *copier) outgoing(ctx context.Context, picks []Pick) iter.Seq2[Outgoing, error] {
	x, from := c.x, c.to.Other()
	return func(yield func(Outgoing, error) bool) {
		next := 0
		started := x.r.a.deps.Now()
		for body, err := range x.r.stores[from].Fetch(ctx, picks) {
			if err != nil {
				yield(Outgoing{}, err)
				return
			}
			for next < len(c.steps) && (c.steps[next].uid != body.UID || c.steps[next].src.name[from] != body.Box) {
				next++ // the server passed one over: it is gone
				x.fault(from, c.steps[next-1].src, 0, ErrGone)
			}
			if next == len(c.steps) {
				return
			}
			if c.stopped() {
				return
			}
			if x.r.a.deps.Now().Sub(started) > x.r.a.cfg.Lease/2 {
				c.rest = c.steps[next:]
				return
			}
			st := c.steps[next]
			next++
			if body.Err != nil {
				x.fault(from, st.src, st.uid, body.Err)
				continue
			}
			flags := st.flags
			if body.Flags != nil {
				flags = body.Flags
			}
			kr := &keyReader{r: body.Reader, size: body.Size}
			x.r.mu.Lock()
			c.sent, c.flags, c.readers = append(c.sent, st), append(c.flags, flags), append(c.readers, kr)
			x.r.mu.Unlock()
			x.r.tell(func(p *Progress) { p.Folder = st.dst.label() })
			if st.m.Size != body.Size {
				st.m.Size, st.m.Key = body.Size, Key{}
			}
			out := Outgoing{Box: st.dst.name[c.to], Validity: x.validity(st.dst, c.to), Flags: flags.keep(st.dst.storable(c.to)), Date: body.Date, Size: body.Size, Reader: kr}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func (c *copier) stopped() bool {
	c.x.r.mu.Lock()
	defer c.x.r.mu.Unlock()
	return c.stop
}

// stored takes the answer about the n-th message that was sent.
func (c *copier) stored(n int, s Stored) {
	x := c.x
	x.r.mu.Lock()
	if n < 0 || n >= len(c.sent) {
		c.unclear = errors.Join(c.unclear, fmt.Errorf("append: answer %d of %d", n, len(c.sent)))
		x.r.mu.Unlock()
		return
	}
	st, flags, kr := c.sent[n], c.flags[n], c.readers[n]
	c.readers[n] = nil
	x.r.mu.Unlock()
	switch {
	case s.Err == nil && s.UID == 0:
		x.count(c.to, func(r *SideReport) { r.Appended++; r.AppendedBytes += st.m.Size })
		return // the journal has it: the next round finds it by content
	case s.Err == nil:
	case errors.Is(s.Err, ErrTooBig), errors.Is(s.Err, ErrRefused):
		x.fault(c.to, st.dst, st.uid, s.Err)
		st.e.next.half, st.e.next.when, st.e.next.uid[c.to] = refused, x.r.a.deps.Now(), 0
		st.done = true
		return
	case errors.Is(s.Err, ErrOverQuota):
		x.fault(c.to, st.dst, 0, s.Err)
		x.r.mu.Lock()
		c.stop = true
		x.r.mu.Unlock()
		return
	case known(s.Err):
		st.void = true
		x.fault(c.to, st.dst, st.uid, s.Err)
		return
	default:
		x.r.mu.Lock()
		c.unclear = errors.Join(c.unclear, s.Err)
		x.r.mu.Unlock()
		return
	}
	e := st.e
	e.next.uid[c.to], e.next.half = s.UID, whole
	e.next.size = st.m.Size
	if kr != nil { // the body has passed: nobody has to read the header again
		e.next.key = kr.key()
	}
	e.final[c.to.Other()], e.final[c.to] = flags, flags.keep(st.dst.storable(c.to))
	st.done = true
	x.setValidity(st.dst, c.to, s.Validity)
	x.count(c.to, func(r *SideReport) { r.Appended++; r.AppendedBytes += st.m.Size })
	x.r.tell(func(p *Progress) { p.Messages++; p.Copied++; p.Bytes += st.m.Size })
	c.unsaved = append(c.unsaved, e)
	if len(c.unsaved) >= saveEvery {
		if err := c.save(); err != nil {
			x.r.mu.Lock()
			c.unclear = errors.Join(c.unclear, err)
			x.r.mu.Unlock()
		}
	}
}

// save writes confirmed pairs while the stream goes on. Their cursors stay behind:
// a crash reads the folder again and finds them known.
func (c *copier) save() error {
	if len(c.unsaved) == 0 {
		return nil
	}
	var ch change
	for _, e := range c.unsaved {
		c.x.place(&ch, e)
		c.x.found(&ch, e.home)
	}
	list := c.unsaved
	c.unsaved = nil
	return c.x.apply(ch, list)
}
