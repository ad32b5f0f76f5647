package wire

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

var errAbandoned = errors.New("the client gave the message up")

// message is what a Session reads: the content of one DATA command, or of all BDAT
// chunks of a transaction.
type message struct {
	c     *Conn
	pace  pace
	limit int64 // of content, in bytes
	size  int64 // of content so far

	dots  *dotScanner // DATA; nil for BDAT
	text  textCheck   // BDAT
	chunk int64       // bytes left of the chunk
	whole int64       // its size
	last  bool

	span  []byte // content not handed out yet, in the input's buffer
	done  bool   // the end of the message was seen
	fault error  // what is wrong with the content
	cut   error  // why the connection can give no more
	given bool   // the client gave up, with the command in c.next
}

func (c *Conn) newMessage() *message {
	cfg := &c.srv.cfg
	return &message{
		c:     c,
		limit: cfg.MaxMessageBytes,
		pace:  newPace(time.Now(), cfg.DataTimeout, cfg.DataTotal, cfg.MinDataRate),
	}
}

// Read implements io.Reader.
func (m *message) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := m.fill(); err != nil {
		return 0, err
	}
	n := copy(p, m.span)
	m.span = m.span[n:]
	return n, nil
}

// WriteTo implements io.WriterTo; it saves io.Copy a copy.
func (m *message) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		err := m.fill()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(m.span)
		total += int64(n)
		if err != nil {
			return total, err
		}
		m.span = nil
	}
}

// fill makes sure that there is a span, or tells why there will be none.
func (m *message) fill() error {
	for len(m.span) == 0 {
		switch {
		case m.cut != nil:
			return m.cut
		case m.fault != nil:
			return m.fault
		case m.given:
			return errAbandoned
		case m.done:
			return io.EOF
		case m.dots == nil && m.chunk == 0 && !m.last:
			m.nextChunk()
		default:
			m.advance()
		}
	}
	return nil
}

// advance looks at more bytes of DATA, or of the chunk, and takes them.
func (m *message) advance() {
	b := m.c.in.unread()
	if m.dots != nil {
		span, used, done, clean := m.dots.next(b)
		m.c.in.consume(used)
		switch {
		case done:
			m.done = true
		case used == 0:
			m.more()
		default:
			m.take(span, clean)
		}
		return
	}
	if m.chunk > 0 && len(b) == 0 {
		m.more()
		return
	}
	b = b[:min(int64(len(b)), m.chunk)]
	m.c.in.consume(len(b))
	m.chunk -= int64(len(b))
	clean := m.text.clean(b)
	if m.chunk == 0 && m.last {
		m.done = true
		clean = clean && !m.text.cr
	}
	m.take(b, clean)
}

// take makes b the span, unless the message is refused; the first fault counts.
func (m *message) take(b []byte, clean bool) {
	switch {
	case m.fault != nil:
	case !clean:
		m.refuse(ErrBadBytes)
	case int64(len(b)) > m.limit-m.size:
		m.refuse(ErrTooLarge)
	default:
		m.size += int64(len(b))
		m.span = b
	}
}

func (m *message) refuse(err error) {
	m.fault = err
	m.span = nil
}

// more reads once from the connection, within the time the sender has.
func (m *message) more() {
	start := time.Now()
	err := m.c.wait(m.pace.deadline(start), false)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		m.cut = fmt.Errorf("message cut off: %w", err)
		return
	}
	m.pace.progress(time.Since(start), m.c.in.fresh)
	m.c.in.grow()
}

// nextChunk acknowledges the chunk and reads on to the next BDAT command.
func (m *message) nextChunk() {
	c := m.c
	c.reply(250, gosmtp.EnhancedCode{2, 0, 0}, strconv.FormatInt(m.whole, 10)+" bytes received")
	for {
		cmd, ok := c.readCommand(m.pace.end)
		if !ok {
			m.cut = fmt.Errorf("message cut off between chunks: %w", io.ErrUnexpectedEOF)
			return
		}
		switch cmd.verb {
		case "BDAT":
			size, last, ok := parseChunk(cmd.arg)
			if !ok {
				c.badChunk()
				m.cut = errors.New("malformed BDAT command")
				return
			}
			m.start(size, last)
			return
		case "NOOP":
			if c.dull() {
				c.reply(250, gosmtp.EnhancedCode{2, 0, 0}, "OK")
			}
		case "RSET", "QUIT", "EHLO", "HELO":
			m.given = true
			c.next = &cmd
			return
		default:
			// RFC 3030, section 2: nothing else may come between the chunks.
			c.bad(refusal(503, 5, 1, "BDAT in progress"))
		}
	}
}

