package wire

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// ErrOrder is returned where the server sent a body before it said whose it is, in a FETCH of more than
// one message. Fetching one at a time helps.
var ErrOrder = errors.New("body without a UID in front of it")

// Items are what FETCH asks for; UID always is.
type Items struct {
	Flags, Size, Date, ModSeq bool
	// GUID asks for Client.GUID, where there is one.
	GUID bool
	// Header asks for these fields of the header.
	Header []string
	// Body asks for the whole message, without setting \Seen.
	Body bool
	// ChangedSince, with CONDSTORE, narrows the answer to messages changed after it.
	ChangedSince uint64
	// Vanished, with QRESYNC and ChangedSince, gets what vanished since.
	Vanished func(set imap.UIDSet) error
}

// Message is what one FETCH response said of one message, asked or not: a message may
// come in several parts, and each says which items it has.
type Message struct {
	UID imap.UID

	HasFlags bool
	Flags    []imap.Flag // valid until the callback returns
	Size     int64       // RFC822.SIZE; -1: not in this response
	Date     time.Time   // INTERNALDATE; zero: not in this response
	ModSeq   uint64      // 0: not in this response
	GUID     string      // "": not in this response
	// HasHeader: Header holds the fields that were asked for.
	HasHeader bool
	Header    string
	// Body is the message, of BodySize bytes; nil: not in this response. It may be
	// read until the callback returns; what is left is skipped.
	Body     io.Reader
	BodySize int64
}

// fetching is a command that gets FETCH responses. Which one a response belongs to is
// told by its UID: Dovecot begins to answer a FETCH before it has said that the one
// before it is done (measured).
type fetching struct {
	each func(m *Message) error
	set  imap.UIDSet // nil: all
	body bool        // it asked for bodies
}

// only is the one message that was asked for; 0: several.
func (f *fetching) only() imap.UID {
	if len(f.set) == 1 && f.set[0].Start == f.set[0].Stop {
		return f.set[0].Start
	}
	return 0
}

// wants says whether a message was asked for. "n:*" has the last message in it even
// where that is below n (RFC 3501, section 9: seq-range).
func (f *fetching) wants(uid imap.UID) bool {
	if f.set == nil {
		return true
	}
	for _, r := range f.set {
		if r.Stop == 0 || r.Start <= uid && uid <= r.Stop {
			return true
		}
	}
	return false
}

// deliver gives a message to the command that asked for it. What nobody asked for is
// another session's doing.
func (c *Client) deliver(m *Message) error {
	for _, cmd := range c.pending {
		if cmd.selects {
			// What is behind it cannot have been answered yet; before it has begun,
			// this is about the mailbox that is being left.
			if cmd.begun {
				return cmd.fetch.each(m)
			}
			break
		}
		if f := cmd.fetch; f != nil && (m.Body == nil || f.body) && f.wants(m.UID) {
			return f.each(m)
		}
	}
	c.events.note(c.boxed)
	return nil
}

// alone is the UID of the only message whose body is on its way, or 0.
func (c *Client) alone() imap.UID {
	var uid imap.UID
	for _, cmd := range c.pending {
		if cmd.selects {
			break
		}
		if cmd.fetch != nil && cmd.fetch.body {
			if uid != 0 {
				return 0
			}
			if uid = cmd.fetch.only(); uid == 0 {
				return 0
			}
		}
	}
	return uid
}

