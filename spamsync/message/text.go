package message

import (
	"bytes"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/transform"
)

// maxHeaderText bounds what DecodeHeader returns, in bytes.
const maxHeaderText = 8 << 10

// render turns the collected text parts into Text, HTML and URLs.
func (p *parser) render() {
	var b strings.Builder
	urls := newURLSet(p.limits.URLs)
	for _, t := range p.texts {
		part := &p.m.Parts[t.part]
		text, ok := decodeCharset(part.Charset, t.raw)
		if !ok {
			p.m.fault(BadCharset)
		}
		if strings.IndexByte(text, 0) >= 0 {
			p.m.fault(NUL)
			text = strings.ReplaceAll(text, "\x00", "")
		}
		before := b.Len()
		if part.Type == "text/html" {
			p.m.HTML.Parts++
			p.m.HTML.render(text, &b, urls)
		} else {
			b.WriteString(text)
			urls.find(text)
		}
		part.TextBytes = b.Len() - before
		if part.TextBytes > 0 {
			b.WriteByte('\n')
		}
	}
	p.m.Text = b.String()
	p.m.URLs = urls.list
	if urls.over {
		p.m.fault(TooManyURLs)
	}
}

// decodeCharset gives raw as UTF-8; false says that the charset is unknown or
// that raw is not in it.
func decodeCharset(charset string, raw []byte) (string, bool) {
	switch charset {
	case "", "us-ascii", "ascii", "utf-8", "utf8", "unicode-1-1-utf-8":
		if utf8.Valid(raw) {
			return string(raw), true
		}
		if charset == "" || strings.Contains(charset, "ascii") {
			// Nothing was promised: Latin-1 shows every byte.
			return latin1(raw), charset == ""
		}
		return string(bytes.ToValidUTF8(raw, []byte("\uFFFD"))), false
	}
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return latin1(raw), false
	}
	out, _, err := transform.Bytes(enc.NewDecoder(), raw)
	if err != nil {
		return latin1(raw), false
	}
	return string(out), true
}

func latin1(raw []byte) string {
	if utf8.Valid(raw) {
		return string(raw)
	}
	var b strings.Builder
	b.Grow(len(raw) + len(raw)/8)
	for _, c := range raw {
		b.WriteRune(rune(c))
	}
	return b.String()
}

// DecodeHeader decodes the encoded words of a field's value (RFC 2047). What
// cannot be decoded stays as it is; the result is valid UTF-8 without control
// characters, at most 8 KiB.
func DecodeHeader(value string) string {
	if len(value) > maxHeaderText {
		value = value[:maxHeaderText]
	}
	if strings.Contains(value, "=?") {
		dec := mime.WordDecoder{CharsetReader: charsetReader}
		if text, err := dec.DecodeHeader(value); err == nil {
			value = text
		}
	}
	if !utf8.ValidString(value) {
		value = latin1([]byte(value))
	}
	value = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, value)
	if len(value) > maxHeaderText {
		value = strings.ToValidUTF8(value[:maxHeaderText], "")
	}
	return value
}

func charsetReader(charset string, input io.Reader) (io.Reader, error) {
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err
	}
	return enc.NewDecoder().Reader(input), nil
}
