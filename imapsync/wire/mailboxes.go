package wire

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Mailbox is one line of a listing.
type Mailbox struct {
	// Name is UTF-8, with the server's separator in it.
	Name string
	// Raw is the name as the server wrote it where it cannot be read; such a
	// mailbox has no Name and cannot be used.
	Raw       string
	Separator byte // 0: the server has no levels
	Attrs     []imap.MailboxAttr
	// Subscribed is set by Mailboxes.
	Subscribed bool
	// State is nil where the mailbox cannot be selected or STATUS failed.
	State *MailboxState
}

// Has says whether the mailbox has an attribute, without case.
func (m Mailbox) Has(attr imap.MailboxAttr) bool {
	return slices.ContainsFunc(m.Attrs, func(a imap.MailboxAttr) bool { return strings.EqualFold(string(a), string(attr)) })
}

// MailboxState is the answer to STATUS.
type MailboxState struct {
	Name     string
	Messages uint32
	Next     imap.UID // UIDNEXT
	Validity uint32   // UIDVALIDITY
	ModSeq   uint64   // HIGHESTMODSEQ; 0: the server does not keep it
	ID       string   // MAILBOXID
	// AppendLimit is 0 where the mailbox has none of its own.
	AppendLimit int64
}

func (c *Client) quoteName(w *builder, name string) *builder {
	w.raw(" ")
	if c.enabled[imap.CapUTF8Accept] {
		return w.quoted(name, true)
	}
	return w.quoted(EncodeMailbox(name), false)
}

func (c *Client) statusItems() string {
	items := "MESSAGES UIDNEXT UIDVALIDITY"
	if c.Has(imap.CapCondStore) {
		items += " HIGHESTMODSEQ"
	}
	if c.Has(imap.CapObjectID) && !c.quirks.NoStatusID {
		items += " MAILBOXID"
	}
	return "(" + items + ")"
}

// List lists the mailboxes that match pattern, with whatever the server can tell in
// one answer. Use Mailboxes unless several commands are to travel together.
func (c *Client) List(pattern string) *Reply[[]Mailbox] {
	var returns []string
	if c.Has(imap.CapListExtended) {
		returns = append(returns, "SUBSCRIBED")
	}
	if c.Has(imap.CapSpecialUse) {
		returns = append(returns, "SPECIAL-USE")
	}
	if c.Has(imap.CapListStatus) {
		returns = append(returns, "STATUS "+c.statusItems())
	}
	r := begin[[]Mailbox](c, "LIST", func(w *builder) {
		w.raw(` ""`)
		c.quoteName(w, pattern)
		if len(returns) > 0 && c.Has(imap.CapListExtended) {
			w.raw(" RETURN (", strings.Join(returns, " "), ")")
		}
	})
	return c.listing(r, "LIST")
}

func (c *Client) listing(r *Reply[[]Mailbox], kind string) *Reply[[]Mailbox] {
	if r.err != nil {
		return r
	}
	at := make(map[string]int)
	r.cmd.take = func(u *response) (bool, error) {
		switch {
		case u.hasNum:
			return false, nil
		case u.kind == kind:
			m, err := c.readList()
			if err != nil {
				return true, err
			}
			if m.Has(imap.MailboxAttrNonExistent) && !m.Has(imap.MailboxAttrSubscribed) {
				m.Attrs = append(m.Attrs, imap.MailboxAttrNoSelect)
			}
			m.Subscribed = kind == "LSUB" || m.Has(imap.MailboxAttrSubscribed)
			if i, ok := at[m.Name]; ok && m.Name != "" {
				r.value[i].Attrs = append(r.value[i].Attrs, m.Attrs...)
				return true, nil
			}
			if len(r.value) >= c.dec.lim.Mailboxes {
				return true, protocol("more than %d mailboxes", c.dec.lim.Mailboxes)
			}
			at[m.Name] = len(r.value)
			r.value = append(r.value, m)
			return true, nil
		case u.kind == "STATUS":
			st, err := c.readStatus()
			if err != nil {
				return true, err
			}
			if i, ok := at[st.Name]; ok {
				r.value[i].State = &st
			}
			return true, nil
		}
		return false, nil
	}
	return r
}

