package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// maxFlood is how many bytes of an overlong command line are thrown away before
// the connection is.
const maxFlood = 8 << 20

// command is one line from the client.
type command struct{ verb, arg string }

var (
	errLineTooLong = errors.New("command line too long")
	errBareLF      = errors.New("command line ends in a bare LF")
)

// foreign are words that other protocols start with.
var foreign = map[string]bool{
	"GET": true, "POST": true, "PUT": true, "HEAD": true, "OPTIONS": true, "DELETE": true,
	"CONNECT": true, "TRACE": true, "PATCH": true, "PROXY": true, "SSH": true, "USER": true,
}

// readCommand returns the next well-formed command; malformed ones it answers
// itself. With an end, which is that of a running BDAT sequence, Shutdown does not
// interrupt the wait. False: the connection is over.
func (c *Conn) readCommand(end time.Time) (command, bool) {
	for !c.closing {
		line, err := c.readLine(end)
		if err != nil {
			c.lineFault(err)
			continue
		}
		verb, arg, ok := splitVerb(line)
		switch {
		case len(line) == 0:
			c.bad(refusal(500, 5, 2, "Empty command"))
		case !ok || foreign[verb]:
			// Not SMTP, and nothing that follows would be.
			c.linger = true
			c.fail(refusal(554, 5, 1, "This is an SMTP server"))
		case hasControl(arg):
			c.bad(refusal(500, 5, 2, "Control character in command"))
		default:
			return command{verb, arg}, true
		}
	}
	return command{}, false
}

// lineFault deals with what readLine did not like.
func (c *Conn) lineFault(err error) {
	switch {
	case errors.Is(err, errLineTooLong):
		c.bad(refusal(500, 5, 2, "Line too long"))
	case errors.Is(err, errBareLF):
		// RFC 5321, section 2.3.8: lines end in CRLF and in nothing else.
		c.linger = true
		c.fail(refusal(500, 5, 2, "Lines must end in CRLF"))
	case isTimeout(err) && c.srv.stopping.Load(), errors.Is(err, errStopped):
		c.fail(errStopping)
	case isTimeout(err):
		c.fail(errTimeout)
	default:
		if !isEnd(err) {
			c.log.Debug("connection lost", "err", err)
		}
		c.closing = true
	}
}

var errStopped = errors.New("server is stopping")

// readLine returns one line without its CRLF. It is valid until the next read.
func (c *Conn) readLine(end time.Time) ([]byte, error) {
	limit := int(c.srv.cfg.MaxCommandLineBytes)
	var deadline time.Time
	seen, flood := 0, 0
	for {
		b := c.in.unread()
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			n := seen + i + 1
			c.in.consume(n)
			switch {
			case flood > 0 || n > limit:
				return nil, errLineTooLong
			case n < 2 || b[n-2] != '\r':
				return nil, errBareLF
			}
			return b[:n-2], nil
		}
		seen = len(b)
		if seen > limit {
			flood += seen
			c.in.consume(seen)
			seen = 0
			if flood > maxFlood {
				c.linger = true
				return nil, fmt.Errorf("flood of %d bytes in one command line", flood)
			}
		}
		if deadline.IsZero() {
			// One deadline for the whole line: dribbling does not renew it.
			c.in.release()
			deadline = time.Now().Add(c.srv.cfg.CommandTimeout)
			if !end.IsZero() && end.Before(deadline) {
				deadline = end
			}
		}
		if err := c.wait(deadline, end.IsZero()); err != nil {
			return nil, err
		}
	}
}

// wait writes what is due and reads more.
func (c *Conn) wait(deadline time.Time, interruptible bool) error {
	if err := c.flush(); err != nil {
		return err
	}
	if interruptible {
		if !c.setIdle(deadline) {
			return errStopped
		}
		defer c.setBusy()
	} else if err := c.raw.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err := c.in.read()
	return err
}

// bad answers a command that is refused by its form and counts it.
func (c *Conn) bad(e *gosmtp.SMTPError) {
	c.badCommands++
	if c.badCommands > c.srv.cfg.MaxBadCommands {
		c.linger = true
		c.fail(refusal(421, 7, 0, "Too many bad commands"))
		return
	}
	c.replyError(e)
}

