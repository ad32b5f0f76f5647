package message

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	typeMessage = "message/rfc822"
	// chunkBytes is how much of a line is seen in one piece.
	chunkBytes = 16 << 10
	// headBytes is what is kept of a part to tell its type.
	headBytes = 16
)

// parser walks a message line by line. Nesting is a stack of boundaries, so deep
// messages cost no recursion.
type parser struct {
	limits Limits
	m      *Message
	stack  []frame
	cur    int // index of the current part
	header headerBuffer
	// inHeader: the lines belong to the header of the current part.
	inHeader bool
	// ignore: the lines are preamble or epilogue.
	ignore bool
	text   *textBuffer // of the current part; nil where it is no text
	texts  []*textBuffer
	spare  int  // bytes of text that may still be kept
	stop   bool // enough seen
	// heading collects the first encoded bytes of a part that is no text.
	heading []byte
}

// frame is an open multipart.
type frame struct {
	boundary []byte
	depth    int
	parts    int
	closed   bool
}

// textBuffer is the encoded text of one part.
type textBuffer struct {
	part int
	raw  []byte
}

// headerBuffer collects the lines of one header.
type headerBuffer struct {
	fields []Field
	value  []byte
	bytes  int
	over   bool
	drop   bool // the rest of the current line is skipped
}