// Mailboxes lists every mailbox with its state and subscription: one round trip where
// the server has LIST-STATUS, else LIST, LSUB and one STATUS a mailbox, pipelined.
func (c *Client) Mailboxes(ctx context.Context) ([]Mailbox, error) {
	listed := c.List("*")
	var subscribed *Reply[[]Mailbox]
	if !c.Has(imap.CapListExtended) {
		// The two must not be confused, but their answers have different names.
		subscribed = c.listing(begin[[]Mailbox](c, "LSUB", func(w *builder) { w.raw(` "" "*"`) }), "LSUB")
	}
	boxes, err := listed.Wait(ctx)
	if err != nil {
		return nil, err
	}
	if subscribed != nil {
		subs, err := subscribed.Wait(ctx)
		if err != nil && !Refused(err) {
			return nil, err
		}
		names := make(map[string]bool, len(subs))
		for _, s := range subs {
			names[s.Name] = true
		}
		for i := range boxes {
			boxes[i].Subscribed = names[boxes[i].Name]
		}
	}
	// RFC 5819, section 2: a failed STATUS is simply not there.
	states := make([]*Reply[MailboxState], len(boxes))
	for i, m := range boxes {
		if m.State != nil || m.Name == "" || m.Has(imap.MailboxAttrNoSelect) || m.Has(imap.MailboxAttrNonExistent) {
			continue
		}
		if err := c.room(ctx); err != nil {
			return nil, err
		}
		states[i] = c.Status(m.Name)
	}
	for i, r := range states {
		if r == nil {
			continue
		}
		st, err := r.Wait(ctx)
		if err == nil {
			boxes[i].State = &st
		} else if !Refused(err) {
			return nil, err
		}
	}
	return boxes, nil
}

// Status asks for the state of a mailbox, which need not be selected.
func (c *Client) Status(name string) *Reply[MailboxState] {
	r := begin[MailboxState](c, "STATUS", func(w *builder) { c.quoteName(w, name).raw(" ", c.statusItems()) })
	if r.err != nil {
		return r
	}
	seen := false
	r.cmd.take = func(u *response) (bool, error) {
		if u.kind != "STATUS" || u.hasNum {
			return false, nil
		}
		st, err := c.readStatus()
		if err != nil {
			return true, err
		}
		if st.Name != name && (st.Name != "INBOX" || !strings.EqualFold(name, "INBOX")) {
			c.events.note(st.Name)
			return true, nil
		}
		r.value, seen = st, true
		return true, nil
	}
	r.check = func() error {
		if !seen {
			return c.fail(protocol("STATUS answered OK without data"))
		}
		return nil
	}
	return r
}

// readList reads what follows LIST or LSUB.
func (c *Client) readList() (Mailbox, error) {
	var m Mailbox
	d := &c.dec
	if err := d.space(); err != nil {
		return m, err
	}
	if err := d.list(func() error {
		a, err := d.atom("")
		m.Attrs = append(m.Attrs, imap.MailboxAttr(a))
		return err
	}); err != nil {
		return m, err
	}
	if err := d.space(); err != nil {
		return m, err
	}
	separator, ok, err := d.nstring(8)
	if err != nil {
		return m, err
	}
	if ok && len(separator) == 1 && separator[0] > 0x20 && separator[0] < 0x7f {
		m.Separator = separator[0]
	} else if ok && separator != "" {
		return m, protocol("separator %q", separator)
	}
	if err := d.space(); err != nil {
		return m, err
	}
	m.Name, m.Raw, err = c.readName()
	return m, err
}

// readName reads a mailbox name. INBOX is in capitals, whatever the server says.
func (c *Client) readName() (name, raw string, err error) {
	if raw, err = c.dec.text(c.dec.lim.StringBytes); err != nil {
		return "", raw, err
	}
	name, ok := DecodeMailbox(raw)
	if c.enabled[imap.CapUTF8Accept] {
		name, ok = raw, true
	}
	if !ok {
		return "", raw, nil
	}
	if strings.EqualFold(name, "INBOX") {
		name = "INBOX"
	}
	return name, raw, nil
}