// dull counts a command that moves no mail; false: it was one too many.
func (c *Conn) dull() bool {
	c.idleCommands++
	if c.idleCommands > c.srv.cfg.MaxIdleCommands {
		c.linger = true
		c.fail(refusal(421, 7, 0, "Too many commands without mail"))
		return false
	}
	return true
}

// do carries one command out.
func (c *Conn) do(cmd command) {
	switch cmd.verb {
	case "MAIL":
		c.doMail(cmd.arg)
	case "RCPT":
		c.doRcpt(cmd.arg)
	case "DATA":
		c.doData(cmd.arg)
	case "BDAT":
		c.doBdat(cmd.arg)
	case "QUIT":
		c.fail(refusal(221, 0, 0, "Bye"))
	case "STARTTLS":
		c.doStartTLS(cmd.arg)
	default:
		if c.dull() {
			c.doDull(cmd)
		}
	}
}

func (c *Conn) doDull(cmd command) {
	switch cmd.verb {
	case "EHLO", "HELO":
		c.doHello(cmd.arg, cmd.verb == "EHLO")
	case "RSET":
		if cmd.arg != "" {
			c.bad(refusal(501, 5, 4, "RSET takes no argument"))
			return
		}
		c.reset()
		c.reply(250, gosmtp.EnhancedCode{2, 0, 0}, "OK")
	case "NOOP":
		c.reply(250, gosmtp.EnhancedCode{2, 0, 0}, "OK")
	case "HELP":
		c.reply(214, gosmtp.EnhancedCode{2, 0, 0}, "See RFC 5321")
	case "VRFY":
		if cmd.arg == "" {
			c.bad(refusal(501, 5, 4, "VRFY needs an address"))
			return
		}
		// RFC 5321, section 7.3: the honest answer of a server that does not tell.
		c.reply(252, gosmtp.EnhancedCode{2, 0, 0}, "Not verified; RCPT will tell")
	case "ETRN":
		c.doETRN(cmd.arg)
	case "XCLIENT":
		c.doXClient(cmd.arg)
	case "XFORWARD":
		c.doXForward(cmd.arg)
	case "EXPN", "AUTH", "TURN", "ATRN", "SEND", "SOML", "SAML", "BURL":
		c.bad(refusal(502, 5, 1, "Command not implemented"))
	default:
		c.bad(refusal(500, 5, 2, "Unknown command"))
	}
}

func (c *Conn) doHello(name string, extended bool) {
	if !validHello(name) {
		c.bad(refusal(501, 5, 4, "Give your host name"))
		return
	}
	c.reset()
	c.helo, c.extended, c.greeted = name, extended, false
	if err := c.session.Hello(c.HELO(), extended); err != nil {
		if c.greeted = c.answer(err, 250, noEnhanced, ""); !c.greeted {
			c.helo, c.extended = "", false
		}
		return
	}
	c.greeted = true
	if !extended {
		c.reply(250, noEnhanced, c.srv.hostname)
		return
	}
	c.reply(250, noEnhanced, strings.Join(c.extensions(), "\n"))
}

// extensions is the text of the reply to EHLO.
func (c *Conn) extensions() []string {
	cfg := &c.srv.cfg
	list := []string{
		c.srv.hostname, "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN",
		fmt.Sprintf("SIZE %d", cfg.MaxMessageBytes),
		fmt.Sprintf("LIMITS MAILMAX=%d RCPTMAX=%d", cfg.MaxTransactions, cfg.MaxRecipients),
	}
	switch {
	case c.tlsState != nil:
		list = append(list, "REQUIRETLS") // RFC 8689, section 2: only under TLS
	case c.srv.tls != nil:
		list = append(list, "STARTTLS")
	}
	if _, ok := c.session.(ETRNSession); ok {
		list = append(list, "ETRN")
	}
	if c.mayXClient() {
		list = append(list, "XCLIENT "+strings.Join(xclientNames, " "), "XFORWARD "+strings.Join(xforwardNames, " "))
	}
	return list
}

func (c *Conn) doETRN(arg string) {
	s, ok := c.session.(ETRNSession)
	switch {
	case !ok:
		c.bad(refusal(502, 5, 1, "Command not implemented"))
	case !c.greeted:
		c.bad(refusal(503, 5, 1, "Say EHLO first"))
	case c.mail:
		c.bad(refusal(503, 5, 1, "Not inside a transaction"))
	case arg == "" || strings.Contains(arg, " "):
		c.bad(refusal(501, 5, 4, "ETRN takes one argument"))
	default:
		c.answer(s.ETRN(arg), 250, gosmtp.EnhancedCode{2, 0, 0}, "Queuing started")
	}
}

