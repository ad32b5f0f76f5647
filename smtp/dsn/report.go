package dsn

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"understudy/smtp"
	"understudy/smtp/queue"
)

// action is what a notification reports (RFC 3464, section 2.3.3).
type action string

const (
	failed  action = "failed"
	delayed action = "delayed"
)

// maxReturnedBytes bounds how much of the message goes back with RET=FULL, and
// how much header otherwise.
const maxReturnedBytes = 1 << 20

// report is one notification before it has bytes.
type report struct {
	hostname   string
	id         string // for Message-ID
	now        time.Time
	action     action
	env        *smtp.Envelope
	recipients []queue.RecipientStatus // those it is about
	until      time.Time               // for delayed: how long it will be tried
}

// international reports whether addresses need RFC 6533's types.
func (r *report) international() bool {
	for _, rc := range r.recipients {
		if !isASCII(rc.Address) {
			return true
		}
	}
	return !isASCII(r.env.Sender)
}

// write makes the message: multipart/report with a text for people, the
// machine-readable part, and the original or its header (RFC 3462, RFC 6522).
func (r *report) write(w io.Writer, original io.Reader) error {
	var h message.Header
	h.SetText("From", "Mail Delivery System <MAILER-DAEMON@"+r.hostname+">")
	h.Set("To", "<"+r.env.Sender+">")
	h.SetText("Subject", r.subject())
	h.Set("Date", r.now.Format(time.RFC1123Z))
	h.Set("Message-Id", "<"+r.id+"@"+r.hostname+">")
	h.Set("Auto-Submitted", "auto-replied") // RFC 3834, section 5
	h.Set("Mime-Version", "1.0")
	h.SetContentType("multipart/report", map[string]string{"report-type": r.partType("delivery-status")})
	mw, err := message.CreateWriter(w, h)
	if err != nil {
		return fmt.Errorf("write notification: %w", err)
	}
	parts := []struct {
		contentType string
		params      map[string]string
		write       func(io.Writer) error
	}{
		{"text/plain", map[string]string{"charset": "utf-8"}, r.writeText},
		{"message/" + r.partType("delivery-status"), nil, r.writeStatus},
		{r.originalType(), nil, func(w io.Writer) error { return r.writeOriginal(w, original) }},
	}
	for _, p := range parts {
		var ph message.Header
		ph.SetContentType(p.contentType, p.params)
		ph.Set("Content-Transfer-Encoding", "8bit")
		pw, err := mw.CreatePart(ph)
		if err != nil {
			return fmt.Errorf("write notification: %w", err)
		}
		if err := p.write(pw); err != nil {
			return err
		}
		if err := pw.Close(); err != nil {
			return fmt.Errorf("write notification: %w", err)
		}
	}
	if err := mw.Close(); err != nil {
		return fmt.Errorf("write notification: %w", err)
	}
	return nil
}

// partType is the name of a report's part in its plain or international form.
func (r *report) partType(name string) string {
	if r.international() {
		return "global-" + name
	}
	return name
}

func (r *report) full() bool {
	return r.action == failed && r.env.Return == "FULL" && r.env.SizeBytes <= maxReturnedBytes
}

func (r *report) originalType() string {
	switch {
	case r.full() && r.international():
		return "message/global"
	case r.full():
		return "message/rfc822"
	case r.international():
		return "message/global-headers"
	default:
		return "text/rfc822-headers"
	}
}

func (r *report) subject() string {
	if r.action == delayed {
		return "Delivery delayed"
	}
	return "Undelivered mail returned to sender"
}

// writeText is the part for people.
func (r *report) writeText(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "This is the mail system at %s.\r\n\r\n", r.hostname)
	if r.action == delayed {
		b.WriteString("Your message could not be delivered yet. You need not do anything:\r\nit is tried again")
		if !r.until.IsZero() {
			fmt.Fprintf(&b, " until %s", r.until.Format(time.RFC1123Z))
		}
		b.WriteString(".\r\n\r\n")
	} else {
		b.WriteString("Your message could not be delivered to the following recipients:\r\n\r\n")
	}
	for _, rc := range r.recipients {
		fmt.Fprintf(&b, "<%s>:\r\n    %s\r\n", clean(rc.Address), clean(diagnostic(rc)))
	}
	_, err := w.Write(b.Bytes())
	if err != nil {
		return fmt.Errorf("write notification: %w", err)
	}
	return nil
}

