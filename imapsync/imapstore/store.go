package imapstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

var (
	_ imapsync.Store   = (*Store)(nil)
	_ imapsync.Watcher = (*Store)(nil)
)

// staleAfter is how long a connection may rest before it is tried with a NOOP: a write
// on one that the server has closed would end as "unknown".
const staleAfter = 30 * time.Second

// Options say how a Store reaches its account.
type Options struct {
	Server wire.Config
	// Login is asked before each login, so that a token may be fresh.
	Login func() (wire.Login, error)
	// Log gets what an operator may want to know; nil: nobody does.
	Log *slog.Logger
}

// Store is one side of one account.
type Store struct {
	opts Options
	log  *slog.Logger

	c        *wire.Client
	used     time.Time
	notified bool
	spaces   *wire.Namespaces
	prefix   string // of the personal namespace, with its separator
	sep      byte
	// server maps canonical names to the server's, as of the last List.
	server map[string]string
	// seen has the UIDVALIDITY of each box as it was last seen on this connection.
	seen     map[string]uint32
	readOnly map[string]bool
	last     []imapsync.Box // of the last List

	flagSets map[string]imapsync.Flags
	// alone: bodies must be fetched one at a time (wire.ErrOrder).
	alone bool
	// ask: literals wait for the server's go-ahead.
	ask bool
	// sizesFirst: the server tells sizes after bodies.
	sizesFirst bool

	in, out int64 // traffic of earlier connections
}

