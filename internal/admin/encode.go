package admin

import (
	"strconv"
	"time"
	"unicode/utf8"

	"understudy/smtp/queue"
)

// appendSummary appends m as encoding/json would (a test holds the two equal),
// several times faster: a listing may hold hundreds of thousands.
func appendSummary(b []byte, m *queue.Summary) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, m.ID)
	b = append(b, `,"sender":`...)
	b = appendString(b, m.Sender)
	b = append(b, `,"recipients":`...)
	if m.Recipients == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '[')
		for i := range m.Recipients {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendRecipient(b, &m.Recipients[i])
		}
		b = append(b, ']')
	}
	b = append(b, `,"size_bytes":`...)
	b = strconv.AppendInt(b, m.SizeBytes, 10)
	b = append(b, `,"state":`...)
	b = appendString(b, string(m.State))
	b = appendText(b, `,"reason":`, m.Reason)
	b = append(b, `,"received":`...)
	b = appendTime(b, m.Received)
	b = append(b, `,"attempts":`...)
	b = strconv.AppendInt(b, int64(m.Attempts), 10)
	if !m.NextAttempt.IsZero() {
		b = append(b, `,"next_attempt":`...)
		b = appendTime(b, m.NextAttempt)
	}
	b = appendText(b, `,"last_error":`, m.LastError)
	b = appendText(b, `,"next_hop":`, m.NextHop)
	return append(b, '}')
}

func appendRecipient(b []byte, r *queue.RecipientStatus) []byte {
	b = append(b, `{"address":`...)
	b = appendString(b, r.Address)
	b = append(b, `,"state":`...)
	b = appendString(b, string(r.State))
	if r.Code != 0 {
		b = append(b, `,"code":`...)
		b = strconv.AppendInt(b, int64(r.Code), 10)
	}
	b = appendText(b, `,"enhanced":`, r.Enhanced)
	b = appendText(b, `,"text":`, r.Text)
	b = appendText(b, `,"relay":`, r.Relay)
	if !r.At.IsZero() {
		b = append(b, `,"at":`...)
		b = appendTime(b, r.At)
	}
	if r.Attempts != 0 {
		b = append(b, `,"attempts":`...)
		b = strconv.AppendInt(b, int64(r.Attempts), 10)
	}
	if !r.NextAttempt.IsZero() {
		b = append(b, `,"next_attempt":`...)
		b = appendTime(b, r.NextAttempt)
	}
	return append(b, '}')
}

// appendText appends key and s, or nothing where s is empty.
func appendText(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, key...), s)
}

// appendTime appends t as time.Time marshals itself.
func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendString appends s as a JSON string (RFC 8259, section 7). Bytes that are
// not UTF-8 become U+FFFD, as in encoding/json.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(append(b, s[from:i]...), `\ufffd`...)
				from = i + n
			case r == '\u2028' || r == '\u2029':
				b = append(append(b, s[from:i]...), `\u202`...)
				b = append(b, hex[r&0xf])
				from = i + n
			}
			i += n
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&0xf])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