// writeStatus is the part for machines (RFC 3464, section 2).
func (r *report) writeStatus(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Reporting-MTA: dns; %s\r\n", r.hostname)
	if id := r.env.EnvelopeID; id != "" {
		// The field carries the decoded form (RFC 3464, section 2.2.1).
		fmt.Fprintf(&b, "Original-Envelope-Id: %s\r\n", clean(unxtext(id)))
	}
	fmt.Fprintf(&b, "Arrival-Date: %s\r\n", r.env.Received.Format(time.RFC1123Z))
	kind := "rfc822"
	if r.international() {
		kind = "utf-8" // RFC 6533, section 3
	}
	for _, rc := range r.recipients {
		b.WriteString("\r\n")
		if orcpt := r.orcpt(rc.Address); orcpt != "" {
			if t, a, ok := strings.Cut(orcpt, ";"); ok {
				fmt.Fprintf(&b, "Original-Recipient: %s;%s\r\n", clean(t), clean(unxtext(a)))
			}
		}
		fmt.Fprintf(&b, "Final-Recipient: %s; %s\r\n", kind, clean(rc.Address))
		fmt.Fprintf(&b, "Action: %s\r\n", r.action)
		fmt.Fprintf(&b, "Status: %s\r\n", r.status(rc))
		if host := relayHost(rc.Relay); host != "" {
			fmt.Fprintf(&b, "Remote-MTA: dns; %s\r\n", clean(host))
		}
		if rc.Code != 0 {
			fmt.Fprintf(&b, "Diagnostic-Code: smtp; %s\r\n", clean(diagnostic(rc)))
		}
		if !rc.At.IsZero() {
			fmt.Fprintf(&b, "Last-Attempt-Date: %s\r\n", rc.At.Format(time.RFC1123Z))
		}
		if r.action == delayed && !r.until.IsZero() {
			fmt.Fprintf(&b, "Will-Retry-Until: %s\r\n", r.until.Format(time.RFC1123Z))
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write notification: %w", err)
	}
	return nil
}

// writeOriginal returns the message, or its header.
func (r *report) writeOriginal(w io.Writer, original io.Reader) error {
	if r.full() {
		if _, err := io.Copy(w, io.LimitReader(original, maxReturnedBytes)); err != nil {
			return fmt.Errorf("copy original: %w", err)
		}
		return nil
	}
	h, err := textproto.ReadHeader(bufio.NewReader(io.LimitReader(original, maxReturnedBytes)))
	if err != nil {
		// What came was no message with a header; the status says enough.
		return nil //nolint:nilerr // a notification without the header is still one
	}
	if err := textproto.WriteHeader(w, h); err != nil {
		return fmt.Errorf("copy header: %w", err)
	}
	return nil
}

func (r *report) orcpt(address string) string {
	for _, rc := range r.env.Recipients {
		if rc.Address == address {
			return rc.ORCPT
		}
	}
	return ""
}

// status is the enhanced code, or the plainest one of its class.
func (r *report) status(rc queue.RecipientStatus) string {
	class := "5"
	if r.action == delayed {
		class = "4"
	}
	if strings.HasPrefix(rc.Enhanced, class+".") {
		return rc.Enhanced
	}
	return class + ".0.0"
}

// diagnostic is the peer's words on one line.
func diagnostic(rc queue.RecipientStatus) string {
	if rc.Code == 0 {
		return rc.Text
	}
	words := []string{fmt.Sprint(rc.Code)}
	for _, w := range []string{rc.Enhanced, rc.Text} {
		if w != "" {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// relayHost is the name in "host[addr]:port".
func relayHost(relay string) string {
	host, _, _ := strings.Cut(relay, "[")
	if host == "none" {
		return ""
	}
	return host
}

// clean keeps foreign text from becoming lines of ours.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// unxtext decodes "+3D" and the like (RFC 3461, section 4); what is no xtext
// stays as it is.
func unxtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '+' && i+2 < len(s) {
			if n, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err == nil && n == 1 {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