// New makes a Store; the first call connects.
func New(opts Options) *Store {
	s := &Store{opts: opts, log: opts.Log, readOnly: make(map[string]bool), flagSets: make(map[string]imapsync.Flags)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Close ends the session. The Store may be used again; it then connects anew.
func (s *Store) Close() error {
	s.drop()
	return nil
}

// Traffic returns the bytes received and sent so far, as they were on the wire.
func (s *Store) Traffic() (in, out int64) {
	in, out = s.in, s.out
	if s.c != nil {
		i, o := s.c.Traffic()
		in, out = in+i, out+o
	}
	return in, out
}

func (s *Store) drop() {
	if s.c == nil {
		return
	}
	s.c.Logout()
	i, o := s.c.Traffic()
	s.in, s.out = s.in+i, s.out+o
	s.c, s.notified, s.spaces, s.seen = nil, false, nil, nil
}

// client returns a usable connection; reused says that it is not new.
func (s *Store) client(ctx context.Context) (c *wire.Client, reused bool, err error) {
	if s.c != nil && s.c.Err() == nil {
		return s.c, true, nil
	}
	s.drop()
	login, err := s.opts.Login()
	if err != nil {
		return nil, false, fmt.Errorf("credentials: %w", err)
	}
	if s.c, err = wire.Dial(ctx, s.opts.Server, login); err != nil {
		s.c = nil
		return nil, false, err
	}
	s.seen = make(map[string]uint32)
	s.used = time.Now()
	s.log.Debug("connected", "account", login.User, "server", s.c.Server().Name, "quirks", s.c.Quirks().Name)
	return s.c, false, nil
}

// reading runs what may be repeated, once more if a connection that had rested turns
// out to be dead.
func (s *Store) reading(ctx context.Context, f func(c *wire.Client) error) error {
	for {
		c, reused, err := s.client(ctx)
		if err != nil {
			return err
		}
		err = f(c)
		s.used = time.Now()
		if err != nil && !wire.Refused(err) {
			s.drop()
			if reused && ctx.Err() == nil && errors.Is(err, wire.ErrClosed) {
				continue
			}
		}
		return err
	}
}

// writing returns a connection that was alive just now, and knows the names.
func (s *Store) writing(ctx context.Context) (*wire.Client, error) {
	c, reused, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	if reused && time.Since(s.used) > staleAfter {
		if _, err := c.Noop().Wait(ctx); err != nil && !wire.Refused(err) {
			s.drop()
			if c, _, err = s.client(ctx); err != nil {
				return nil, err
			}
		}
	}
	s.used = time.Now()
	return c, s.layout(ctx, c)
}

// wrote drops the connection where it broke.
func (s *Store) wrote(err error) error {
	s.used = time.Now()
	if s.c != nil && s.c.Err() != nil {
		s.drop()
	}
	return err
}

// layout learns the prefix and the separator of the server.
func (s *Store) layout(ctx context.Context, c *wire.Client) error {
	if s.spaces != nil {
		return nil
	}
	ask := c.Namespaces()
	top := c.List("") // RFC 3501, section 6.3.8: an empty name asks for the separator
	spaces, err := ask.Wait(ctx)
	if err != nil && !wire.Refused(err) {
		return err
	}
	boxes, err := top.Wait(ctx)
	if err != nil && !wire.Refused(err) {
		return err
	}
	s.spaces = &spaces
	s.prefix, s.sep = "", '/'
	for _, b := range boxes {
		if b.Separator != 0 {
			s.sep = b.Separator
		}
	}
	if len(spaces.Personal) > 0 {
		s.prefix = spaces.Personal[0].Prefix
		if spaces.Personal[0].Separator != 0 {
			s.sep = spaces.Personal[0].Separator
		}
	}
	return nil
}

// slash stands for "/" in the names of a server whose separator is another: U+2215.
const slash = "∕"

// canonical is the name of imapsync.Box; foreign: it lies outside the personal namespace.
func (s *Store) canonical(name string) (canon string, foreign bool) {
	if name == "INBOX" {
		return name, false
	}
	for _, list := range [][]wire.Namespace{s.spaces.Others, s.spaces.Shared} {
		for _, ns := range list {
			if ns.Prefix != "" && (strings.HasPrefix(name, ns.Prefix) || name == strings.TrimSuffix(ns.Prefix, string(ns.Separator))) {
				return s.slashes(name), true
			}
		}
	}
	if s.prefix != "" {
		rest, ok := strings.CutPrefix(name, s.prefix)
		if !ok || rest == "" {
			return s.slashes(name), true
		}
		name = rest
	}
	return s.slashes(name), false
}

func (s *Store) slashes(name string) string {
	if s.sep == '/' {
		return name
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "/", slash), string(s.sep), "/")
}

// name is the server's name of a box.
func (s *Store) name(canon string) (string, error) {
	if canon == "INBOX" {
		return canon, nil
	}
	if name, ok := s.server[canon]; ok {
		return name, nil
	}
	if canon == "" || strings.HasPrefix(canon, "/") || strings.HasSuffix(canon, "/") || strings.Contains(canon, "//") {
		return "", fmt.Errorf("%w: %q", imapsync.ErrNoName, canon)
	}
	if s.sep == '/' {
		return s.prefix + canon, nil
	}
	if strings.IndexByte(canon, s.sep) >= 0 {
		return "", fmt.Errorf("%w: %q has the separator %q in it", imapsync.ErrNoName, canon, s.sep)
	}
	return s.prefix + strings.ReplaceAll(canon, "/", string(s.sep)), nil
}

// List implements imapsync.Reader.
func (s *Store) List(ctx context.Context) (imapsync.Listing, error) {
	var out imapsync.Listing
	err := s.reading(ctx, func(c *wire.Client) (err error) {
		out, err = s.list(ctx, c)
		return err
	})
	if err != nil {
		return imapsync.Listing{}, fmt.Errorf("list mailboxes: %w", err)
	}
	return out, nil
}

func (s *Store) list(ctx context.Context, c *wire.Client) (imapsync.Listing, error) {
	var spaces *wire.Reply[wire.Namespaces]
	if s.spaces == nil {
		spaces = c.Namespaces() // travels with LIST
	}
	if c.Selected() != nil {
		// RFC 3501, section 6.3.10: STATUS is not for the open mailbox.
		if r := c.Unselect(); !c.Has(imap.CapUnselect) {
			c.Noop()
		} else {
			_ = r // its answer comes before that of LIST
		}
	}
	boxes, err := c.Mailboxes(ctx)
	if err != nil {
		return imapsync.Listing{}, fault(err)
	}
	if spaces != nil {
		ns, err := spaces.Wait(ctx)
		if err != nil && !wire.Refused(err) {
			return imapsync.Listing{}, err
		}
		s.spaces, s.prefix, s.sep = &ns, "", '/'
		for _, b := range boxes {
			if b.Separator != 0 {
				s.sep = b.Separator
			}
		}
		if len(ns.Personal) > 0 {
			s.prefix = ns.Personal[0].Prefix
			if ns.Personal[0].Separator != 0 {
				s.sep = ns.Personal[0].Separator
			}
		}
	}
	out := imapsync.Listing{GIDs: c.GUID() != "", LimitBytes: c.AppendLimit()}
	s.server = make(map[string]string, len(boxes))
	for _, b := range boxes {
		if b.Name == "" {
			s.log.Warn("mailbox name cannot be read and is left out", "mailbox", b.Raw)
			continue
		}
		box := s.box(b)
		if other, taken := s.server[box.Name]; taken {
			s.log.Warn("two mailboxes have one name; the second is left out", "mailbox", b.Name, "other", other)
			continue
		}
		s.server[box.Name] = b.Name
		out.Boxes = append(out.Boxes, box)
	}
	s.last = slices.Clone(out.Boxes)
	return out, nil
}

func (s *Store) box(b wire.Mailbox) imapsync.Box {
	var box imapsync.Box
	box.Name, box.Foreign = s.canonical(b.Name)
	box.Subscribed = b.Subscribed
	box.NoSelect = b.Has(imap.MailboxAttrNoSelect) || b.Has(imap.MailboxAttrNonExistent)
	for _, use := range []imap.MailboxAttr{
		imap.MailboxAttrAll, imap.MailboxAttrArchive, imap.MailboxAttrDrafts, imap.MailboxAttrFlagged,
		imap.MailboxAttrJunk, imap.MailboxAttrSent, imap.MailboxAttrTrash, imap.MailboxAttrImportant,
	} {
		if b.Has(use) && box.Use == "" {
			box.Use = string(use)
		}
	}
	if st := b.State; st != nil && !box.NoSelect {
		box.ID = st.ID
		box.Cursor = imapsync.Cursor{Validity: st.Validity, Next: st.Next, ModSeq: st.ModSeq, Messages: st.Messages}
		s.seen[box.Name] = st.Validity
	}
	box.ReadOnly = s.readOnly[box.Name]
	return box
}
