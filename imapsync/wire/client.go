package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
)

// maxInFlight bounds commands on their way. Their lines must fit into what the kernel
// buffers, since nothing is read while they are written.
const maxInFlight = 64

// Client is one connection to an IMAP server, logged in. It belongs to one goroutine
// at a time; only Close may be called from another.
type Client struct {
	raw  net.Conn // as it was dialled
	cfg  Config
	end  endpoint
	line *line // the connection under TLS and compression, with its deadlines
	conn net.Conn
	br   *bufio.Reader
	bw   *bufio.Writer
	dec  decoder
	// flushers end a block of compression below bw.
	flushers []interface{ Flush() error }

	caps     imap.CapSet
	enabled  map[imap.Cap]bool
	greeting string
	server   ServerID
	quirks   Quirks
	owner    string // whom the mailboxes belong to, for messages

	tags    uint32
	pending []*command
	box     *Box // selected
	boxed   string
	message Message // of the FETCH response being read
	events  Events
	bye     string
	// open is a body that must be read before anything else.
	open *literal

	err    error // sticky
	closed atomic.Bool
	once   sync.Once
}

// command is one command on its way.
type command struct {
	tag, name string
	// take handles an untagged response if it is the command's; it reads up to, but
	// not including, CRLF.
	take func(r *response) (bool, error)
	// status sees untagged OK and NO, and says whether it was the command's.
	status func(s Status) bool
	// cont handles a continuation request.
	cont func(text string) error
	done bool
	// plusLiteral: a literal went out without being asked for.
	plusLiteral bool
	found       *[]imap.UIDRange // of a search
	fetch       *fetching        // who gets FETCH responses
	// selects: it opens a mailbox; begun: what arrives is about the new one.
	selects, begun bool
	finish         func(s Status)
	result         Status
}

// response is an untagged response at its beginning.
type response struct {
	num    uint32
	hasNum bool
	kind   string // upper case
}

// Reply is the answer to a command that was begun.
type Reply[T any] struct {
	c     *Client
	cmd   *command
	value T
	err   error // nothing was sent
	check func() error
}

// Wait sends what was begun, reads until the command is answered and returns its
// result. A *StatusError is the server's NO or BAD, after which the connection may be
// used further; any other error ends it, unless Refused says otherwise.
func (r *Reply[T]) Wait(ctx context.Context) (T, error) {
	if r.err != nil {
		return r.value, r.err
	}
	if err := r.c.wait(ctx, r.cmd, false); err != nil {
		return r.value, err
	}
	if r.cmd.result.Type != imap.StatusResponseTypeOK {
		return r.value, &StatusError{Command: r.cmd.name, Status: r.cmd.result}
	}
	if r.check != nil {
		if err := r.check(); err != nil {
			return r.value, err
		}
	}
	return r.value, nil
}

func failed[T any](c *Client, err error) *Reply[T] { return &Reply[T]{c: c, err: err} }

// begin sends a command line: name and what build adds. r must be filled in by the
// caller before the next call.
func begin[T any](c *Client, name string, build func(w *builder)) *Reply[T] {
	w := &builder{}
	if build != nil {
		build(w)
	}
	if w.err != nil {
		return failed[T](c, w.err)
	}
	if len(w.b) > maxCommandBytes {
		return failed[T](c, fmt.Errorf("%w: command of %d bytes", ErrArgument, len(w.b)))
	}
	cmd := c.enqueue(name)
	c.write(cmd.tag, " ", name, string(w.b), "\r\n")
	return &Reply[T]{c: c, cmd: cmd}
}

func (c *Client) enqueue(name string) *command {
	c.tags++
	cmd := &command{tag: "u" + strconv.FormatUint(uint64(c.tags), 10), name: name}
	c.pending = append(c.pending, cmd)
	return cmd
}

func (c *Client) write(parts ...string) {
	for _, s := range parts {
		if _, err := c.bw.WriteString(s); err != nil {
			_ = c.fail(err) // it stays, and the next Wait returns it
		}
	}
}

// Flush sends what was begun without waiting for answers.
func (c *Client) Flush(ctx context.Context) error {
	defer c.guard(ctx)()
	return c.flush(ctx)
}

func (c *Client) flush(ctx context.Context) error {
	if c.err != nil {
		return c.err
	}
	err := c.bw.Flush()
	for _, f := range c.flushers {
		if err == nil {
			err = f.Flush()
		}
	}
	if err != nil {
		return c.failIn(ctx, fmt.Errorf("write: %w", err))
	}
	return nil
}

// guard closes the connection when ctx ends: a read in progress returns.
func (c *Client) guard(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, c.cut)
	return func() { stop() }
}