func (m *message) start(size int64, last bool) {
	m.chunk, m.whole, m.last = size, size, last
	if size > m.limit-m.size && m.fault == nil {
		m.refuse(ErrTooLarge)
	}
	if size == 0 && last {
		m.done = true
		if m.text.cr {
			m.refuse(ErrBadBytes)
		}
	}
}

// parseChunk reads the argument of BDAT (RFC 3030, section 2).
func parseChunk(arg string) (size int64, last, ok bool) {
	number, rest, more := strings.Cut(arg, " ")
	if more {
		if !strings.EqualFold(strings.TrimLeft(rest, " "), "LAST") {
			return 0, false, false
		}
		last = true
	}
	size, ok = parseSize(number)
	return size, last, ok
}

// badChunk ends a connection that is out of step: how many bytes follow is unknown.
func (c *Conn) badChunk() {
	c.linger = true
	c.fail(refusal(501, 5, 4, "Syntax: BDAT size [LAST]"))
}

// discard reads the rest of DATA, or of the chunk, away.
func (m *message) discard() {
	m.span = nil
	m.pace.cap(time.Now(), m.c.srv.cfg.DiscardTimeout)
	for m.cut == nil && !m.given && !m.done && (m.dots != nil || m.chunk > 0) {
		m.advance()
		m.span = nil
	}
}

func (c *Conn) doData(arg string) {
	if !c.sequence() {
		return
	}
	switch {
	case arg != "":
		c.bad(refusal(501, 5, 4, "DATA takes no argument"))
	case !c.mail:
		c.bad(refusal(503, 5, 1, "Need MAIL first"))
	case c.rcpts == 0:
		c.early(refusal(554, 5, 1, "No valid recipients"))
	default:
		c.reply(354, noEnhanced, "End data with <CRLF>.<CRLF>")
		m := c.newMessage()
		m.dots = &dotScanner{}
		c.receive(m)
	}
}

func (c *Conn) doBdat(arg string) {
	size, last, ok := parseChunk(arg)
	if !ok {
		c.badChunk()
		return
	}
	m := c.newMessage()
	m.start(size, last)
	if c.greeted && c.extended && c.mail && c.rcpts > 0 {
		c.receive(m)
		return
	}
	// RFC 3030, section 2: the bytes follow whatever the answer will be.
	m.done = false
	m.discard()
	switch {
	case m.cut != nil:
		c.cutOff(m.cut)
	case !c.sequence():
	case c.mail && c.extended:
		c.early(refusal(554, 5, 1, "No valid recipients"))
	default:
		c.early(refusal(503, 5, 1, "Need MAIL first"))
	}
}

// early refuses content that came for nothing. With PIPELINING (RFC 2920, section
// 3.1) the client could not know yet: it counts as idle, not as bad.
func (c *Conn) early(e *gosmtp.SMTPError) {
	if c.dull() {
		c.replyError(e)
	}
}

// receive lets the session read a message, brings the connection back into step
// and gives the one reply.
func (c *Conn) receive(m *message) {
	err := c.session.Data(m)
	complete := m.done && m.fault == nil && len(m.span) == 0
	m.discard()
	c.reset()
	switch {
	case m.cut != nil:
		c.cutOff(m.cut)
	case m.given:
		// The command that ended it is answered next.
	case errors.Is(m.fault, ErrTooLarge):
		c.linger = true
		c.replyError(refusal(552, 3, 4, "Message too large"))
	case m.fault != nil:
		c.replyError(refusal(550, 6, 11, "Message contains bare CR, bare LF or NUL"))
	case !complete && isPositive(err):
		c.log.Error("session took a message without reading it to its end")
		c.replyError(c.publicError(errors.New("message not read")))
	default:
		if c.answer(err, 250, gosmtp.EnhancedCode{2, 0, 0}, "OK") {
			// Many connections are kept open for many messages, and a list has many
			// addresses that are gone: what counts is what comes between two messages.
			c.idleCommands, c.badCommands, c.badRecipients = 0, 0, 0
		}
	}
}

// isPositive says that a session's answer is 2xx.
func isPositive(err error) bool {
	var e *gosmtp.SMTPError
	return err == nil || errors.As(err, &e) && e != nil && e.Code/100 == 2
}

// cutOff ends the connection after a message that did not arrive whole. There is
// no way back: what follows may be its rest (RFC 5321, section 4.5.3.2).
func (c *Conn) cutOff(err error) {
	c.log.Info("message not received", "client", c.remote.String(), "err", err)
	switch {
	case c.closing: // answered already
	case isTimeout(err):
		c.linger = true
		c.fail(errTimeout)
	default:
		c.closing = true
	}
}