// reset ends the transaction, if any.
func (c *Conn) reset() {
	if c.session != nil {
		c.session.Reset()
	}
	c.mail, c.rcpts, c.deferred, c.utf8 = false, 0, 0, false
	c.forwarded = Forwarded{}
}

func (c *Conn) doStartTLS(arg string) {
	switch {
	case c.tlsState != nil:
		c.bad(refusal(503, 5, 1, "TLS is on already"))
		return
	case c.srv.tls == nil:
		c.bad(refusal(502, 5, 1, "Command not implemented"))
		return
	case arg != "":
		c.bad(refusal(501, 5, 4, "STARTTLS takes no argument"))
		return
	case c.mail:
		c.bad(refusal(503, 5, 1, "Not inside a transaction"))
		return
	case len(c.in.unread()) > 0:
		// RFC 3207, section 4: nothing may follow before the handshake. It may have
		// been put there by someone in the middle.
		c.linger = true
		c.fail(refusal(554, 5, 1, "Command after STARTTLS without waiting"))
		return
	}
	c.reply(220, gosmtp.EnhancedCode{2, 0, 0}, "Ready to start TLS")
	if c.flush() != nil || !c.setIdle(time.Now().Add(c.srv.cfg.HandshakeTimeout)) {
		c.closing = true
		return
	}
	t := tls.Server(c.raw, c.srv.tls)
	err := t.HandshakeContext(c.ctx)
	c.setBusy()
	if err != nil {
		// Never back to plain text.
		c.log.Info("tls handshake", "client", c.remote.String(), "err", err)
		c.closing = true
		return
	}
	// RFC 3207, section 4.2: the server forgets all it was told.
	c.reset()
	state := t.ConnectionState()
	c.tlsState, c.nc, c.in.conn = &state, t, t
	c.helo, c.extended, c.greeted = "", false, false
}

// sequence reports whether the connection is greeted, and answers if not.
func (c *Conn) sequence() bool {
	if !c.greeted {
		c.bad(refusal(503, 5, 1, "Say EHLO first"))
	}
	return c.greeted
}

func (c *Conn) doMail(arg string) {
	if !c.sequence() {
		return
	}
	if c.mail {
		// RFC 5321, section 4.1.4.
		c.bad(refusal(503, 5, 1, "Nested MAIL command"))
		return
	}
	if c.idleCommands > c.srv.cfg.MaxIdleCommands {
		c.dull()
		return
	}
	if c.transactions >= c.srv.cfg.MaxTransactions {
		c.fail(refusal(421, 7, 0, "Too many messages on this connection, connect again"))
		return
	}
	path, rest, ok := cutPath(arg, "FROM:")
	if !ok {
		c.bad(refusal(501, 5, 4, "Syntax: MAIL FROM:<address>"))
		return
	}
	opts, fault := c.mailOptions(rest)
	switch {
	case fault != nil:
	case path != "" && !validMailbox(path):
		fault = refusal(501, 1, 7, "Bad sender address syntax")
	case !opts.UTF8 && !isASCII(path):
		// RFC 6531, section 3.5.
		fault = refusal(553, 6, 7, "Address needs the SMTPUTF8 parameter")
	}
	if fault != nil {
		c.bad(fault)
		return
	}
	if opts.Size > c.srv.cfg.MaxMessageBytes {
		// RFC 1870, section 6.1. A correct command: it does not count as bad.
		if c.dull() {
			c.replyError(refusal(552, 3, 4, "Message too large"))
		}
		return
	}
	c.utf8 = opts.UTF8
	if c.answer(c.session.Mail(path, opts), 250, gosmtp.EnhancedCode{2, 1, 0}, "Sender OK") {
		c.mail = true
		c.transactions++
		return
	}
	c.utf8 = false
	if !c.closing {
		c.idleCommands++
	}
}

