package wire

import (
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// SelectOptions say how a mailbox is opened.
type SelectOptions struct {
	// ReadOnly uses EXAMINE.
	ReadOnly bool
	// Resync asks for what happened since (RFC 7162, section 3.2.5): the UIDVALIDITY
	// and HIGHESTMODSEQ of then. It needs QRESYNC enabled.
	Validity uint32
	ModSeq   uint64
	// Known are the UIDs the caller knows; with Resync it narrows what is told to have
	// vanished, and must not be longer than a command. Nil leaves it out.
	Known imap.UIDSet
	// Changed gets the messages that Resync tells of.
	Changed func(m *Message) error
}

// Box is a selected mailbox.
type Box struct {
	Name     string
	Validity uint32   // UIDVALIDITY
	Next     imap.UID // UIDNEXT; 0: not said
	ModSeq   uint64   // HIGHESTMODSEQ; 0: the mailbox does not keep it
	Messages uint32   // EXISTS
	ReadOnly bool
	ID       string // MAILBOXID, "" if there is none
	// Flags exist in the mailbox; Permanent can be changed for good, and \* among
	// them means that new keywords can be made. Without PERMANENTFLAGS all can (RFC
	// 3501, section 6.3.1).
	Flags, Permanent []imap.Flag
	// Vanished are UIDs that are gone since what Resync named.
	Vanished imap.UIDSet
}

// Resyncs says whether SelectOptions' Resync may be used.
func (c *Client) Resyncs() bool { return c.enabled[imap.CapQResync] && c.Has(imap.CapQResync) }

// Select opens a mailbox. Where it fails, none is open (RFC 3501, section 6.3.1): what was
// sent after it without waiting is refused and does no harm.
func (c *Client) Select(name string, opts SelectOptions) *Reply[Box] {
	command := "SELECT"
	if opts.ReadOnly {
		command = "EXAMINE"
	}
	resync := opts.Validity != 0 && opts.ModSeq != 0
	if resync && !c.Resyncs() {
		return failed[Box](c, ErrUnsupported)
	}
	r := begin[Box](c, command, func(w *builder) {
		c.quoteName(w, name)
		switch {
		case resync:
			w.raw(" (QRESYNC (", strconv.FormatUint(uint64(opts.Validity), 10), " ", strconv.FormatUint(opts.ModSeq, 10))
			if len(opts.Known) > 0 {
				w.raw(" ").set(opts.Known)
			}
			w.raw("))")
		case c.Has(imap.CapCondStore):
			w.raw(" (CONDSTORE)")
		}
	})
	if r.err != nil {
		return r
	}
	r.value.Name = name
	var permanent bool
	var gone []imap.UIDRange
	r.cmd.selects = true
	r.cmd.status = func(s Status) bool {
		switch s.Code { //nolint:exhaustive // the others are not about a mailbox
		case imap.ResponseCode("UIDVALIDITY"):
			r.value.Validity, r.cmd.begun = uint32(s.number), true
		case "UIDNEXT":
			r.value.Next = imap.UID(s.number)
		case "HIGHESTMODSEQ":
			if c.Has(imap.CapCondStore) { // Cyrus says it also where nobody wants to know
				r.value.ModSeq = s.number
			}
		case "PERMANENTFLAGS":
			permanent = true
			r.value.Permanent = toFlags(s.words)
		case "MAILBOXID":
			r.value.ID = s.id
		case "CLOSED":
			// RFC 7162, section 3.2.11: what comes from here on is about the new one.
			c.box, c.boxed, r.cmd.begun = nil, "", true
		default:
			return false
		}
		return true
	}
	r.cmd.fetch = &fetching{each: func(m *Message) error {
		if opts.Changed != nil {
			return opts.Changed(m)
		}
		return nil
	}}
	r.cmd.take = func(u *response) (bool, error) {
		switch {
		case u.hasNum && u.kind == "EXISTS":
			r.value.Messages = u.num
			return true, nil
		case u.hasNum && u.kind == "RECENT":
			return true, nil
		case !u.hasNum && u.kind == "FLAGS":
			words, err := c.readWords()
			r.value.Flags = toFlags(words)
			return true, err
		case !u.hasNum && u.kind == "VANISHED" && r.cmd.begun:
			_, ranges, err := c.readVanished()
			if gone = append(gone, ranges...); len(gone) > c.dec.lim.Ranges {
				return true, protocol("more than %d ranges vanished", c.dec.lim.Ranges)
			}
			return true, err
		}
		return false, nil
	}
	r.cmd.finish = func(s Status) {
		c.box, c.boxed = nil, ""
		if s.Type != imap.StatusResponseTypeOK {
			return
		}
		r.value.ReadOnly = opts.ReadOnly || s.Code == "READ-ONLY"
		r.value.Vanished = normal(gone)
		if !permanent {
			r.value.Permanent = append(toFlags(nil), r.value.Flags...)
		}
		box := r.value
		box.Vanished = nil
		c.box, c.boxed = &box, name
	}
	r.check = func() error {
		if r.value.Validity == 0 {
			return &StatusError{Command: command, Status: Status{Type: imap.StatusResponseTypeNo, Text: "mailbox without UIDVALIDITY"}}
		}
		return nil
	}
	return r
}

// Selected is the open mailbox as it was when it was opened, or nil.
func (c *Client) Selected() *Box { return c.box }

// Unselect closes the open mailbox without expunging (RFC 3691); where the server
// cannot, the mailbox stays open.
func (c *Client) Unselect() *Reply[struct{}] {
	if !c.Has(imap.CapUnselect) {
		return failed[struct{}](c, ErrUnsupported)
	}
	r := begin[struct{}](c, "UNSELECT", nil)
	r.cmd.finish = func(s Status) {
		if s.Type == imap.StatusResponseTypeOK {
			c.box, c.boxed = nil, ""
		}
	}
	return r
}

func toFlags(words []string) []imap.Flag {
	flags := make([]imap.Flag, len(words))
	for i, w := range words {
		flags[i] = imap.Flag(w)
	}
	return flags
}

// readWords reads " (a b c)".
func (c *Client) readWords() ([]string, error) {
	if err := c.dec.space(); err != nil {
		return nil, err
	}
	var words []string
	err := c.dec.list(func() error { return c.dec.word(&words) })
	return words, err
}

// readVanished reads what follows VANISHED: "(EARLIER) 41,43:116" (RFC 7162, section
// 3.2.10).
func (c *Client) readVanished() (earlier bool, set []imap.UIDRange, err error) {
	if err := c.dec.space(); err != nil {
		return false, nil, err
	}
	if b, err := c.dec.peek(); err != nil {
		return false, nil, err
	} else if b == '(' {
		if err := c.dec.list(func() error {
			w, err := c.dec.keyword("")
			earlier = earlier || w == "EARLIER"
			return err
		}); err != nil {
			return false, nil, err
		}
		if err := c.dec.space(); err != nil {
			return false, nil, err
		}
	}
	set, err = c.dec.uids()
	return earlier, set, err
}

// Search finds the UIDs that match criteria, with ESEARCH where it is offered.
// Criteria are made by this package's functions only.
func (c *Client) Search(by Criteria) *Reply[imap.UIDSet] {
	extended := c.Has(imap.CapESearch)
	r := begin[imap.UIDSet](c, "UID SEARCH", func(w *builder) {
		if extended {
			w.raw(" RETURN (ALL)")
		}
		by(w)
	})
	if r.err != nil {
		return r
	}
	var found []imap.UIDRange
	seen := false
	// ESEARCH names its command, and need not come in order (RFC 4466, section 2.6.2).
	r.cmd.found = &found
	r.cmd.take = func(u *response) (bool, error) {
		switch {
		case u.hasNum:
			return false, nil
		case u.kind == "ESEARCH":
			return true, c.readESearch(&found)
		case u.kind == "SEARCH" && !seen:
			// It has no tag: the first search without an answer gets it. Where a server
			// leaves an empty answer out, searches must not be in flight together.
			seen = true
			return true, c.readSearch(&found)
		}
		return false, nil
	}
	r.check = func() error {
		if !seen && !extended {
			return c.fail(protocol("SEARCH answered OK without data"))
		}
		r.value = normal(found)
		return nil
	}
	return r
}

// readESearch reads `(TAG "u5") UID ALL 1:3,7` (RFC 4731, section 3.1).
func (c *Client) readESearch(found *[]imap.UIDRange) error {
	d := &c.dec
	for {
		if blank, err := d.accept(' '); err != nil || !blank {
			return err
		}
		if b, err := d.peek(); err != nil {
			return err
		} else if b == '(' {
			n := 0
			if err := d.list(func() error {
				s, err := d.text(d.lim.StringBytes)
				if n++; n == 2 {
					found = c.search(s)
				}
				return err
			}); err != nil {
				return err
			}
			continue
		}
		word, err := d.keyword("")
		if err != nil {
			return err
		}
		if word == "UID" {
			continue
		}
		if err := d.space(); err != nil {
			return err
		}
		if word != "ALL" || found == nil {
			if err := d.skip(0); err != nil {
				return err
			}
			continue
		}
		if *found, err = d.uids(); err != nil {
			return err
		}
	}
}

// search returns where the results of the command with this tag go.
func (c *Client) search(tag string) *[]imap.UIDRange {
	for _, cmd := range c.pending {
		if cmd.tag == tag {
			return cmd.found
		}
	}
	return nil
}

// readSearch reads " 2 3 6", and leaves a "(MODSEQ n)" to be skipped.
func (c *Client) readSearch(found *[]imap.UIDRange) error {
	for {
		if blank, err := c.dec.accept(' '); err != nil || !blank {
			return err
		}
		if b, err := c.dec.peek(); err != nil || b < '0' || b > '9' {
			return err
		}
		n, err := c.dec.nonzero()
		if err != nil {
			return err
		}
		uid := imap.UID(n)
		if k := len(*found); k > 0 && (*found)[k-1].Stop+1 == uid {
			(*found)[k-1].Stop = uid
			continue
		}
		if len(*found) >= c.dec.lim.Ranges {
			return protocol("more than %d ranges found", c.dec.lim.Ranges)
		}
		*found = append(*found, imap.UIDRange{Start: uid, Stop: uid})
	}
}

// Criteria are those of a search.
type Criteria func(w *builder)

// ByUID finds those of a set that exist.
func ByUID(set imap.UIDSet) Criteria { return func(w *builder) { w.raw(" UID ").set(set) } }

// ByHeader finds messages whose header field has value in it; only ASCII can be asked.
func ByHeader(field, value string) Criteria {
	return func(w *builder) {
		if strings.ContainsAny(field, ": ") {
			w.fault("header field %q", field)
		}
		w.raw(" HEADER ").quoted(field, false).raw(" ").quoted(value, false)
	}
}
