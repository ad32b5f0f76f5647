package imapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// The hidden folder on both servers holds one message: the marker. It says which
// base wrote last and how often (the generation). Only runners append to it, so
// its UIDNEXT is a compare-and-swap: who appends a marker and gets the UID that
// UIDNEXT had promised has the account; who gets another one came second.
const markerBox = HiddenPrefix + "-state"

// markerKeep is how many old markers are left before they are tidied away.
const markerKeep = 16

// marker is one message of the hidden folder.
type marker struct {
	uid        imap.UID
	base       string
	run        string // the pass that wrote it; copies of one base have different ones
	generation uint64
	until      time.Time
}

func (m marker) text(now time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: understudy <understudy@localhost>\r\nSubject: state of the mailbox synchronisation\r\n")
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s.%d.%d@understudy>\r\n", now.UTC().Format(time.RFC1123Z), m.base, m.generation, now.UnixNano())
	fmt.Fprintf(&b, "X-Understudy-Base: %s\r\nX-Understudy-Pass: %s\r\nX-Understudy-Generation: %d\r\nX-Understudy-Until: %d\r\n", m.base, m.run, m.generation, m.until.Unix())
	b.WriteString("\r\nThis folder belongs to understudy, which keeps this mailbox equal to the one at\r\n" +
		"the other site. Nothing is lost when it is deleted, but the next pass takes longer.\r\n")
	return b.Bytes()
}

// maxMarkerBytes bounds what is read of a marker.
const maxMarkerBytes = 8 << 10

func parseMarker(r io.Reader, uid imap.UID) (marker, error) {
	msg, err := mail.ReadMessage(io.LimitReader(r, maxMarkerBytes))
	if err != nil {
		return marker{}, fmt.Errorf("read marker: %w", err)
	}
	generation, err := strconv.ParseUint(msg.Header.Get("X-Understudy-Generation"), 10, 64)
	if err != nil {
		return marker{}, fmt.Errorf("read marker: generation: %w", err)
	}
	until, err := strconv.ParseInt(msg.Header.Get("X-Understudy-Until"), 10, 64)
	if err != nil {
		return marker{}, fmt.Errorf("read marker: lease: %w", err)
	}
	return marker{
		uid: uid, base: strings.TrimSpace(msg.Header.Get("X-Understudy-Base")), run: strings.TrimSpace(msg.Header.Get("X-Understudy-Pass")),
		generation: generation, until: time.Unix(until, 0),
	}, nil
}

// hidden finds the marker's folder in the last listing.
func (r *runner) hidden(s Side) (Cursor, bool) {
	for _, b := range r.list[s].Boxes {
		if b.Name == markerBox && !b.NoSelect {
			return b.Cursor, true
		}
	}
	return Cursor{}, false
}

// judgeMarkers compares the servers' generation with that of the base. It returns
// the sides about which the base says nothing any more, or ErrBusy.
func (r *runner) judgeMarkers(ctx context.Context) (blank [2]bool, err error) {
	m := &r.img.meta
	before := m.Marks
	outdated := false
	for _, s := range []Side{A, B} {
		c, there := r.hidden(s)
		known := m.Marks[s]
		switch {
		case !there:
			if known.Validity != 0 && len(r.img.boxes) > 0 {
				blank[s] = true
				r.note("side %s does not have our hidden folder: it is new, or was restored; nothing is concluded from what is missing there", s)
			}
			m.Marks[s] = mark{}
			continue
		case c.Validity == known.Validity && c.Next == known.Next, c.Messages == 0 && known.Validity == 0:
			continue
		}
		last, err := r.lastMarker(ctx, s, c)
		if err != nil {
			return blank, fmt.Errorf("side %s: %w", s, err)
		}
		now := r.a.deps.Now()
		switch {
		case last.uid == 0: // empty or unreadable: as if it were not there
			blank[s] = known.Validity != 0 && len(r.img.boxes) > 0
		case last.run == r.id: // written in an earlier round
		case last.base != m.ID, last.generation > max(m.Generation, m.Claimed):
			if now.Before(last.until) {
				return blank, fmt.Errorf("side %s: lease until %s: %w", s, last.until.UTC().Format(time.RFC3339), ErrBusy)
			}
			outdated = true
		case last.generation < m.Generation && len(r.img.boxes) > 0:
			blank[s] = true
			r.note("side %s went back in time (generation %d, it had %d): it was restored from a backup", s, last.generation, m.Generation)
		}
		m.Marks[s] = mark{Validity: c.Validity, Next: c.Next}
	}
	if outdated && (len(r.img.boxes) > 0 || len(r.img.intents) > 0 || len(r.img.holds) > 0) {
		r.note("another runner, or a newer copy of this base, synchronised this account meanwhile: all is paired again by content")
		if !r.opt.DryRun {
			if err := r.a.db.apply(change{wipe: true, meta: m}); err != nil {
				return blank, err
			}
		}
		r.img.boxes, r.img.intents, r.img.holds = nil, nil, nil
	} else if m.Marks != before && !r.opt.DryRun {
		return blank, r.a.db.apply(change{meta: m, putBoxes: r.doubt(blank)})
	}
	return blank, nil
}

