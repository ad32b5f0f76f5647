package auth

import (
	"bytes"
	"io"
	"strings"
)

// relaxedField is a header field in the relaxed form (RFC 6376, section 3.4.2).
func relaxedField(raw string) string {
	name, value, _ := strings.Cut(raw, ":")
	value = strings.Join(strings.FieldsFunc(value, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\r' || r == '\n'
	}), " ")
	return strings.ToLower(strings.TrimSpace(name)) + ":" + value + "\r\n"
}

// canonicalField is relaxedField or, for "simple", the field as it came.
func canonicalField(mode, raw string) string {
	if mode == "relaxed" {
		return relaxedField(raw)
	}
	return raw
}

// bodyWriter brings a body into a canonical form on its way to w (RFC 6376,
// sections 3.4.3 and 3.4.4). Memory does not depend on the body. Write errors of w
// are not expected: it is a hash.
type bodyWriter struct {
	w       io.Writer
	relaxed bool
	out     bytes.Buffer
	cr      bool // a CR is held back: CRLF may follow
	ends    int  // line ends held back: they count only if something follows
	blank   bool // white space held back (relaxed)
	any     bool // something was written
}

func newBodyWriter(w io.Writer, mode string) *bodyWriter {
	return &bodyWriter{w: w, relaxed: mode == "relaxed"}
}

// Write implements io.Writer.
func (b *bodyWriter) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\n':
			// A lone LF is a line end, as it is for whoever stored the message.
			b.cr, b.blank = false, false
			b.ends++
			continue
		case b.cr:
			b.cr = false
			b.put('\r')
		}
		switch {
		case c == '\r':
			b.cr = true
		case b.relaxed && (c == ' ' || c == '\t'):
			b.blank = true
		default:
			b.put(c)
		}
	}
	b.flush()
	return len(p), nil
}

func (b *bodyWriter) put(c byte) {
	for ; b.ends > 0; b.ends-- {
		b.out.WriteString("\r\n")
		if b.out.Len() > 16<<10 {
			b.flush()
		}
	}
	if b.blank {
		b.out.WriteByte(' ')
		b.blank = false
	}
	b.out.WriteByte(c)
	b.any = true
}

func (b *bodyWriter) flush() {
	_, _ = b.w.Write(b.out.Bytes())
	b.out.Reset()
}

// Close writes the one line end a body has. An empty body is CRLF in the simple
// form and nothing in the relaxed one.
func (b *bodyWriter) Close() {
	if b.cr {
		b.put('\r')
	}
	if b.any || !b.relaxed {
		b.out.WriteString("\r\n")
	}
	b.flush()
}
