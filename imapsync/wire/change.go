package wire

import (
	"strconv"

	"github.com/emersion/go-imap/v2"
)

// StoreResult is the answer to STORE.
type StoreResult struct {
	// Modified were left alone: they changed after UnchangedSince (RFC 7162, section
	// 3.1.3). It is also there when the server said NO because of them.
	Modified imap.UIDSet
	// Updated are the messages the server told of, with their new MODSEQ and flags.
	Updated []Updated
}

// Updated is a message after STORE.
type Updated struct {
	UID      imap.UID
	HasFlags bool
	Flags    []imap.Flag
	ModSeq   uint64
}

// StoreOp adds or removes flags.
type StoreOp byte

// Flags are never replaced as a whole: another session's change would be lost.
const (
	AddFlags    StoreOp = '+'
	RemoveFlags StoreOp = '-'
)

// Store changes flags in the open mailbox. unchangedSince, where not 0 and the server has
// CONDSTORE, leaves out messages that changed after it. Messages that are gone are passed
// over (RFC 3501, section 6.4.8).
func (c *Client) Store(set imap.UIDSet, op StoreOp, flags []imap.Flag, unchangedSince uint64) *Reply[StoreResult] {
	r := begin[StoreResult](c, "UID STORE", func(w *builder) {
		w.raw(" ").set(set)
		if unchangedSince > 0 && c.Has(imap.CapCondStore) {
			w.raw(" (UNCHANGEDSINCE ", strconv.FormatUint(unchangedSince, 10), ")")
		}
		// RFC 7162, section 3.1.3: with mod-sequences .SILENT still tells who changed.
		item := "FLAGS "
		if c.Has(imap.CapCondStore) {
			item = "FLAGS.SILENT "
		}
		w.raw(" ", string(op), item).flags(flags)
	})
	if r.err != nil {
		return r
	}
	r.cmd.fetch = &fetching{set: set, each: func(m *Message) error {
		if len(r.value.Updated) < c.dec.lim.Ranges {
			r.value.Updated = append(r.value.Updated, Updated{m.UID, m.HasFlags, append([]imap.Flag(nil), m.Flags...), m.ModSeq})
		}
		return nil
	}}
	r.cmd.finish = func(s Status) {
		if s.Code == "MODIFIED" {
			r.value.Modified = normal(s.set)
		}
		// RFC 7162, section 3.1.3, example 9: NO [MODIFIED ..] is still an answer.
		if s.Code == "MODIFIED" && s.Type == imap.StatusResponseTypeNo {
			r.cmd.result.Type = imap.StatusResponseTypeOK
		}
	}
	return r
}

// CopyResult says which message became which; Validity 0: the server did not say.
type CopyResult struct {
	Validity uint32
	To       map[imap.UID]imap.UID
}

// Copy copies messages of the open mailbox.
func (c *Client) Copy(set imap.UIDSet, to string) *Reply[CopyResult] {
	return c.transfer("UID COPY", set, to)
}

// Move moves messages of the open mailbox. Without MOVE it is ErrUnsupported: what stands
// for it is the caller's, who must see COPY's OK before anything is expunged.
func (c *Client) Move(set imap.UIDSet, to string) *Reply[CopyResult] {
	if !c.Has(imap.CapMove) {
		return failed[CopyResult](c, ErrUnsupported)
	}
	return c.transfer("UID MOVE", set, to)
}

func (c *Client) transfer(command string, set imap.UIDSet, to string) *Reply[CopyResult] {
	r := begin[CopyResult](c, command, func(w *builder) { w.raw(" ").set(set); c.quoteName(w, to) })
	if r.err != nil {
		return r
	}
	r.value.To = make(map[imap.UID]imap.UID)
	var fault error
	note := func(s Status) {
		if s.Code != "COPYUID" {
			return
		}
		if fault == nil {
			fault = pair(s.source, s.set, r.value.To)
		}
		r.value.Validity = s.validity
	}
	r.cmd.finish = note
	if command == "UID MOVE" {
		// RFC 6851, section 4.3: MOVE says COPYUID in an untagged OK, before the expunges.
		// Dovecot 2.3 does so before it answers a COPY that was sent earlier (measured),
		// hence the look at the UIDs.
		r.cmd.status = func(s Status) bool {
			if s.Code != "COPYUID" || r.value.Validity != 0 || !within(s.source, set) {
				return false
			}
			note(s)
			return true
		}
	}
	r.check = func() error {
		if fault != nil {
			return c.fail(fault)
		}
		return nil
	}
	return r
}

// within says whether all ranges begin in a set.
func within(ranges []imap.UIDRange, set imap.UIDSet) bool {
	for _, r := range ranges {
		if !set.Contains(r.Start) {
			return false
		}
	}
	return true
}

// pair matches two sets in the order in which they were given (RFC 4315, section 3).
func pair(from, to []imap.UIDRange, into map[imap.UID]imap.UID) error {
	var i int
	var used uint32
	for _, r := range from {
		for u := uint64(r.Start); u <= uint64(r.Stop); u++ {
			if i >= len(to) {
				return protocol("COPYUID has fewer copies than messages")
			}
			into[imap.UID(u)] = to[i].Start + imap.UID(used)
			if len(into) > 1_000_000 {
				return protocol("COPYUID with more than a million messages")
			}
			if to[i].Start+imap.UID(used) == to[i].Stop {
				i, used = i+1, 0
			} else {
				used++
			}
		}
	}
	if i != len(to) {
		return protocol("COPYUID has more copies than messages")
	}
	return nil
}

// Expunge removes exactly these messages of the open mailbox, those of them that have
// \Deleted (RFC 4315, section 2.1). Without UIDPLUS it is ErrUnsupported: plain EXPUNGE
// would remove what other sessions marked.
func (c *Client) Expunge(set imap.UIDSet) *Reply[struct{}] {
	if !c.Has(imap.CapUIDPlus) {
		return failed[struct{}](c, ErrUnsupported)
	}
	return begin[struct{}](c, "UID EXPUNGE", func(w *builder) { w.raw(" ").set(set) })
}