// doubt notes in the base which folders have to be paired again on blank sides: they
// stay in doubt until that has been saved, whatever this pass comes to.
func (r *runner) doubt(blank [2]bool) []*baseBox {
	if blank == [2]bool{} {
		return nil
	}
	for _, b := range r.img.boxes {
		for s := range blank {
			b.Doubt[s] = b.Doubt[s] || blank[s]
		}
	}
	return r.img.boxes
}

func (r *runner) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(r.report.Notes, text) {
		r.report.Notes = append(r.report.Notes, text)
	}
}

// lastMarker reads the newest marker; uid 0: there is none.
func (r *runner) lastMarker(ctx context.Context, s Side, c Cursor) (marker, error) {
	list, err := r.markers(ctx, s, c)
	if err != nil || len(list) == 0 {
		return marker{}, err
	}
	return list[len(list)-1], nil
}

// markers reads all of them; those that cannot be read are skipped.
func (r *runner) markers(ctx context.Context, s Side, c Cursor) ([]marker, error) {
	deltas, err := r.stores[s].Changes(ctx, []Since{{Box: markerBox}})
	if err != nil {
		return nil, err
	}
	if len(deltas) != 1 || deltas[0].Err != nil {
		return nil, nil
	}
	var uids []imap.UID
	for _, m := range deltas[0].Messages {
		uids = append(uids, m.UID)
	}
	if len(uids) == 0 {
		return nil, nil
	}
	if len(uids) > 4*markerKeep {
		uids = uids[len(uids)-4*markerKeep:]
	}
	var out []marker
	for body, err := range r.stores[s].Fetch(ctx, []Pick{{Box: markerBox, Validity: deltas[0].Cursor.Validity, UIDs: uids}}) {
		if err != nil {
			return nil, err
		}
		if body.Err != nil {
			continue
		}
		if m, err := parseMarker(body.Reader, body.UID); err == nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// errFull says that a side has no room for a marker, and that no other runner has
// written one there.
var errFull = errors.New("no room for a marker")

// claim takes the account before the first change of a pass, and again while a
// long pass goes on. Side A first: of two runners only one gets past it. A side
// that is full is passed over, for it must be possible to delete there what was
// deleted on the other; then the other side's marker alone decides. Of two runners
// that pass over different sides, the later one finds the earlier one's marker on
// the side that it passes over.
func (r *runner) claim(ctx context.Context) error {
	now := r.a.deps.Now()
	if !r.claimed.IsZero() && now.Sub(r.claimed) < r.a.cfg.Lease/2 {
		return nil
	}
	m := &r.img.meta
	generation := m.Generation
	if r.claimed.IsZero() {
		generation++
		m.Claimed = generation
		if err := r.a.db.apply(change{meta: m}); err != nil {
			return err
		}
	}
	mk := marker{base: m.ID, run: r.id, generation: generation, until: now.Add(r.a.cfg.Lease)}
	full := 0
	for _, s := range []Side{A, B} {
		err := r.claimSide(ctx, s, mk)
		if errors.Is(err, errFull) && full == 0 {
			full++
			r.note("side %s is full: it has not even room for our marker", s)
			continue
		}
		if err != nil {
			err = fmt.Errorf("side %s: %w", s, err)
			if errors.Is(err, ErrBusy) {
				// Our marker came second: it must not make this base look current.
				m.Claimed = m.Generation
				err = errors.Join(err, r.a.db.apply(change{meta: m}))
			}
			return err
		}
	}
	m.Generation = generation
	r.claimed = now
	return r.a.db.apply(change{meta: m})
}

func (r *runner) claimSide(ctx context.Context, s Side, mk marker) error {
	m := &r.img.meta
	if m.Marks[s].Validity == 0 {
		if c, there := r.hidden(s); there {
			m.Marks[s] = mark{Validity: c.Validity, Next: c.Next}
		} else if err := r.createHidden(ctx, s, markerBox); err != nil {
			return err
		}
	}
	text := mk.text(r.a.deps.Now())
	var got Stored
	err := r.stores[s].Append(ctx, one(Outgoing{
		Box: markerBox, Validity: m.Marks[s].Validity, Flags: NewFlags(imap.FlagSeen), Date: r.a.deps.Now(),
		Size: int64(len(text)), Reader: bytes.NewReader(text),
	}), func(_ int, st Stored) { got = st })
	if err == nil {
		err = got.Err
	}
	expected := m.Marks[s].Next
	if m.Marks[s].Validity == 0 {
		expected = 1
	}
	if errors.Is(err, ErrOverQuota) {
		if err := r.first(ctx, s, expected, mk); err != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errFull, err)
	}
	if err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	if got.UID == expected && got.Validity != 0 {
		m.Marks[s] = mark{Validity: got.Validity, Next: got.UID + 1}
		return r.tidyMarkers(ctx, s, mk.generation, got.UID)
	}
	// No UID came back, or another one: see who was first.
	if err := r.first(ctx, s, expected, mk); err != nil {
		return err
	}
	// Where the folder will be is known from the next listing.
	m.Marks[s] = mark{}
	if got.UID != 0 {
		m.Marks[s] = mark{Validity: got.Validity, Next: got.UID + 1}
	}
	return nil
}

// first is nil where no other runner has written a marker from UID expected on,
// else ErrBusy.
func (r *runner) first(ctx context.Context, s Side, expected imap.UID, mk marker) error {
	list, err := r.markers(ctx, s, Cursor{})
	if err != nil {
		return err
	}
	for _, other := range list {
		if other.uid >= expected && (other.base != mk.base || other.run != mk.run) {
			return fmt.Errorf("a marker of another runner came first: %w", ErrBusy)
		}
	}
	return nil
}

// tidyMarkers removes old markers now and then.
func (r *runner) tidyMarkers(ctx context.Context, s Side, generation uint64, ours imap.UID) error {
	if generation%markerKeep != 0 || ours < 2 {
		return nil
	}
	var uids []imap.UID
	for u := ours - min(ours-1, 4*markerKeep); u < ours; u++ {
		uids = append(uids, u)
	}
	_, err := r.stores[s].Expunge(ctx, []Removal{{Pick: Pick{Box: markerBox, Validity: r.img.meta.Marks[s].Validity, UIDs: uids}}})
	return err
}

func (r *runner) createHidden(ctx context.Context, s Side, name string) error {
	errs, err := r.stores[s].Folders(ctx, []FolderChange{{Op: CreateFolder, Name: name}})
	if err == nil && len(errs) == 1 && !errors.Is(errs[0], ErrBoxExists) {
		err = errs[0]
	}
	if err != nil {
		return fmt.Errorf("create hidden folder: %w", err)
	}
	return nil
}

// one is a stream of one message.
func one(o Outgoing) iter.Seq2[Outgoing, error] {
	return func(yield func(Outgoing, error) bool) { yield(o, nil) }
}