// cut closes the socket, from any goroutine.
func (c *Client) cut() {
	c.closed.Store(true)
	c.once.Do(func() { c.line.Close() }) //nolint:errcheck // nothing more is expected of it
}

// fail ends the connection for good.
func (c *Client) fail(err error) error {
	if c.err == nil {
		if c.bye != "" {
			err = fmt.Errorf("%w: server said BYE %s", ErrClosed, c.bye)
		} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrClosed, err)
		}
		c.err = err
		c.cut()
	}
	return c.err
}

func (c *Client) failIn(ctx context.Context, err error) error {
	if c.err == nil && ctx.Err() != nil {
		c.err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		c.cut()
	}
	return c.fail(err)
}

// Err is why the connection ended, or nil while it is usable.
func (c *Client) Err() error {
	if c.err == nil && c.closed.Load() {
		return net.ErrClosed
	}
	return c.err
}

// wait reads until cmd is answered, or with cont until the server asks for more.
func (c *Client) wait(ctx context.Context, cmd *command, cont bool) error {
	if cmd.done {
		return nil
	}
	defer c.guard(ctx)()
	if err := c.flush(ctx); err != nil {
		return err
	}
	for !cmd.done {
		asked, err := c.read()
		if err != nil {
			return c.failIn(ctx, err)
		}
		if cont && asked == cmd {
			return nil
		}
	}
	return nil
}

// room waits until another command may be sent.
func (c *Client) room(ctx context.Context) error {
	for len(c.pending) >= maxInFlight {
		if err := c.wait(ctx, c.pending[0], false); err != nil {
			return err
		}
	}
	return nil
}

// read handles one response. For a continuation request it returns the command that
// was waiting for it.
func (c *Client) read() (*command, error) {
	if c.err != nil {
		return nil, c.err
	}
	if c.open != nil {
		return nil, protocol("a body was left unread")
	}
	c.line.fresh()
	c.dec.start()
	tag, err := c.dec.atom("")
	if err != nil {
		return nil, err
	}
	switch tag {
	case "*":
		if err := c.dec.space(); err != nil {
			return nil, err
		}
		return nil, c.untagged()
	case "+":
		if blank, err := c.dec.accept(' '); err != nil || !blank {
			if err != nil {
				return nil, err
			}
		}
		text, err := c.dec.human()
		if err != nil {
			return nil, err
		}
		for _, cmd := range c.pending {
			if cmd.cont != nil {
				return cmd, cmd.cont(text)
			}
		}
		return nil, protocol("it asks for more where nothing is to be sent")
	}
	return nil, c.tagged(tag)
}

func (c *Client) tagged(tag string) error {
	if err := c.dec.space(); err != nil {
		return err
	}
	word, err := c.dec.keyword("")
	if err != nil {
		return err
	}
	t, ok := statusType(word)
	if !ok || t == imap.StatusResponseTypeBye || t == imap.StatusResponseTypePreAuth {
		return protocol("tagged %s", word)
	}
	s, err := c.dec.status(t)
	if err != nil {
		return err
	}
	if s.Code == "CAPABILITY" {
		c.setCaps(s.words)
	}
	for i, cmd := range c.pending {
		if cmd.tag != tag {
			continue
		}
		c.pending = append(c.pending[:i], c.pending[i+1:]...)
		cmd.result, cmd.done = s, true
		if cmd.finish != nil {
			cmd.finish(s)
		}
		if t == imap.StatusResponseTypeBad && cmd.plusLiteral {
			// Facts: Dovecot reads the rest of the literal as commands.
			return fmt.Errorf("%w: %s: %s", ErrInjection, cmd.name, s)
		}
		return nil
	}
	return protocol("answer to %q, which was never asked", tag)
}

func (c *Client) untagged() error {
	var r response
	b, err := c.dec.peek()
	if err != nil {
		return err
	}
	if b >= '0' && b <= '9' {
		if r.num, err = c.dec.number32(); err != nil {
			return err
		}
		r.hasNum = true
		if err := c.dec.space(); err != nil {
			return err
		}
	}
	if r.kind, err = c.dec.keyword(""); err != nil {
		return err
	}
	if t, ok := statusType(r.kind); ok && !r.hasNum {
		s, err := c.dec.status(t)
		if err != nil {
			return err
		}
		c.heard(s)
		return nil
	}
	if r.hasNum && r.kind == "FETCH" {
		if err := c.readFetch(); err != nil {
			return err
		}
		return c.dec.skipLine()
	}
	for _, cmd := range c.pending {
		if cmd.take == nil {
			continue
		}
		if took, err := cmd.take(&r); err != nil {
			return err
		} else if took {
			return c.dec.skipLine() // extensions may have added something
		}
	}
	return c.unasked(&r)
}