// Fetch asks for items of messages; each gets what comes, in the server's order, during
// Wait of this or a later command. An error of each ends the connection. Messages that
// do not exist are passed over.
func (c *Client) Fetch(set imap.UIDSet, items Items, each func(m *Message) error) *Reply[struct{}] {
	guid := c.GUID()
	r := begin[struct{}](c, "UID FETCH", func(w *builder) {
		w.raw(" ").set(set).raw(" (UID")
		word := func(want bool, item string) {
			if want {
				w.raw(" ", item)
			}
		}
		word(items.Flags, "FLAGS")
		word(items.Size, "RFC822.SIZE")
		word(items.Date, "INTERNALDATE")
		word(items.ModSeq && c.Has(imap.CapCondStore), "MODSEQ")
		word(items.GUID && guid != "", guid)
		if len(items.Header) > 0 {
			w.raw(" BODY.PEEK[HEADER.FIELDS (")
			for i, field := range items.Header {
				if !ValidFlag(imap.Flag(field)) {
					w.fault("header field %q", field)
				}
				if i > 0 {
					w.raw(" ")
				}
				w.raw(field)
			}
			w.raw(")]")
		}
		word(items.Body, "BODY.PEEK[]")
		w.raw(")")
		if items.ChangedSince > 0 {
			if !c.Has(imap.CapCondStore) {
				w.fault("CHANGEDSINCE without CONDSTORE")
			}
			w.raw(" (CHANGEDSINCE ", strconv.FormatUint(items.ChangedSince, 10))
			word(items.Vanished != nil && c.Resyncs(), "VANISHED")
			w.raw(")")
		}
	})
	if r.err != nil {
		return r
	}
	r.cmd.fetch = &fetching{each: each, set: set, body: items.Body}
	r.cmd.take = func(u *response) (bool, error) {
		if u.hasNum || u.kind != "VANISHED" || items.Vanished == nil {
			return false, nil
		}
		earlier, ranges, err := c.readVanished()
		if err == nil && earlier {
			err = items.Vanished(normal(ranges))
		} else if err == nil {
			c.events.note(c.boxed)
		}
		return true, err
	}
	return r
}

// readFetch reads what follows "n FETCH".
func (c *Client) readFetch() error {
	if err := c.dec.space(); err != nil {
		return err
	}
	m := &c.message
	*m = Message{Size: -1, Flags: m.Flags[:0]}
	said := false
	if err := c.dec.list(func() error { return c.fetchItem(m, &said) }); err != nil {
		return err
	}
	switch {
	case !said:
		return nil
	case m.UID == 0:
		// RFC 9051, section 6.4.9: only the answers to UID commands must have it. Whose
		// change this is cannot be told.
		c.events.note(c.boxed)
		return nil
	}
	return c.deliver(m)
}

// fetchItem reads one item of a FETCH response. said is true while m holds something
// that each has not seen.
func (c *Client) fetchItem(m *Message, said *bool) error {
	d := &c.dec
	item, err := d.keyword("[")
	if err != nil {
		return err
	}
	section := ""
	if bracket, err := d.accept('['); err != nil {
		return err
	} else if bracket {
		if section, err = d.section(); err != nil {
			return err
		}
	}
	if err := d.space(); err != nil {
		return err
	}
	if item == "BODY" && section != "" {
		return c.fetchSection(m, said, section)
	}
	*said = *said || item != "UID"
	switch item {
	case "UID":
		n, err := d.nonzero()
		if err == nil && m.UID != 0 && m.UID != imap.UID(n) {
			// The body before it was taken for that of the only message asked for.
			return protocol("body of UID %d where %d was asked for", n, m.UID)
		}
		m.UID = imap.UID(n)
		return err
	case "FLAGS":
		m.HasFlags, m.Flags = true, m.Flags[:0]
		return d.list(func() error {
			w, err := d.atom("")
			m.Flags = append(m.Flags, imap.Flag(w))
			return err
		})
	case "RFC822.SIZE":
		m.Size, err = d.number64()
		return err
	case "INTERNALDATE":
		s, err := d.quoted(64)
		if err != nil {
			return err
		}
		if m.Date, err = time.Parse(dateLayout, s); err != nil {
			return protocol("INTERNALDATE %q", s)
		}
		return nil
	case "MODSEQ":
		return d.list(func() error {
			n, err := d.number64()
			m.ModSeq = uint64(n)
			return err
		})
	case c.GUID():
		m.GUID, err = c.readGUID()
		return err
	}
	return d.skip(0)
}

