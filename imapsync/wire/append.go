package wire

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/emersion/go-imap/v2"
)

// literalMinusBytes is the longest literal that LITERAL- lets go unasked (RFC 7888,
// section 5).
const literalMinusBytes = 4096

// Literal is a message to be appended.
type Literal struct {
	Flags []imap.Flag
	Date  time.Time // INTERNALDATE; zero: the server's time of arrival
	Size  int64
	Body  io.Reader // exactly Size bytes
}

// AppendResult says where messages went; Validity 0: the server did not say.
type AppendResult struct {
	Validity uint32
	UIDs     []imap.UID // in the order of the messages
}

// Appending is an APPEND that is being written. With MULTIAPPEND it takes several
// messages, all of which are stored or none (RFC 3502). Nothing else may be done on the
// connection until Finish.
type Appending struct {
	c     *Client
	name  string
	reply *Reply[AppendResult]
	count int
	// Ask makes every literal wait for the server's go-ahead, also where LITERAL+ is
	// offered. It is for a message whose unasked literal the server once misread.
	Ask bool
}

// Append begins to append to a mailbox. What it sends goes out with the first Add.
func (c *Client) Append(name string) *Appending { return &Appending{c: c, name: name} }

// Add writes a message. A *StatusError means that the server refused it, or the command,
// before the body was sent: the command is over and Finish returns the same error.
// ErrTooBig and ErrArgument: nothing was sent, the others of this command are not
// concerned. Any other error ended the connection in the middle of a literal, and
// nothing of this command is stored.
func (a *Appending) Add(ctx context.Context, m Literal) error {
	c := a.c
	if err := c.Err(); err != nil {
		return err
	}
	if a.reply != nil && a.reply.cmd.done {
		return a.refusal()
	}
	if a.count > 0 && !c.Has(imap.CapMultiAppend) {
		return ErrUnsupported
	}
	if limit := c.AppendLimit(); limit > 0 && m.Size > limit {
		return fmt.Errorf("%w: %d of %d bytes", ErrTooBig, m.Size, limit)
	}
	ask := a.Ask || m.Size > c.unasked4(m.Size)
	w := &builder{}
	if a.count == 0 {
		w.raw(" APPEND")
		c.quoteName(w, a.name)
	}
	w.raw(" ")
	if len(m.Flags) > 0 {
		w.flags(m.Flags).raw(" ")
	}
	if !m.Date.IsZero() {
		w.date(m.Date).raw(" ")
	}
	w.raw("{", strconv.FormatInt(m.Size, 10))
	if !ask {
		w.raw("+")
	}
	w.raw("}\r\n")
	if w.err != nil {
		return w.err
	}
	if a.count == 0 {
		a.begin()
	}
	cmd := a.reply.cmd
	defer c.guard(ctx)()
	c.write(string(w.b))
	a.count++
	if ask {
		cmd.cont = func(string) error { return nil }
		err := c.wait(ctx, cmd, true)
		cmd.cont = nil
		if err != nil {
			return err
		}
		if cmd.done {
			return a.refusal()
		}
	} else {
		cmd.plusLiteral = true
	}
	return a.body(ctx, m)
}

// unasked4 is the size up to which a literal needs no go-ahead.
func (c *Client) unasked4(size int64) int64 {
	if _, plus := c.caps[imap.CapLiteralPlus]; plus {
		return size
	}
	if c.Has(imap.CapLiteralMinus) {
		return literalMinusBytes
	}
	return -1
}

func (a *Appending) begin() {
	c := a.c
	cmd := c.enqueue("APPEND")
	r := &Reply[AppendResult]{c: c, cmd: cmd}
	cmd.finish = func(s Status) {
		if s.Code == "APPENDUID" {
			r.value.Validity = s.validity
			for _, u := range s.set {
				for n := uint64(u.Start); n <= uint64(u.Stop) && len(r.value.UIDs) <= a.count; n++ {
					r.value.UIDs = append(r.value.UIDs, imap.UID(n))
				}
			}
		}
	}
	r.check = func() error {
		if r.value.Validity != 0 && len(r.value.UIDs) != a.count {
			// It cannot be told which is which: as if it had not been said.
			r.value = AppendResult{}
		}
		return nil
	}
	a.reply = r
	c.write(cmd.tag)
}

func (a *Appending) body(ctx context.Context, m Literal) error {
	c := a.c
	n, err := io.Copy(c.bw, io.LimitReader(m.Body, m.Size))
	if c.err != nil {
		return c.failIn(ctx, c.err)
	}
	if err != nil || n != m.Size {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		// The server waits for the rest of the literal; nothing but the end of the
		// connection tells it that there is none.
		return c.failIn(ctx, fmt.Errorf("%w: message of %d bytes ended after %d: %w", ErrUnfinished, m.Size, n, err))
	}
	return nil
}

func (a *Appending) refusal() error {
	if a.reply.cmd.result.Type == imap.StatusResponseTypeOK {
		return a.c.fail(protocol("APPEND answered OK before its end"))
	}
	return &StatusError{Command: "APPEND", Status: a.reply.cmd.result}
}

// Count is how many messages were added.
func (a *Appending) Count() int { return a.count }

// Finish ends the command; its Reply may be waited for later, after others have been
// begun.
func (a *Appending) Finish() *Reply[AppendResult] {
	if a.reply == nil {
		return failed[AppendResult](a.c, fmt.Errorf("%w: nothing to append", ErrArgument))
	}
	if !a.reply.cmd.done {
		a.c.write("\r\n")
	}
	return a.reply
}

// Abort gives up a command that has begun. The connection ends, nothing is stored.
func (a *Appending) Abort() {
	if a.reply != nil && !a.reply.cmd.done {
		_ = a.c.fail(ErrUnfinished)
	}
}
