package wire

import (
	"bytes"
	"errors"
)

// What is wrong with a message's bytes. The text goes to the session only.
var (
	// ErrBadBytes is what a message's reader returns at a bare CR, bare LF or NUL;
	// the sender is told 550 5.6.11.
	ErrBadBytes = errors.New("message contains bare CR, bare LF or NUL")
	// ErrTooLarge is what a message's reader returns beyond the size limit; the
	// sender is told 552 5.3.4.
	ErrTooLarge = errors.New("message exceeds the size limit")
)

// dotScanner takes the content of DATA (RFC 5321, section 4.5.2) apart. Only
// CRLF "." CRLF ends it, and always does, whatever stands in front.
type dotScanner struct {
	// midLine says that the next byte does not start a line.
	midLine bool
}

// next looks at the unread bytes b. It returns the next span of content, which
// lies inside b, and how many bytes of b that uses up. done: this was the end of
// data. clean: the span has no bare CR, bare LF or NUL. Using nothing, and not
// done, means that more bytes are needed first.
func (d *dotScanner) next(b []byte) (span []byte, used int, done, clean bool) {
	start := 0
	if !d.midLine {
		switch {
		case len(b) == 0 || b[0] != '.':
		case len(b) == 1, len(b) == 2 && b[1] == '\r':
			return nil, 0, false, true
		case b[1] == '\r' && b[2] == '\n':
			return nil, 3, true, true
		default:
			start = 1 // dot-stuffing
			d.midLine = true
		}
	}
	end, lines, clean := start, 0, true
	for end < len(b) {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			end = len(b)
			// A CR waits for what follows it, so that CRLF is never cut in two.
			if end > start && b[end-1] == '\r' {
				end--
			}
			if end > start {
				d.midLine = true
			}
			break
		}
		lf := end + i
		end = lf + 1
		if lf == start || b[lf-1] != '\r' {
			clean = false
			d.midLine = true
			continue
		}
		lines++
		d.midLine = false
		if end < len(b) && b[end] == '.' {
			break
		}
	}
	span = b[start:end]
	if clean {
		clean = bytes.Count(span, crByte) == lines && bytes.IndexByte(span, 0) < 0
	}
	return span, end, false, clean
}

// textCheck looks for bare CR, bare LF and NUL in bytes that come in pieces.
type textCheck struct {
	// cr says that the last byte was a CR.
	cr bool
}

// clean reports whether the next piece is free of them. After false it is of no
// further use.
func (t *textCheck) clean(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if t.cr && b[0] != '\n' || bytes.IndexByte(b, 0) >= 0 {
		return false
	}
	lines := 0
	for pos := 0; ; {
		i := bytes.IndexByte(b[pos:], '\n')
		if i < 0 {
			break
		}
		lf := pos + i
		if lf == 0 && !t.cr || lf > 0 && b[lf-1] != '\r' {
			return false
		}
		lines++
		pos = lf + 1
	}
	crs := bytes.Count(b, crByte)
	if t.cr {
		crs++
	}
	t.cr = b[len(b)-1] == '\r'
	if t.cr {
		crs--
	}
	return crs == lines
}

var crByte = []byte{'\r'}
