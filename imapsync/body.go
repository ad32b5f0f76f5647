package imapsync

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// digest is the SHA-256 of a message's body, without its header. It tells messages
// apart that have one content key: drafts, reports without a Message-ID, copies.
type digest [sha256.Size]byte

// place is a message of one side in one round.
type place struct {
	box string
	uid imap.UID
}

// body is the digest of a message, if it has been read; else it is asked for.
func (pl *planner) body(t *track, s Side, uid imap.UID) (digest, bool) {
	at := place{t.name[s], uid}
	d, ok := pl.in.bodies[s][at]
	if !ok {
		if pl.p.bodies[s] == nil {
			pl.p.bodies[s] = make(map[place]uint32)
		}
		pl.p.bodies[s][at] = t.cursor(s).Validity
	}
	return d, ok
}

// sameBody compares two messages by their bodies. While one of them has not been
// read, they are not the same.
func (pl *planner) sameBody(t *track, s Side, uid imap.UID, n *newcomer) bool {
	x, okX := pl.body(t, s, uid)
	y, okY := pl.body(n.track, n.side, n.m.UID)
	return okX && okY && x == y
}

// fillBodies reads the bodies that a plan needs. What cannot be read equals nothing.
func (r *runner) fillBodies(ctx context.Context, s Side, want map[place]uint32, into map[place]digest) error {
	if len(want) == 0 {
		return nil
	}
	byBox := make(map[string]*Pick)
	var picks []Pick
	for at, validity := range want {
		if byBox[at.box] == nil {
			byBox[at.box] = &Pick{Box: at.box, Validity: validity}
		}
		byBox[at.box].UIDs = append(byBox[at.box].UIDs, at.uid)
		into[at] = sha256.Sum256(fmt.Appendf(nil, "unread %s %q %d", s, at.box, at.uid))
	}
	for _, box := range sortedKeys(byBox) {
		slices.Sort(byBox[box].UIDs)
		picks = append(picks, *byBox[box])
	}
	for body, err := range r.stores[s].Fetch(ctx, picks) {
		if err != nil {
			return err
		}
		if body.Err != nil {
			continue
		}
		d, err := digestOf(body.Reader)
		if errors.Is(err, ErrBadBody) {
			continue
		}
		if err != nil {
			return err
		}
		into[place{body.Box, body.UID}] = d
	}
	return nil
}

// digestOf reads a message and makes the digest of what follows its header.
func digestOf(r io.Reader) (d digest, err error) {
	br := bufio.NewReader(r)
	for begin := true; ; {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return d, err
		}
		if begin && (string(line) == "\r\n" || string(line) == "\n") {
			break
		}
		begin = err == nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, br); err != nil {
		return d, err
	}
	h.Sum(d[:0])
	return d, nil
}
