package smtp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"understudy/smtp/wire"
)

// session is one connection. Its methods are called by one goroutine, in the
// order of the commands.
type session struct {
	front *Front
	conn  conn
	// ctx is the connection's: go-smtp's session methods have none.
	ctx     context.Context //nolint:containedctx // the session lives as long as its connection
	log     *slog.Logger
	started time.Time
	addr    netip.Addr // as it was when the connection came, before any XCLIENT
	peer    bool       // the other understudy
	exempt  bool       // no limits
	limited bool       // counted by the limiter
	name    reverseName

	tx      *transaction
	taken   int // messages
	rejects int
}

// transaction is what is known between MAIL and the end of the message.
type transaction struct {
	policy *policy
	env    *Envelope
	hint   int64               // SIZE
	seen   map[string]struct{} // recipients, once there are many
}

// Hello is told the client's name; there is nothing to decide.
func (s *session) Hello(string, bool) error {
	s.tx = nil
	return nil
}

// Reset forgets the transaction.
func (s *session) Reset() { s.tx = nil }

// Logout ends the session; no goroutine of it is left afterwards.
func (s *session) Logout() error {
	s.name.stop()
	if s.limited {
		s.front.limiter.disconnect(s.addr)
		s.limited = false
	}
	s.front.metrics.open.Dec()
	d := time.Since(s.started)
	s.front.metrics.session.Observe(d.Seconds())
	s.log.Info("disconnect", "addr", s.conn.RemoteAddr().Addr().Unmap().String(),
		"seconds", d.Seconds(), "messages", s.taken, "rejects", s.rejects)
	return nil
}

// clientName returns the confirmed name of the client; empty where there is none
// or, without wait, where it is not known yet.
func (s *session) clientName(wait bool) string {
	if n := s.conn.ReverseName(); n != "" {
		return n
	}
	if s.conn.RemoteAddr().Addr() != s.addr {
		return "" // XCLIENT changed the address and gave no name
	}
	if wait {
		return s.name.get()
	}
	return s.name.peek()
}

// Mail begins a transaction. The null sender (RFC 5321, section 4.5.5) may write
// to several recipients: lists of delivery reports do.
func (s *session) Mail(from string, opts *gosmtp.MailOptions) error {
	if opts == nil {
		opts = &gosmtp.MailOptions{}
	}
	p := s.front.policy.Load()
	refuse := func(r refusal) error {
		r.from = from
		return s.refuse(stageMail, r)
	}
	if s.peer && s.front.deps.Active != nil && !s.front.deps.Active() {
		// Both sites may be standby for a moment: mail must not circle between them.
		return refuse(refusal{code: 451, enhanced: code(4, 3, 2), reason: "This site is not active"})
	}
	if from != "" {
		if a, err := ParseAddress(from); err != nil || a.Domain == "" {
			return refuse(refusal{code: 553, enhanced: code(5, 1, 7), reason: "Malformed sender address"})
		}
	}
	if limit := s.front.deps.MaxMessageBytes; limit > 0 && opts.Size > limit {
		// RFC 1870, section 6.1.
		return refuse(refusal{code: 552, enhanced: code(5, 3, 4), reason: "Message size exceeds fixed limit"})
	}
	if !s.exempt && !s.front.limiter.message(s.addr, &p.cfg.Limits) {
		return refuse(refusal{code: 450, enhanced: code(4, 7, 1), reason: "Too many messages from your network"})
	}
	if err := s.front.deps.Queue.Room(opts.Size); err != nil {
		return refuse(storage(err))
	}
	s.tx = &transaction{
		policy: p,
		hint:   opts.Size,
		env: &Envelope{
			Sender:     from,
			Body:       string(opts.Body),
			SMTPUTF8:   opts.UTF8,
			RequireTLS: opts.RequireTLS,
			Return:     string(opts.Return),
			EnvelopeID: wire.EncodeXtext(opts.EnvelopeID),
		},
	}
	return nil
}

// Rcpt takes or refuses one recipient.
func (s *session) Rcpt(to string, opts *gosmtp.RcptOptions) error {
	if s.tx == nil {
		return &gosmtp.SMTPError{Code: 503, EnhancedCode: code(5, 5, 1), Message: "Need MAIL first"}
	}
	answer, r := s.judge(to)
	s.front.metrics.recipients.WithLabelValues(answer).Inc()
	if r != nil {
		r.from, r.to = s.tx.env.Sender, to
		return s.refuse(stageRcpt, *r)
	}
	s.tx.add(to, opts)
	return nil
}