// readStatus reads what follows STATUS.
func (c *Client) readStatus() (MailboxState, error) {
	var st MailboxState
	d := &c.dec
	if err := d.space(); err != nil {
		return st, err
	}
	var err error
	if st.Name, _, err = c.readName(); err != nil {
		return st, err
	}
	if err := d.space(); err != nil {
		return st, err
	}
	err = d.list(func() error {
		item, err := d.keyword("")
		if err != nil {
			return err
		}
		if err := d.space(); err != nil {
			return err
		}
		switch item {
		case "MESSAGES":
			st.Messages, err = d.number32()
		case "UIDNEXT":
			var n uint32
			n, err = d.number32()
			st.Next = imap.UID(n)
		case "UIDVALIDITY":
			st.Validity, err = d.number32()
		case "HIGHESTMODSEQ":
			var n int64
			n, err = d.number64()
			st.ModSeq = uint64(n)
		case "MAILBOXID":
			err = d.list(func() error { st.ID, err = d.atom(""); return err })
		case "APPENDLIMIT":
			var s string
			if s, err = d.atom(""); err == nil {
				st.AppendLimit = parseLimit(s)
			}
		default:
			err = d.skip(0)
		}
		return err
	})
	return st, err
}

func parseLimit(s string) int64 {
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > 1<<40 {
			return 0 // NIL
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n
}

// AppendLimit is the size above which no message is taken, by what CAPABILITY says; 0
// where nothing is said.
func (c *Client) AppendLimit() int64 {
	for capability := range c.caps {
		if s, ok := strings.CutPrefix(string(capability), "APPENDLIMIT="); ok {
			return parseLimit(s)
		}
	}
	return 0
}

// Namespace is a prefix and its separator.
type Namespace struct {
	Prefix    string
	Separator byte
}

// Namespaces are those of NAMESPACE (RFC 2342).
type Namespaces struct {
	Personal, Others, Shared []Namespace
}

// Namespaces asks for the prefixes of personal and foreign mailboxes.
func (c *Client) Namespaces() *Reply[Namespaces] {
	if !c.Has(imap.CapNamespace) {
		return failed[Namespaces](c, ErrUnsupported)
	}
	r := begin[Namespaces](c, "NAMESPACE", nil)
	r.cmd.take = func(u *response) (bool, error) {
		if u.kind != "NAMESPACE" || u.hasNum {
			return false, nil
		}
		for _, list := range []*[]Namespace{&r.value.Personal, &r.value.Others, &r.value.Shared} {
			if err := c.dec.space(); err != nil {
				return true, err
			}
			if err := c.readNamespaces(list); err != nil {
				return true, err
			}
		}
		return true, nil
	}
	return r
}

func (c *Client) readNamespaces(list *[]Namespace) error {
	d := &c.dec
	if b, err := d.peek(); err != nil || b != '(' {
		if err == nil {
			_, err = d.atom("") // NIL
		}
		return err
	}
	if err := d.expect("("); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if done, err := d.accept(')'); err != nil || done {
			return err
		}
		if blank, err := d.accept(' '); err != nil || blank {
			if err != nil {
				return err
			}
			continue
		}
		if n > 2*d.lim.Items {
			return protocol("too many namespaces")
		}
		var ns Namespace
		i := 0
		if err := d.list(func() error {
			defer func() { i++ }()
			if i > 1 {
				return d.skip(0) // extensions
			}
			s, _, err := d.nstring(d.lim.StringBytes)
			if i == 0 {
				if ns.Prefix = s; !c.enabled[imap.CapUTF8Accept] {
					if name, ok := DecodeMailbox(s); ok {
						ns.Prefix = name
					}
				}
			} else if len(s) == 1 {
				ns.Separator = s[0]
			}
			return err
		}); err != nil {
			return err
		}
		*list = append(*list, ns)
	}
}

