package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// Outgoing is one message for Client.Send. It is read while it is in flight and
// never written.
type Outgoing struct {
	// From is the reverse-path without brackets; empty is the null sender.
	From string
	// To are the forward-paths; at least one.
	To []OutgoingRecipient
	// Body is "", "7BIT", "8BITMIME" or "BINARYMIME".
	Body string
	// UTF8 says that the message needs SMTPUTF8 (RFC 6531).
	UTF8 bool
	// RequireTLS says that the message needs REQUIRETLS (RFC 8689).
	RequireTLS bool
	// Return is RET, EnvelopeID is ENVID in xtext (RFC 3461).
	Return, EnvelopeID string
	// SizeBytes is the length of Prefix and content together; 0 if unknown.
	SizeBytes int64
	// Origin is whom the message came from, for XCLIENT or XFORWARD; nil sends
	// nothing about it.
	Origin *Origin
	// Prefix is sent in front of the content: whole header lines.
	Prefix []byte
	// Open returns the content. It may be called more than once. The message
	// is not kept in memory.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// OutgoingRecipient is one forward-path with its DSN parameters.
type OutgoingRecipient struct {
	// Address is the path without brackets.
	Address string
	// ORCPT is "type;xtext", Notify lists NEVER, SUCCESS, FAILURE, DELAY.
	ORCPT  string
	Notify []string
}

// Origin is the client that gave us a message.
type Origin struct {
	// Addr is its address; an invalid one is sent as unavailable.
	Addr netip.AddrPort
	// HELO, Name (the verified PTR name) and Login may be empty.
	HELO, Name, Login string
	// Protocol is SMTP or ESMTP.
	Protocol string
	// ID is our queue id, for XFORWARD's IDENT.
	ID string
}

// Stage says how far a recipient came.
type Stage uint8

// The stages.
const (
	// StageNone: nothing of the message was sent; it may be tried again at once.
	StageNone Stage = iota
	// StageMail: the answer is the one to MAIL.
	StageMail
	// StageRcpt: to RCPT.
	StageRcpt
	// StageData: to DATA, or to a chunk before the last.
	StageData
	// StageFinal: to the whole message.
	StageFinal
)

// String is the command a stage stands for.
func (s Stage) String() string {
	switch s {
	case StageNone:
		return "connect"
	case StageMail:
		return "MAIL"
	case StageRcpt:
		return "RCPT"
	case StageData:
		return "DATA"
	case StageFinal:
		return "end of data"
	}
	return "unknown"
}

// Answer is what became of one recipient of a message.
type Answer struct {
	// Reply is the server's own word; Code is 0 where it gave none, and Err says
	// why. Where both are set, Err is ErrLacks or ErrContent: the code is ours, because the hop
	// cannot take this message.
	Reply
	// Stage is the command that was answered, or was waiting for its answer.
	Stage Stage
	// Behind says that no command of this message was answered while an earlier message on
	// the connection was not answered either.
	Behind bool
	Err    error
	At     time.Time
}

// ErrLacks is wrapped by the error of a message that needs an extension the
// server does not offer; its Answer carries the code for it.
var ErrLacks = errors.New("next hop lacks an extension")

// ErrContent is wrapped by the error of a message whose content cannot be sent
// as it is: a bare CR or LF where only DATA is to be had.
var ErrContent = errors.New("content cannot be sent unaltered")

// ErrOpen is wrapped by the error of a message whose content could not be read.
// It says nothing about the server.
var ErrOpen = errors.New("read content")

// lacking is the pure check of a message against what the server offers.
func lacking(m *Outgoing, ext Extensions, secure bool) (Reply, bool) {
	// RFC 8689, section 4.2.1: no REQUIRETLS, or no TLS, is 5.7.30.
	if m.RequireTLS && (!secure || !ext.Has("REQUIRETLS")) {
		return Reply{Code: 550, Enhanced: "5.7.30", Text: "REQUIRETLS needed, the next hop does not offer it"}, true
	}
	// RFC 6531, section 3.5.
	if m.UTF8 && !ext.Has("SMTPUTF8") {
		return Reply{Code: 553, Enhanced: "5.6.7", Text: "SMTPUTF8 needed, the next hop does not offer it"}, true
	}
	// RFC 3030, section 3: BINARYMIME goes with CHUNKING.
	if m.Body == "BINARYMIME" && (!ext.Has("BINARYMIME") || !ext.Has("CHUNKING")) {
		return Reply{Code: 554, Enhanced: "5.6.1", Text: "BINARYMIME needed, the next hop does not offer it"}, true
	}
	// RFC 1870, section 6.1: 0 is no fixed limit.
	if limit := ext.SizeBytes(); limit > 0 && m.SizeBytes > limit {
		return Reply{
			Code: 552, Enhanced: "5.3.4",
			Text: fmt.Sprintf("message of %d bytes, the next hop takes %d", m.SizeBytes, limit),
		}, true
	}
	return Reply{}, false
}

// badEnvelope refuses what would break a command line: control characters,
// angle brackets outside quotes are the server's to judge.
func badEnvelope(m *Outgoing) bool {
	bad := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
	}
	param := func(s string) bool { return bad(s) || strings.ContainsRune(s, ' ') }
	if bad(m.From) || param(m.Body) || param(m.Return) || param(m.EnvelopeID) || len(m.To) == 0 {
		return true
	}
	for _, r := range m.To {
		if r.Address == "" || bad(r.Address) || param(r.ORCPT) || param(strings.Join(r.Notify, ",")) {
			return true
		}
	}
	return false
}

// mailLine is the MAIL command with the parameters the server offers.
func mailLine(m *Outgoing, ext Extensions) []byte {
	var b bytes.Buffer
	b.WriteString("MAIL FROM:<")
	b.WriteString(m.From)
	b.WriteByte('>')
	if m.SizeBytes > 0 && ext.Has("SIZE") {
		fmt.Fprintf(&b, " SIZE=%d", m.SizeBytes)
	}
	switch m.Body {
	case "7BIT", "8BITMIME":
		if ext.Has("8BITMIME") {
			b.WriteString(" BODY=" + m.Body)
		}
	case "BINARYMIME":
		b.WriteString(" BODY=BINARYMIME")
	}
	if m.UTF8 {
		b.WriteString(" SMTPUTF8")
	}
	if m.RequireTLS {
		b.WriteString(" REQUIRETLS")
	}
	if ext.Has("DSN") {
		if m.Return != "" {
			b.WriteString(" RET=" + m.Return)
		}
		if m.EnvelopeID != "" {
			b.WriteString(" ENVID=" + m.EnvelopeID)
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// rcptLine is the RCPT command.
func rcptLine(r OutgoingRecipient, ext Extensions) string {
	line := "RCPT TO:<" + r.Address + ">"
	if ext.Has("DSN") {
		if len(r.Notify) > 0 {
			line += " NOTIFY=" + strings.Join(r.Notify, ",")
		}
		if r.ORCPT != "" {
			line += " ORCPT=" + r.ORCPT
		}
	}
	return line + "\r\n"
}

// has8bit reads the content once to see whether it needs 8BITMIME at all.
func has8bit(ctx context.Context, m *Outgoing) (bool, error) {
	rc, err := m.Open(ctx)
	if err != nil {
		return false, err
	}
	defer rc.Close() //nolint:errcheck // read only
	buf := make([]byte, 32<<10)
	for {
		n, err := rc.Read(buf)
		for _, b := range buf[:n] {
			if b >= 0x80 {
				return true, nil
			}
		}
		if err == io.EOF { // a wrapped EOF is not the end
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