// judge decides about one recipient: the metric's word, and nil to take it.
func (s *session) judge(to string) (answer string, r *refusal) {
	cfg := &s.tx.policy.cfg
	if !s.exempt && !s.front.limiter.recipient(s.addr, &cfg.Limits) {
		return "limited", &refusal{code: 450, enhanced: code(4, 7, 1), reason: "Too many recipients from your network"}
	}
	ctx, cancel := context.WithTimeout(s.ctx, cfg.LookupTimeout)
	defer cancel()
	return s.front.judge(ctx, to)
}

// add takes a recipient; a repeated one is taken once.
func (t *transaction) add(to string, opts *gosmtp.RcptOptions) {
	if t.has(to) {
		return
	}
	rcpt := Recipient{Address: to}
	if opts != nil {
		for _, n := range opts.Notify {
			rcpt.Notify = append(rcpt.Notify, string(n))
		}
		if opts.OriginalRecipient != "" {
			rcpt.ORCPT = wire.FormatORCPT(opts.OriginalRecipientType, opts.OriginalRecipient)
		}
	}
	t.env.Recipients = append(t.env.Recipients, rcpt)
}

// fewRecipients is how many are compared one by one.
const fewRecipients = 8

// has says whether to was taken already, and remembers it.
func (t *transaction) has(to string) bool {
	if len(t.env.Recipients) < fewRecipients {
		return slices.ContainsFunc(t.env.Recipients, func(r Recipient) bool { return r.Address == to })
	}
	if t.seen == nil {
		t.seen = make(map[string]struct{})
		for _, r := range t.env.Recipients {
			t.seen[r.Address] = struct{}{}
		}
	}
	_, taken := t.seen[to]
	t.seen[to] = struct{}{}
	return taken
}

// ETRN starts the delivery of a domain's queue for listed networks (RFC 1985).
// "@example.com" and "#queue" are not distinguished from "example.com" and all.
func (s *session) ETRN(argument string) error {
	p := s.front.policy.Load()
	refuse := func(status int, e gosmtp.EnhancedCode, reason string, cause error) error {
		return s.refuse(stageETRN, refusal{code: status, enhanced: e, reason: reason, cause: cause})
	}
	if s.front.deps.Flush == nil || !p.etrnFrom.contains(s.conn.RemoteAddr().Addr()) {
		return refuse(459, code(4, 7, 1), "Node not allowed: you are not listed", nil)
	}
	var domain string
	if !strings.HasPrefix(argument, "#") {
		var err error
		if domain, err = NormalizeDomain(strings.TrimPrefix(argument, "@")); err != nil {
			return refuse(501, code(5, 5, 4), "Syntax error in parameters", nil)
		}
		if !s.front.deps.Domains.Has(domain) {
			return refuse(459, code(4, 7, 1), "Node not allowed: no mail is kept for this domain", nil)
		}
	}
	if err := s.front.deps.Flush(domain); err != nil {
		return refuse(458, code(4, 3, 0), "Unable to queue messages for this node", err)
	}
	s.log.Info("flush requested", "domain", domain, "addr", s.conn.RemoteAddr().Addr().Unmap().String())
	return &gosmtp.SMTPError{Code: 250, EnhancedCode: code(2, 0, 0), Message: "Queuing for node started"}
}

// client describes the client for the envelope.
func (s *session) client() Client {
	return Client{
		Addr:        s.conn.RemoteAddr(),
		HELO:        s.conn.HELO(),
		ReverseName: s.clientName(true),
		Protocol:    s.conn.Protocol(),
		TLS:         describeTLS(s.conn.TLS()),
		User:        s.conn.Login(),
		Peer:        s.peer,
	}
}

// origin is whom a listed front server took the message from, as XFORWARD says;
// else the client itself. The trace line is about the client.
func (s *session) origin(client Client) Client {
	f := s.conn.Forwarded()
	if !f.Addr.IsValid() {
		return client
	}
	client.Addr, client.HELO, client.ReverseName = f.Addr, f.HELO, f.Name
	if f.Protocol != "" {
		client.Protocol = f.Protocol
	}
	return client
}

// errNoRecipients is returned by Data when the server let it through without RCPT.
var errNoRecipients = errors.New("no valid recipients")

// hasRecipients says that there is someone to deliver to.
func (t *transaction) hasRecipients() bool {
	return t != nil && slices.ContainsFunc(t.env.Recipients, func(r Recipient) bool { return r.Address != "" })
}