// mailOptions reads the parameters of MAIL.
func (c *Conn) mailOptions(s string) (*gosmtp.MailOptions, *gosmtp.SMTPError) {
	opts := &gosmtp.MailOptions{}
	list, err := splitParams(s)
	if err != nil {
		return nil, refusal(501, 5, 4, "Malformed parameter")
	}
	if len(list) > 0 && !c.extended {
		return nil, refusal(555, 5, 4, "Parameters need EHLO")
	}
	for _, p := range list {
		var good bool
		switch p.key {
		case "SIZE":
			opts.Size, good = parseSize(p.value)
		case "BODY":
			opts.Body = gosmtp.BodyType(strings.ToUpper(p.value))
			good = opts.Body == gosmtp.Body7Bit || opts.Body == gosmtp.Body8BitMIME
		case "SMTPUTF8":
			opts.UTF8, good = true, !p.has
		case "RET":
			opts.Return = gosmtp.DSNReturn(strings.ToUpper(p.value))
			good = opts.Return == gosmtp.DSNReturnFull || opts.Return == gosmtp.DSNReturnHeaders
		case "ENVID":
			opts.EnvelopeID, err = DecodeXtext(p.value)
			good = err == nil && p.has && isASCII(opts.EnvelopeID) && !hasControl(opts.EnvelopeID)
		case "REQUIRETLS":
			if c.tlsState == nil {
				return nil, refusal(530, 7, 0, "REQUIRETLS needs STARTTLS first")
			}
			opts.RequireTLS, good = true, !p.has
		default:
			return nil, refusal(555, 5, 4, "Unknown MAIL parameter")
		}
		if !good {
			return nil, refusal(501, 5, 4, "Bad value of "+p.key)
		}
	}
	return opts, nil
}

func (c *Conn) doRcpt(arg string) {
	if !c.sequence() {
		return
	}
	if !c.mail {
		c.bad(refusal(503, 5, 1, "Need MAIL first"))
		return
	}
	path, rest, ok := cutPath(arg, "TO:")
	if !ok {
		c.bad(refusal(501, 5, 4, "Syntax: RCPT TO:<address>"))
		return
	}
	opts, fault := c.rcptOptions(rest)
	switch {
	case fault != nil:
	case strings.EqualFold(path, "postmaster"): // RFC 5321, section 4.5.1
	case !validMailbox(path):
		fault = refusal(501, 1, 3, "Bad recipient address syntax")
	case !c.utf8 && !isASCII(path):
		fault = refusal(553, 6, 7, "Address needs the SMTPUTF8 parameter")
	}
	if fault != nil {
		c.bad(fault)
		return
	}
	if c.rcpts+c.deferred >= c.srv.cfg.MaxRecipients {
		// RFC 5321, section 4.5.3.1.10.
		c.replyError(refusal(452, 5, 3, "Too many recipients"))
		return
	}
	if c.badRecipients >= c.srv.cfg.MaxBadRecipients {
		c.linger = true
		c.fail(refusal(421, 7, 0, "Too many bad recipients"))
		return
	}
	err := c.session.Rcpt(path, opts)
	if c.answer(err, 250, gosmtp.EnhancedCode{2, 1, 5}, "Recipient OK") {
		c.rcpts++
		return
	}
	var e *gosmtp.SMTPError
	if errors.As(err, &e) && e.Code/100 == 5 {
		c.badRecipients++
		return
	}
	c.deferred++
}

// rcptOptions reads the parameters of RCPT.
func (c *Conn) rcptOptions(s string) (*gosmtp.RcptOptions, *gosmtp.SMTPError) {
	opts := &gosmtp.RcptOptions{}
	list, err := splitParams(s)
	if err != nil {
		return nil, refusal(501, 5, 4, "Malformed parameter")
	}
	if len(list) > 0 && !c.extended {
		return nil, refusal(555, 5, 4, "Parameters need EHLO")
	}
	for _, p := range list {
		var good bool
		switch p.key {
		case "NOTIFY":
			opts.Notify, good = parseNotify(p.value)
		case "ORCPT":
			opts.OriginalRecipientType, opts.OriginalRecipient, err = ParseORCPT(p.value)
			good = err == nil
		default:
			return nil, refusal(555, 5, 4, "Unknown RCPT parameter")
		}
		if !good {
			return nil, refusal(501, 5, 4, "Bad value of "+p.key)
		}
	}
	return opts, nil
}

// knows reports whether name is one of list.
func knows(list []string, name string) bool { return slices.Contains(list, name) }