// Parse reads a message to its end, or to where a limit makes the rest
// pointless. The only error is that of r.
func Parse(r io.Reader, limits Limits) (*Message, error) {
	limits = limits.orDefaults()
	p := &parser{limits: limits, m: &Message{}, inHeader: true, spare: limits.TextBytes}
	p.m.Parts = append(p.m.Parts, Part{})
	in := bufio.NewReaderSize(r, chunkBytes)
	start := true
	for !p.stop {
		chunk, err := in.ReadSlice('\n')
		p.m.Bytes += int64(len(chunk))
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if len(chunk) > 0 {
			p.line(chunk, start)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		start = err == nil
	}
	p.finish()
	return p.m, nil
}

// line takes a line, or a piece of one; start says that a line begins here.
func (p *parser) line(b []byte, start bool) {
	if start && len(p.stack) > 0 && len(b) > 2 && b[0] == '-' && b[1] == '-' && p.delimiter(b) {
		return
	}
	switch {
	case p.inHeader:
		p.headerLine(b, start)
	case p.ignore:
	default:
		p.body(b)
	}
}

// delimiter handles a line that may be a boundary (RFC 2046, section 5.1.1). The
// innermost multipart goes first; one that matches closes what is inside.
func (p *parser) delimiter(b []byte) bool {
	line := bytes.TrimRight(b[2:], " \t\r\n")
	for i := len(p.stack) - 1; i >= 0; i-- {
		f := &p.stack[i]
		last := false
		switch {
		case bytes.Equal(line, f.boundary):
		case len(line) == len(f.boundary)+2 && bytes.HasPrefix(line, f.boundary) && string(line[len(f.boundary):]) == "--":
			last = true
		default:
			continue
		}
		p.endPart()
		for _, inner := range p.stack[i+1:] {
			p.endFrame(inner)
		}
		p.stack = p.stack[:i+1]
		if last {
			f.closed = true
			p.endFrame(*f)
			p.stack = p.stack[:i]
			p.ignore = true
			return true
		}
		f.parts++
		p.begin(f.depth + 1)
		return true
	}
	return false
}

func (p *parser) endFrame(f frame) {
	if !f.closed {
		p.m.fault(Unclosed)
	}
	if f.parts == 0 {
		p.m.fault(Empty)
	}
}

// begin starts a part in its header.
func (p *parser) begin(depth int) {
	if len(p.m.Parts) >= p.limits.Parts {
		p.m.fault(TooManyParts)
		p.stop = true
		return
	}
	p.m.Parts = append(p.m.Parts, Part{Depth: depth})
	p.cur = len(p.m.Parts) - 1
	p.inHeader, p.ignore, p.text, p.heading = true, false, nil, nil
	p.header = headerBuffer{}
}

func (p *parser) headerLine(b []byte, start bool) {
	h := &p.header
	top := p.cur == 0
	if top {
		p.m.HeaderBytes += int64(len(b))
	}
	if start && len(bytes.TrimRight(b, "\r\n")) == 0 {
		p.endHeader()
		return
	}
	limit := p.limits.PartHeaderBytes
	if top {
		limit = p.limits.HeaderBytes
	}
	if h.bytes += len(b); h.bytes > limit {
		h.over = true
	}
	if h.over {
		p.m.fault(HeaderTooLong)
		return
	}
	text := bytes.TrimRight(b, "\r\n")
	switch {
	case !start:
		if !h.drop {
			h.value = append(h.value, text...)
		}
	case text[0] == ' ' || text[0] == '\t':
		if len(h.fields) > 0 && !h.drop {
			h.value = append(append(h.value, ' '), bytes.TrimLeft(text, " \t")...)
		}
	default:
		h.endField()
		name, value, ok := bytes.Cut(text, []byte(":"))
		name = bytes.TrimRight(name, " \t")
		if !ok || !isFieldName(name) {
			h.drop = true
			if !bytes.HasPrefix(text, []byte("From ")) || len(h.fields) > 0 {
				p.m.fault(HeaderMalformed)
			}
			return
		}
		if len(h.fields) >= p.limits.Fields {
			h.over = true
			p.m.fault(HeaderTooLong)
			return
		}
		h.drop = false
		h.fields = append(h.fields, Field{Name: string(name)})
		h.value = append(h.value[:0], value...)
	}
}

// endField closes the field whose value was collected.
func (h *headerBuffer) endField() {
	if n := len(h.fields); n > 0 && !h.drop {
		h.fields[n-1].Value = string(bytes.TrimSpace(h.value))
		h.value = h.value[:0]
	}
}

// isFieldName reports whether name can name a field (RFC 5322, section 3.6.8).
func isFieldName(name []byte) bool {
	if len(name) == 0 {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// endHeader decides what the body of the current part is.
func (p *parser) endHeader() {
	p.header.endField()
	fields := p.header.fields
	p.header = headerBuffer{}
	p.inHeader = false
	if p.cur == 0 {
		p.m.Header = fields
	}
	for _, f := range fields {
		if !utf8.ValidString(f.Value) {
			p.m.fault(HeaderEightBit)
			break
		}
	}
	part := &p.m.Parts[p.cur]
	boundary := p.describe(part, fields)
	switch {
	case strings.HasPrefix(part.Type, "multipart/"):
		p.openMultipart(part, boundary)
	case part.Type == typeMessage && !encoded(part.Encoding):
		if part.Depth+1 > p.limits.Depth {
			p.m.fault(TooDeep)
			p.ignore = true
			return
		}
		p.begin(part.Depth + 1)
	case strings.HasPrefix(part.Type, "text/") && !part.Attachment || part.Type == "text/html" || part.Type == "message/delivery-status":
		p.text = &textBuffer{part: p.cur}
	}
}

func (p *parser) openMultipart(part *Part, boundary string) {
	switch {
	case boundary == "" || len(boundary) > 200:
		p.m.fault(NoBoundary)
		// Readers differ on such a part; what it says is looked at as text.
		p.text = &textBuffer{part: p.cur}
	case part.Depth+1 > p.limits.Depth || len(p.stack) >= p.limits.Depth:
		p.m.fault(TooDeep)
		p.ignore = true
	default:
		if encoded(part.Encoding) {
			p.m.fault(BadEncoding) // RFC 2045, section 6.4
		}
		p.stack = append(p.stack, frame{boundary: []byte(boundary), depth: part.Depth})
		p.ignore = true
	}
}

func encoded(encoding string) bool {
	return encoding == "base64" || encoding == "quoted-printable"
}

// body takes bytes of the current part.
func (p *parser) body(b []byte) {
	part := &p.m.Parts[p.cur]
	part.Bytes += int64(len(b))
	if p.text == nil {
		if len(p.heading) < 4*headBytes {
			p.heading = append(p.heading, b[:min(len(b), 4*headBytes-len(p.heading))]...)
		}
		return
	}
	// Encoded text is longer than its decoded form by at most a third (base64) or
	// three times (quoted-printable); what is beyond is cut after decoding.
	room := p.spare
	if encoded(part.Encoding) {
		room *= 3
	}
	if free := room - len(p.text.raw); len(b) > free {
		p.m.fault(TextTruncated)
		b = b[:max(free, 0)]
	}
	p.text.raw = append(p.text.raw, b...)
}

// endPart closes the current part.
func (p *parser) endPart() {
	if p.inHeader {
		// A boundary inside a header: a part without a body.
		if p.header.bytes > 0 || p.cur > 0 {
			p.endHeader()
		}
		p.inHeader = false
	}
	part := &p.m.Parts[p.cur]
	if p.text != nil {
		raw := decodeTransfer(p.m, part.Encoding, p.text.raw)
		part.Head = append([]byte(nil), raw[:min(len(raw), headBytes)]...)
		if len(raw) > p.spare {
			raw = raw[:p.spare]
			p.m.fault(TextTruncated)
		}
		p.spare -= len(raw)
		p.text.raw = raw
		p.texts = append(p.texts, p.text)
		p.text = nil
	} else if len(p.heading) > 0 {
		var quiet Message
		raw := decodeTransfer(&quiet, part.Encoding, p.heading)
		part.Head = append([]byte(nil), raw[:min(len(raw), headBytes)]...)
	}
	p.heading = nil
}

// finish closes everything and makes the text.
func (p *parser) finish() {
	if p.inHeader && p.cur == 0 {
		p.m.fault(NoBody)
		p.endHeader()
	}
	if !p.ignore {
		p.endPart()
	}
	if !p.stop {
		for _, f := range p.stack {
			p.endFrame(f)
		}
	}
	p.render()
}
