package wire

import (
	"fmt"
	"strconv"
	"strings"

	gosmtp "github.com/emersion/go-smtp"
)

// maxReplyText bounds one line of a reply's text, so that the whole line stays
// within 512 bytes (RFC 5321, section 4.5.3.1.5).
const maxReplyText = 480

// Enhanced codes (RFC 3463) in short.
var noEnhanced = gosmtp.NoEnhancedCode

// refusal makes a reply; the enhanced code is x.subject.detail, x taken from code.
func refusal(code, subject, detail int, text string) *gosmtp.SMTPError {
	return &gosmtp.SMTPError{
		Code:         code,
		EnhancedCode: gosmtp.EnhancedCode{code / 100, subject, detail},
		Message:      text,
	}
}

// appendReply formats a reply, one or more lines of text separated by "\n", with
// the enhanced code on every line (RFC 2034, section 4).
func appendReply(dst []byte, code int, enhanced gosmtp.EnhancedCode, text string) []byte {
	prefix := ""
	switch {
	case enhanced == gosmtp.NoEnhancedCode || code/100 == 3:
	case enhanced == gosmtp.EnhancedCodeNotSet, enhanced[0] != code/100:
		// An enhanced code of another class would contradict the reply code.
		prefix = fmt.Sprintf("%d.0.0 ", code/100)
	default:
		prefix = fmt.Sprintf("%d.%d.%d ", enhanced[0], enhanced[1], enhanced[2])
	}
	for more := true; more; {
		var line string
		line, text, more = strings.Cut(text, "\n")
		dst = strconv.AppendInt(dst, int64(code), 10)
		if more {
			dst = append(dst, '-')
		} else {
			dst = append(dst, ' ')
		}
		dst = append(dst, prefix...)
		dst = appendPlain(dst, line)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// appendPlain appends printable ASCII as it is and anything else as "?", and cuts
// what is too long: no text, wherever it comes from, can start a new reply.
func appendPlain(dst []byte, s string) []byte {
	s = strings.TrimSuffix(s, "\r")
	if len(s) > maxReplyText {
		s = s[:maxReplyText]
	}
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}