// readGUID reads "(M123)", NIL, or what X-GUID gives.
func (c *Client) readGUID() (string, error) {
	d := &c.dec
	if b, err := d.peek(); err != nil {
		return "", err
	} else if b == '(' {
		var id string
		err := d.list(func() (err error) { id, err = d.atom(""); return err })
		return id, err
	}
	s, _, err := d.nstring(1024)
	return s, err
}

// section reads "HEADER.FIELDS (A B)]<0>" and returns it in capitals, "[]" as "ALL".
func (d *decoder) section() (string, error) {
	var b []byte
	quoted := false
	for {
		c, err := d.byte()
		if err != nil {
			return "", err
		}
		if c == '\r' || c == '\n' || len(b) > 2048 {
			return "", protocol("section without an end")
		}
		if c == '"' {
			quoted = !quoted
		}
		if c == ']' && !quoted {
			break
		}
		b = append(b, c)
	}
	if partial, err := d.accept('<'); err != nil {
		return "", err
	} else if partial {
		if _, err := d.number64(); err != nil {
			return "", err
		}
		if err := d.expect(">"); err != nil {
			return "", err
		}
		return "PARTIAL", nil
	}
	if len(b) == 0 {
		return "ALL", nil
	}
	return strings.ToUpper(string(b)), nil
}

func (c *Client) fetchSection(m *Message, said *bool, section string) error {
	d := &c.dec
	switch {
	case section == "ALL":
	case strings.HasPrefix(section, "HEADER.FIELDS "):
		s, ok, err := d.nstring(d.lim.HeaderBytes)
		m.HasHeader, m.Header, *said = ok, s, true
		return err
	default:
		return d.skip(0)
	}
	b, err := d.peek()
	if err != nil {
		return err
	}
	switch b {
	case '{', '~':
		n, err := d.literal(d.lim.MessageBytes)
		if err != nil {
			return err
		}
		c.open = &literal{c: c, left: n}
		m.Body, m.BodySize = c.open, n
	default:
		s, ok, err := d.nstring(d.lim.HeaderBytes)
		if err != nil {
			return err
		}
		if !ok { // NIL: the server cannot read it
			return nil
		}
		m.Body, m.BodySize = strings.NewReader(s), int64(len(s))
	}
	if m.UID == 0 {
		if m.UID = c.alone(); m.UID == 0 {
			return fmt.Errorf("%w: %w", ErrProtocol, ErrOrder)
		}
	}
	if err := c.deliver(m); err != nil {
		return err
	}
	if l := c.open; l != nil {
		c.open = nil
		if err := d.discard(l.left); err != nil {
			return err
		}
		l.left = 0
	}
	// What comes after the body is told as a part of its own.
	*m = Message{UID: m.UID, Size: -1, Flags: m.Flags[:0]}
	*said = false
	return nil
}

// literal is a body on its way.
type literal struct {
	c    *Client
	left int64
}

// Read never ends with io.EOF before every byte that was announced has come.
func (l *literal) Read(p []byte) (int, error) {
	if l.c.open != l {
		if l.left == 0 {
			return 0, io.EOF
		}
		return 0, errors.New("read of a body that is over")
	}
	if l.left == 0 {
		return 0, io.EOF
	}
	n, err := l.c.br.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	if err != nil {
		return n, l.c.fail(fmt.Errorf("read a body: %w", unexpected(err)))
	}
	return n, nil
}

// WriteTo spares a copy.
func (l *literal) WriteTo(w io.Writer) (int64, error) {
	if l.c.open != l {
		return 0, nil
	}
	var done int64
	for l.left > 0 {
		if _, err := l.c.br.Peek(1); err != nil {
			return done, l.c.fail(fmt.Errorf("read a body: %w", unexpected(err)))
		}
		p, _ := l.c.br.Peek(int(min(int64(l.c.br.Buffered()), l.left)))
		n, err := w.Write(p)
		_, _ = l.c.br.Discard(n) // it was just peeked at
		l.left -= int64(n)
		done += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
