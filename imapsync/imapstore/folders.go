package imapstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

// Folders implements imapsync.Writer.
func (s *Store) Folders(ctx context.Context, cs []imapsync.FolderChange) ([]error, error) {
	c, err := s.writing(ctx)
	if err != nil {
		return nil, fmt.Errorf("change folders: %w", err)
	}
	out := make([]error, len(cs))
	for i, ch := range cs {
		err := fault(s.folder(ctx, c, ch))
		if c.Err() != nil {
			return nil, s.wrote(fmt.Errorf("change folders: %w", err))
		}
		out[i] = err
	}
	return out, s.wrote(nil)
}

func (s *Store) folder(ctx context.Context, c *wire.Client, ch imapsync.FolderChange) error {
	name, err := s.name(ch.Name)
	if err != nil {
		return err
	}
	switch ch.Op {
	case imapsync.CreateFolder:
		return s.create(ctx, c, ch, name)
	case imapsync.RenameFolder:
		to, err := s.name(ch.To)
		if err != nil {
			return err
		}
		return s.rename(ctx, c, ch.Name, name, ch.To, to)
	case imapsync.DeleteFolder:
		return s.remove(ctx, c, ch.Name, name)
	case imapsync.SubscribeFolder:
		_, err = c.Subscribe(name).Wait(ctx)
	case imapsync.UnsubscribeFolder:
		_, err = c.Unsubscribe(name).Wait(ctx)
	default:
		return fmt.Errorf("%w: operation %d", wire.ErrUnsupported, ch.Op)
	}
	return err
}

func (s *Store) create(ctx context.Context, c *wire.Client, ch imapsync.FolderChange, name string) error {
	_, err := c.Create(name, imap.MailboxAttr(ch.Use)).Wait(ctx)
	if err != nil && ch.Use != "" && (wire.Code(err) == "USEATTR" || isBad(err)) {
		// RFC 6154, section 3: another mailbox has this use, or the server does not let it be
		// set. The folder matters more.
		_, err = c.Create(name, "").Wait(ctx)
	}
	delete(s.seen, ch.Name)
	return err
}

func isBad(err error) bool {
	e, ok := errors.AsType[*wire.StatusError](err)
	return ok && e.Status.Type == imap.StatusResponseTypeBad
}

func (s *Store) rename(ctx context.Context, c *wire.Client, canon, name, toCanon, to string) error {
	if name == "INBOX" { // RFC 3501, section 6.3.5: that would move all its messages
		return fmt.Errorf("%w: INBOX cannot be renamed", imapsync.ErrRefused)
	}
	if err := s.leave(ctx, c); err != nil {
		return err
	}
	if _, err := c.Rename(name, to).Wait(ctx); err != nil {
		return err
	}
	s.forget(canon)
	s.forget(toCanon)
	return nil
}

// leave closes the open mailbox, which some servers refuse to rename or delete.
func (s *Store) leave(ctx context.Context, c *wire.Client) error {
	if c.Selected() == nil {
		return nil
	}
	if _, err := c.Unselect().Wait(ctx); err != nil && !wire.Refused(err) {
		return err
	}
	return nil
}

// forget drops what was known of a box and its children.
func (s *Store) forget(canon string) {
	for name := range s.server {
		if name == canon || strings.HasPrefix(name, canon+"/") {
			delete(s.server, name)
		}
	}
	for name := range s.seen {
		if name == canon || strings.HasPrefix(name, canon+"/") {
			delete(s.seen, name)
		}
	}
}

// remove deletes an empty folder so that a message that arrives meanwhile is not lost:
// it is given a hidden name first, under which nobody delivers, and looked at again.
func (s *Store) remove(ctx context.Context, c *wire.Client, canon, name string) error {
	if name == "INBOX" {
		return fmt.Errorf("%w: INBOX cannot be deleted", imapsync.ErrRefused)
	}
	if err := s.leave(ctx, c); err != nil {
		return err
	}
	boxes, err := s.tree(ctx, c, name)
	if err != nil {
		return err
	}
	if len(boxes) == 0 {
		return fmt.Errorf("%w: %s", imapsync.ErrNoBox, canon)
	}
	own := -1
	for i, b := range boxes {
		if b.Name == name {
			own = i
		} else if !b.Has(imap.MailboxAttrNonExistent) {
			return fmt.Errorf("%w: %s has children", imapsync.ErrNotEmpty, canon)
		}
	}
	if own < 0 {
		return fmt.Errorf("%w: %s", imapsync.ErrNoBox, canon)
	}
	if boxes[own].Has(imap.MailboxAttrNoSelect) {
		_, err := c.Delete(name).Wait(ctx)
		return err
	}
	state, err := c.Status(name).Wait(ctx)
	if err != nil {
		return err
	}
	if state.Messages > 0 {
		return fmt.Errorf("%w: %s holds %d messages", imapsync.ErrNotEmpty, canon, state.Messages)
	}
	hidden, err := s.name(imapsync.HiddenPrefix + "-delete-" + rand.Text()[:12])
	if err != nil {
		return err
	}
	if _, err := c.Rename(name, hidden).Wait(ctx); err != nil {
		return err
	}
	s.forget(canon)
	state, err = c.Status(hidden).Wait(ctx)
	if err == nil && state.Messages == 0 {
		if boxes, err = s.tree(ctx, c, hidden); err == nil && len(boxes) == 1 {
			if _, err = c.Delete(hidden).Wait(ctx); err == nil {
				return nil
			}
		}
	}
	// Not empty, or not to be deleted: it gets its name back, also when ctx has ended.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, rerr := c.Rename(hidden, name).Wait(back); rerr != nil {
		s.log.Warn("folder could not get its name back", "mailbox", canon, "hidden", hidden, "err", rerr)
		return fmt.Errorf("folder %s is now named %s: %w", canon, hidden, errHalf)
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: mail arrived in %s", imapsync.ErrNotEmpty, canon)
}

var errHalf = errors.New("neither deleted nor named as before")

// tree lists a folder and its children, without taking a wildcard in its name for one.
func (s *Store) tree(ctx context.Context, c *wire.Client, name string) ([]wire.Mailbox, error) {
	if !strings.ContainsAny(name, "*%") {
		own := c.List(name)
		below, err := c.List(name + string(s.sep) + "*").Wait(ctx)
		if err != nil {
			return nil, err
		}
		boxes, err := own.Wait(ctx)
		return append(boxes, below...), err
	}
	all, err := c.List("*").Wait(ctx)
	if err != nil {
		return nil, err
	}
	var boxes []wire.Mailbox
	for _, b := range all {
		if b.Name == name || strings.HasPrefix(b.Name, name+string(s.sep)) {
			boxes = append(boxes, b)
		}
	}
	return boxes, nil
}