// heard takes note of an untagged status.
func (c *Client) heard(s Status) {
	switch {
	case s.Type == imap.StatusResponseTypeBye:
		c.bye = s.Text
	case s.Code == "CAPABILITY":
		c.setCaps(s.words)
	case s.Code == "NOTIFICATIONOVERFLOW": // RFC 5465, section 5.8
		c.events.Overflow, c.events.Any = true, true
	}
	for _, cmd := range c.pending {
		if cmd.status != nil && cmd.status(s) {
			return
		}
	}
}

// unasked takes note of what another session did.
func (c *Client) unasked(r *response) error {
	switch {
	case r.kind == "CAPABILITY" && !r.hasNum:
		if err := c.dec.space(); err != nil {
			return err
		}
		words, err := c.dec.wordsTo('\r')
		if err != nil {
			return err
		}
		c.setCaps(words)
	case r.hasNum && (r.kind == "EXISTS" || r.kind == "EXPUNGE"), r.kind == "VANISHED" && !r.hasNum:
		c.events.note(c.boxed)
	case r.kind == "STATUS" && !r.hasNum:
		st, err := c.readStatus()
		if err != nil {
			return err
		}
		c.events.note(st.Name)
	case (r.kind == "LIST" || r.kind == "LSUB") && !r.hasNum:
		m, err := c.readList()
		if err != nil {
			return err
		}
		c.events.note(m.Name)
		c.events.Tree = true
	}
	return c.dec.skipLine()
}

// Close says LOGOUT where that costs nothing and closes the connection. It may be
// called at any time and more than once.
func (c *Client) Close() error {
	if c.closed.Load() {
		return nil
	}
	c.cut()
	return nil
}

// Logout ends the session: with LOGOUT, but without waiting for its answer.
func (c *Client) Logout() {
	if c.Err() == nil {
		lingers(c.raw, -1)
		c.tags++
		c.write("u", strconv.FormatUint(uint64(c.tags), 10), " LOGOUT\r\n")
		_ = c.flush(context.Background()) // the deadline of the line bounds it
	}
	_ = c.Close()
}

// Caps are the server's capabilities, without those that the configuration or a quirk
// rules out.
func (c *Client) Caps() imap.CapSet { return c.caps }

// Has says whether the server offers a capability that may be used.
func (c *Client) Has(capability imap.Cap) bool { return c.caps.Has(capability) }

func (c *Client) setCaps(words []string) {
	set := make(imap.CapSet, len(words))
	for _, w := range words {
		upper := strings.ToUpper(w)
		if upper == "IMAP4REV1" || upper == "IMAP4REV2" {
			upper = "IMAP4rev" + upper[8:]
		}
		set[imap.Cap(upper)] = struct{}{}
	}
	c.caps = c.without(set)
}

// without removes what must not be used.
func (c *Client) without(set imap.CapSet) imap.CapSet {
	ruled := func(capability imap.Cap) bool {
		if c.cfg.disabled(capability) {
			return true
		}
		return slices.Contains(c.quirks.Disable, capability)
	}
	// CapSet implies some: to rule out LITERAL- means LITERAL+ as well.
	implied := map[imap.Cap][]imap.Cap{imap.CapLiteralMinus: {imap.CapLiteralPlus}, imap.CapCondStore: {imap.CapQResync}}
	for capability, others := range implied {
		if ruled(capability) {
			delete(set, capability)
			for _, o := range others {
				delete(set, o)
			}
		}
	}
	rev2 := false
	for _, capability := range rev2Caps {
		if _, ok := set[imap.CapIMAP4rev2]; ok {
			rev2 = true
			set[capability] = struct{}{}
		}
	}
	if rev2 { // said one by one from here on, so that each can be ruled out
		delete(set, imap.CapIMAP4rev2)
		set[imap.CapIMAP4rev1] = struct{}{}
	}
	for capability := range set {
		if ruled(capability) {
			delete(set, capability)
		}
	}
	return set
}

// RFC 9051, appendix E: what IMAP4rev2 has in it.
var rev2Caps = []imap.Cap{
	imap.CapNamespace, imap.CapUnselect, imap.CapUIDPlus, imap.CapESearch, imap.CapEnable, imap.CapIdle, imap.CapSASLIR,
	imap.CapListExtended, imap.CapListStatus, imap.CapMove, imap.CapLiteralMinus, imap.CapStatusSize, imap.CapSpecialUse,
}
