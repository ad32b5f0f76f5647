package imapstore

import (
	"context"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/wire"
)

// watchLimit is how long one IDLE lasts (RFC 2177: below 29 minutes), and how soon a dead
// server is noticed.
const watchLimit = 10 * time.Minute

// Watch implements imapsync.Watcher.
func (s *Store) Watch(ctx context.Context, changed func(box string)) error {
	err := s.watch(ctx, changed)
	if ctx.Err() != nil {
		_ = s.wrote(nil)
		return nil //nolint:nilerr // the contract: nil when ctx ends
	}
	return s.wrote(fmt.Errorf("watch: %w", err))
}

func (s *Store) watch(ctx context.Context, changed func(box string)) error {
	c, err := s.writing(ctx)
	if err != nil {
		return err
	}
	if !s.notified && c.Has(imap.CapNotify) {
		_, err := c.Notify().Wait(ctx)
		if err != nil && !wire.Refused(err) {
			return err
		}
		s.notified = err == nil
	}
	// What happened between the last listing and NOTIFY is not told of any more, and what is
	// known to have happened may be our own doing: another look decides.
	c.Events()
	before := s.last
	l, err := s.list(ctx, c)
	if err != nil {
		return err
	}
	c.Events()
	if !same(before, l.Boxes) {
		changed("")
	}
	if !s.notified {
		if _, err := s.open(c, "INBOX").wait(ctx); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		events, err := c.Watch(ctx, watchLimit, s.notified)
		if err != nil {
			return err
		}
		if !events.Any {
			continue
		}
		if events.Tree || events.Overflow || len(events.Boxes) == 0 {
			changed("")
			continue
		}
		for name := range events.Boxes {
			canon, _ := s.canonical(name)
			changed(canon)
		}
	}
	return nil
}

// same compares the cursors of two listings.
func same(before, now []imapsync.Box) bool {
	if len(before) != len(now) {
		return false
	}
	cursors := make(map[string]imapsync.Box, len(before))
	for _, b := range before {
		cursors[b.Name] = b
	}
	for _, b := range now {
		if cursors[b.Name] != b {
			return false
		}
	}
	return true
}
