package mailpair

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// uses are the special uses that are compared.
var uses = []imap.MailboxAttr{imap.MailboxAttrSent, imap.MailboxAttrTrash, imap.MailboxAttrJunk, imap.MailboxAttrDrafts, imap.MailboxAttrArchive}

// Hidden begins the names of the synchroniser's own folders.
const Hidden = "_understudy"

// Password is anybody's; the servers of integration/servers take any.
const Password = "x"

// Message is one message as a server shows it.
type Message struct {
	UID   imap.UID
	Sum   string // SHA-256 of the whole body
	ID    string // header X-Lab-Id, "" without
	Date  int64  // INTERNALDATE, Unix
	Size  int64
	Flags []string // lower case, sorted, without \recent
}

func (m Message) key() string {
	return fmt.Sprintf("%s %d %d %s", m.Sum, m.Size, m.Date, strings.Join(m.Flags, ","))
}

// Folder is one mailbox.
type Folder struct {
	Validity   uint32
	Subscribed bool
	Use        string
	Messages   []Message
}

// Mailboxes are all folders of one account but the synchroniser's own.
type Mailboxes map[string]*Folder

// Total counts messages.
func (m Mailboxes) Total() int {
	n := 0
	for _, f := range m {
		n += len(f.Messages)
	}
	return n
}

// Dial logs a user in. The caller closes the client.
func Dial(ctx context.Context, addr, user string) (*imapclient.Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c := imapclient.New(conn, nil)
	if err := c.Login(user, Password).Wait(); err != nil {
		stop()
		_ = c.Close()
		return nil, fmt.Errorf("log in as %s: %w", user, err)
	}
	return c, nil
}

// Read reads everything a user has on a server, bodies too.
func Read(ctx context.Context, addr, user string) (Mailboxes, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := Dial(ctx, addr, user)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	boxes, err := c.List("", "*", &imap.ListOptions{ReturnSubscribed: true, ReturnSpecialUse: true}).Collect()
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	out := make(Mailboxes)
	for _, b := range boxes {
		if strings.HasPrefix(b.Mailbox, Hidden) || slices.Contains(b.Attrs, imap.MailboxAttrNoSelect) || slices.Contains(b.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		f := &Folder{Subscribed: slices.Contains(b.Attrs, imap.MailboxAttrSubscribed)}
		for _, a := range b.Attrs {
			if slices.Contains(uses, a) {
				f.Use = string(a)
			}
		}
		if err := f.read(c, b.Mailbox); err != nil {
			return nil, fmt.Errorf("read %s: %w", b.Mailbox, err)
		}
		out[b.Mailbox] = f
	}
	return out, nil
}

func (f *Folder) read(c *imapclient.Client, name string) error {
	sel, err := c.Select(name, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return err
	}
	f.Validity = sel.UIDValidity
	if sel.NumMessages == 0 {
		return nil
	}
	all := imap.UIDSet{}
	all.AddRange(1, 0)
	cmd := c.Fetch(all, &imap.FetchOptions{
		UID: true, Flags: true, InternalDate: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}},
	})
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		m, err := readMessage(msg)
		if err != nil {
			return err
		}
		f.Messages = append(f.Messages, m)
	}
	if err := cmd.Close(); err != nil {
		return err
	}
	if uint32(len(f.Messages)) != sel.NumMessages {
		return fmt.Errorf("%d of %d messages came", len(f.Messages), sel.NumMessages)
	}
	return nil
}

// idLine begins the header field by which a story knows a message.
const idLine = "X-Lab-Id: "

func readMessage(msg *imapclient.FetchMessageData) (Message, error) {
	var m Message
	for item := msg.Next(); item != nil; item = msg.Next() {
		switch item := item.(type) {
		case imapclient.FetchItemDataUID:
			m.UID = item.UID
		case imapclient.FetchItemDataFlags:
			m.Flags = Flags(item.Flags)
		case imapclient.FetchItemDataInternalDate:
			m.Date = item.Time.Unix()
		case imapclient.FetchItemDataRFC822Size:
			m.Size = item.Size
		case imapclient.FetchItemDataBodySection:
			sum := sha256.New()
			head := &limited{}
			n, err := io.Copy(io.MultiWriter(sum, head), item.Literal)
			if err != nil {
				return m, err
			}
			m.Sum, m.ID = hex.EncodeToString(sum.Sum(nil)[:12]), ID(head.text)
			if m.Size != 0 && m.Size != n {
				return m, fmt.Errorf("UID %d has %d bytes and says %d", m.UID, n, m.Size)
			}
		}
	}
	return m, nil
}

// limited keeps the first KiB.
type limited struct{ text []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.text = append(l.text, p[:min(len(p), max(0, 1024-len(l.text)))]...)
	return len(p), nil
}

// ID is what the header field X-Lab-Id says.
func ID(head []byte) string {
	_, rest, ok := strings.Cut(string(head), idLine)
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "\r\n")
	return id
}

// Flags brings flags into the form of Message.
func Flags(flags []imap.Flag) []string {
	out := make([]string, 0, len(flags))
	for _, f := range flags {
		if s := strings.ToLower(string(f)); s != `\recent` {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// Diff says in what two accounts differ: folders, subscriptions, special uses, and
// the multiset of body, size, date and flags in each folder. Nothing: they are equal.
func Diff(a, b Mailboxes) []string {
	var out []string
	names := slices.Sorted(maps.Keys(a))
	for name := range b {
		if a[name] == nil {
			names = append(names, name)
		}
	}
	for _, name := range names {
		x, y := a[name], b[name]
		switch {
		case x == nil:
			out = append(out, fmt.Sprintf("%s: only on B, with %d messages", name, len(y.Messages)))
			continue
		case y == nil:
			out = append(out, fmt.Sprintf("%s: only on A, with %d messages", name, len(x.Messages)))
			continue
		case x.Subscribed != y.Subscribed:
			out = append(out, fmt.Sprintf("%s: subscribed %v and %v", name, x.Subscribed, y.Subscribed))
		}
		if x.Use != y.Use {
			out = append(out, fmt.Sprintf("%s: special use %q and %q", name, x.Use, y.Use))
		}
		count := make(map[string]int)
		what := make(map[string]Message)
		for _, m := range x.Messages {
			count[m.key()]++
			what[m.key()] = m
		}
		for _, m := range y.Messages {
			count[m.key()]--
			what[m.key()] = m
		}
		for _, key := range slices.Sorted(maps.Keys(count)) {
			if n := count[key]; n != 0 {
				m := what[key]
				out = append(out, fmt.Sprintf("%s: id %q UID %d %v %s: A has %+d", name, m.ID, m.UID, m.Flags, time.Unix(m.Date, 0).UTC().Format(time.DateTime), n))
			}
		}
	}
	return out
}
