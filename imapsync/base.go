package imapsync

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// half says why a pair has a message on one side only.
type half uint8

const (
	whole   half = iota
	held         // deleted on one side; the other waits for approval
	dead         // should be gone, but the server cannot expunge it alone
	refused      // the other side does not take it
	doomed       // deleted on one side together with its folder; the other side follows
)

// pair is one message that both sides have: what they agreed on last.
type pair struct {
	id    uint64
	box   uint64
	uid   [2]imap.UID // 0: not there; see half
	flags [2]Flags    // as last seen on each side, after they were merged
	size  int64
	key   Key
	gid   [2]string
	half  half
	hold  string    // held: the hold it belongs to
	when  time.Time // refused: when
	dirty bool      // differs from what is saved, whatever becomes of it
}

// whole pairs have both messages.
func (p *pair) whole() bool { return p.half == whole }

// baseBox is one folder both sides had.
type baseBox struct {
	ID        uint64    `json:"id"`
	Name      string    `json:"name"`
	Cursor    [2]Cursor `json:"cursor"`
	MailboxID [2]string `json:"mailbox_id"`
	// Vacant: no pair has a message on this side. Whatever folder of this name is
	// there continues the track, and all that is in it is new.
	Vacant [2]bool `json:"vacant"`
	// Doubt: this side was new or restored when it was last listed, and the folder
	// has not been paired again since. Nothing was deleted there.
	Doubt      [2]bool `json:"doubt"`
	Subscribed bool    `json:"subscribed"`
	Use        string  `json:"use,omitempty"`
	Pairs      int     `json:"pairs"`   // how many, for thresholds without loading them
	Refused    int     `json:"refused"` // how many of them the other side does not take
	// loaded with pairs only where something changed
	pairs  []*pair
	loaded bool
}

// mark is our place in the hidden folder of one side.
type mark struct {
	Validity uint32   `json:"validity"`
	Next     imap.UID `json:"next"`
}

// stamp is a moment in the history of a quarantine folder: what is below Next was
// there at At.
type stamp struct {
	At       time.Time `json:"at"`
	Validity uint32    `json:"validity"`
	Next     imap.UID  `json:"next"`
}

// meta is the rest of the base.
type meta struct {
	Version    int        `json:"version"`
	ID         string     `json:"id"` // of this base; in every marker it writes
	Generation uint64     `json:"generation"`
	Claimed    uint64     `json:"claimed"` // a generation that may be on the servers already
	Marks      [2]mark    `json:"marks"`
	Stamps     [2][]stamp `json:"stamps"`
	NextID     uint64     `json:"next_id"`
	LastPass   time.Time  `json:"last_pass"`
	LastClean  time.Time  `json:"last_clean"`
	LastError  string     `json:"last_error"`
	Conflicts  uint64     `json:"conflicts"`
}

// intent is something that was about to be done and was not confirmed yet.
type intent struct {
	Kind     string        `json:"kind"` // "append", "copy", "move", "flag", "delete"
	Side     Side          `json:"side"` // that changes; the sources are on the other one
	Source   string        `json:"source"`
	Box      string        `json:"box"`      // destination
	Validity uint32        `json:"validity"` // of the destination; 0: it did not exist
	Next     imap.UID      `json:"next"`     // UIDNEXT of the destination before
	Entries  []intentEntry `json:"entries,omitempty"`
	seq      uint64
}

// intentEntry is one message of an intent.
type intentEntry struct {
	UID    imap.UID  `json:"uid"`
	Flags  string    `json:"flags,omitempty"`
	Remove string    `json:"remove,omitempty"` // kind "flag": Flags are added, these removed
	Size   int64     `json:"size"`
	Date   time.Time `json:"date"`
	Key    Key       `json:"key"`
	GID    string    `json:"gid,omitempty"`
}

// tomb remembers a deletion.
type tomb struct {
	Side Side      `json:"side"` // that was changed
	Box  string    `json:"box"`
	Key  string    `json:"key"`
	Size int64     `json:"size"`
	When time.Time `json:"when"`
}

// MarshalText is hexadecimal.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads hexadecimal.
func (k *Key) UnmarshalText(text []byte) error {
	return decodeKey(k, string(text))
}

// parseFlags reads what Flags.String wrote.
func parseFlags(s string) Flags {
	var list []imap.Flag
	for f := range strings.FieldsSeq(s) {
		list = append(list, imap.Flag(f))
	}
	return NewFlags(list...)
}

// encode writes the value of a pair; box and id are its key.
func (p *pair) encode() []byte {
	b := make([]byte, 0, 160)
	b = append(b, 1, byte(p.half))
	b = binary.AppendUvarint(b, uint64(p.uid[A]))
	b = binary.AppendUvarint(b, uint64(p.uid[B]))
	b = binary.AppendUvarint(b, uint64(p.size))
	b = append(b, p.key[:]...)
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	text(p.gid[A])
	text(p.gid[B])
	text(p.flags[A].String())
	if slices.Equal(p.flags[A], p.flags[B]) {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		text(p.flags[B].String())
	}
	text(p.hold)
	if p.when.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, p.when.Unix())
}

var errShortPair = errors.New("pair is cut short")

// pairDecoder reads pairs and shares equal sets of flags among them.
type pairDecoder struct{ flags map[string]Flags }

func (d *pairDecoder) decode(key, b []byte) (*pair, error) {
	if len(key) != 16 || len(b) < 2 || b[0] != 1 || b[1] > byte(doomed) {
		return nil, errShortPair
	}
	p := &pair{box: binary.BigEndian.Uint64(key), id: binary.BigEndian.Uint64(key[8:]), half: half(b[1])}
	b = b[2:]
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() []byte {
		n := number()
		if bad || n > uint64(len(b)) {
			bad, b = true, nil
			return nil
		}
		s := b[:n]
		b = b[n:]
		return s
	}
	p.uid[A], p.uid[B], p.size = imap.UID(number()), imap.UID(number()), int64(number())
	if bad || len(b) < len(p.key) {
		return nil, errShortPair
	}
	b = b[copy(p.key[:], b):]
	p.gid[A], p.gid[B] = string(text()), string(text())
	p.flags[A] = d.intern(text())
	p.flags[B] = p.flags[A]
	if len(b) == 0 {
		return nil, errShortPair
	}
	differ := b[0] == 1
	b = b[1:]
	if differ {
		p.flags[B] = d.intern(text())
	}
	p.hold = string(text())
	when, n := binary.Varint(b)
	if bad || n <= 0 {
		return nil, errShortPair
	}
	if when != 0 {
		p.when = time.Unix(when, 0)
	}
	return p, nil
}

func (d *pairDecoder) intern(text []byte) Flags {
	if f, ok := d.flags[string(text)]; ok {
		return f
	}
	f := parseFlags(string(text))
	d.flags[string(text)] = f
	return f
}