// Create makes a mailbox; use is a special use as \Archive, or "", and left out where
// the server cannot (RFC 6154, section 3).
func (c *Client) Create(name string, use imap.MailboxAttr) *Reply[struct{}] {
	return begin[struct{}](c, "CREATE", func(w *builder) {
		c.quoteName(w, name)
		if use != "" && c.Has(imap.CapCreateSpecialUse) {
			if !ValidFlag(imap.Flag(use)) {
				w.fault("special use %q", use)
			}
			w.raw(" (USE (", string(use), "))")
		}
	})
}

// Rename gives a mailbox and its children another name.
func (c *Client) Rename(name, to string) *Reply[struct{}] {
	return begin[struct{}](c, "RENAME", func(w *builder) { c.quoteName(w, name); c.quoteName(w, to) })
}

// Delete deletes a mailbox and whatever is in it.
func (c *Client) Delete(name string) *Reply[struct{}] { return c.named("DELETE", name) }

// Subscribe and Unsubscribe change the subscription.
func (c *Client) Subscribe(name string) *Reply[struct{}] { return c.named("SUBSCRIBE", name) }

// Unsubscribe ends a subscription.
func (c *Client) Unsubscribe(name string) *Reply[struct{}] { return c.named("UNSUBSCRIBE", name) }

func (c *Client) named(command, name string) *Reply[struct{}] {
	return begin[struct{}](c, command, func(w *builder) { c.quoteName(w, name) })
}

// Noop asks for nothing, and hears what happened meanwhile.
func (c *Client) Noop() *Reply[struct{}] { return begin[struct{}](c, "NOOP", nil) }

// MyRights asks for the rights of the login in a mailbox (RFC 4314, section 3.5): "lrswi".
func (c *Client) MyRights(name string) *Reply[string] {
	if !c.Has(imap.CapACL) {
		return failed[string](c, ErrUnsupported)
	}
	r := begin[string](c, "MYRIGHTS", func(w *builder) { c.quoteName(w, name) })
	if r.err != nil {
		return r
	}
	r.cmd.take = func(u *response) (bool, error) {
		if u.kind != "MYRIGHTS" || u.hasNum {
			return false, nil
		}
		if err := c.dec.space(); err != nil {
			return true, err
		}
		if _, _, err := c.readName(); err != nil {
			return true, err
		}
		if err := c.dec.space(); err != nil {
			return true, err
		}
		var err error
		r.value, err = c.dec.text(c.dec.lim.StringBytes)
		return true, err
	}
	return r
}

// Quota is one resource of a quota root (RFC 9208): STORAGE counts in units of 1,024
// bytes, MESSAGE in messages.
type Quota struct {
	Root, Resource string
	Used, Limit    int64
}

// QuotaRoot asks for the quotas that hold in a mailbox.
func (c *Client) QuotaRoot(name string) *Reply[[]Quota] {
	if !c.Has(imap.CapQuota) {
		return failed[[]Quota](c, ErrUnsupported)
	}
	r := begin[[]Quota](c, "GETQUOTAROOT", func(w *builder) { c.quoteName(w, name) })
	if r.err != nil {
		return r
	}
	r.cmd.take = func(u *response) (bool, error) {
		if u.kind != "QUOTA" || u.hasNum {
			return u.kind == "QUOTAROOT" && !u.hasNum, nil
		}
		d := &c.dec
		if err := d.space(); err != nil {
			return true, err
		}
		root, err := d.text(d.lim.StringBytes)
		if err != nil {
			return true, err
		}
		if err := d.space(); err != nil {
			return true, err
		}
		return true, d.list(func() error {
			q := Quota{Root: root}
			if q.Resource, err = d.keyword(""); err != nil {
				return err
			}
			if err := d.space(); err != nil {
				return err
			}
			if q.Used, err = d.number64(); err != nil {
				return err
			}
			if err := d.space(); err != nil {
				return err
			}
			q.Limit, err = d.number64()
			r.value = append(r.value, q)
			return err
		})
	}
	return r
}
