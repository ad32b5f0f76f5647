package wire

import (
	"context"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
)

// maxNamedBoxes bounds the names kept in Events.
const maxNamedBoxes = 1000

// Events are what other sessions did, as far as the server told.
type Events struct {
	// Any: something happened.
	Any bool
	// Boxes are the names of mailboxes in which something happened.
	Boxes map[string]bool
	// Tree: mailboxes were made, renamed, deleted or subscribed to.
	Tree bool
	// Overflow: the server stopped to tell (NOTIFICATIONOVERFLOW), or there was more
	// than is kept; everything must be looked at.
	Overflow bool
}

func (e *Events) note(box string) {
	e.Any = true
	if box == "" || e.Boxes[box] {
		return
	}
	if len(e.Boxes) >= maxNamedBoxes {
		e.Overflow = true
		return
	}
	if e.Boxes == nil {
		e.Boxes = make(map[string]bool)
	}
	e.Boxes[box] = true
}

// Events returns what happened since it was last asked.
func (c *Client) Events() Events {
	e := c.events
	c.events = Events{}
	return e
}

// Notify asks the server to tell of changes in all personal mailboxes (RFC 5465): new
// messages, expunges, flags, and the tree of mailboxes.
func (c *Client) Notify() *Reply[struct{}] {
	if !c.Has(imap.CapNotify) {
		return failed[struct{}](c, ErrUnsupported)
	}
	return begin[struct{}](c, "NOTIFY", func(w *builder) {
		w.raw(" SET (personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange))")
	})
}

// Watch waits until the server tells of something, at most for limit, and returns what
// it was. After Notify it listens; otherwise it uses IDLE (RFC 2177) on the open
// mailbox. When ctx ends it returns in good order, with the connection still usable,
// and without an error. limit should be below 29 minutes.
func (c *Client) Watch(ctx context.Context, limit time.Duration, notified bool) (Events, error) {
	if !notified && !c.Has(imap.CapIdle) {
		return Events{}, ErrUnsupported
	}
	if c.events.Any {
		return c.Events(), nil
	}
	if ctx.Err() != nil {
		return Events{}, nil
	}
	// The end of ctx must not cut the connection: it makes us ask to stop, and the
	// answer is bounded by the line's own time-out.
	inner := context.WithoutCancel(ctx)
	var cmd *command
	if !notified {
		cmd = c.enqueue("IDLE")
		c.write(cmd.tag, " IDLE\r\n")
		cmd.cont = func(string) error { return nil }
		err := c.wait(inner, cmd, true)
		cmd.cont = nil
		if err != nil {
			return Events{}, err
		}
		if cmd.done {
			if cmd.result.Type != imap.StatusResponseTypeOK {
				return Events{}, &StatusError{Command: cmd.name, Status: cmd.result}
			}
			return c.Events(), nil
		}
	}
	// What ends the wait is a line from us, so that the read that is waiting ends by
	// itself, whatever is below it. Nobody else writes meanwhile.
	var once sync.Once
	var wrote error
	poked := make(chan struct{})
	if notified {
		cmd = c.enqueue("NOOP")
	}
	poke := func() {
		once.Do(func() {
			defer close(poked)
			line := "DONE\r\n"
			if notified {
				line = cmd.tag + " NOOP\r\n"
			}
			_, wrote = c.bw.WriteString(line)
			if wrote == nil {
				wrote = c.bw.Flush()
			}
			for _, f := range c.flushers {
				if wrote == nil {
					wrote = f.Flush()
				}
			}
			if wrote != nil {
				c.line.Close() //nolint:errcheck // the read reports it
			}
		})
	}
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(waiting, poke)
	defer func() {
		if !stop() {
			<-poked // it writes, and so may whoever comes next
		}
	}()
	asked := false
	ordinary := c.line.timeout
	c.line.patience(limit + ordinary)
	defer c.line.patience(ordinary)
	for !cmd.done {
		if _, err := c.read(); err != nil {
			return Events{}, c.fail(err)
		}
		if c.events.Any && !asked && stop() {
			asked = true
			poke() // not begun, and never will be: this goroutine does it
			c.line.patience(ordinary)
		}
	}
	if cmd.result.Type != imap.StatusResponseTypeOK {
		return c.Events(), &StatusError{Command: cmd.name, Status: cmd.result}
	}
	return c.Events(), nil
}
