package message

import (
	"slices"
	"strings"
)

// Limits bounds what is kept of a message. A zero field takes its default.
type Limits struct {
	// HeaderBytes bounds the header of the message, 256 KiB by default; what is
	// beyond is skipped (HeaderTooLong).
	HeaderBytes int
	// PartHeaderBytes bounds the header of one part: 16 KiB.
	PartHeaderBytes int
	// Fields bounds the fields of one header: 1000.
	Fields int
	// Parts bounds the parts: 256. Reading stops at the next one (TooManyParts).
	Parts int
	// Depth bounds nested multiparts and messages: 16 (TooDeep).
	Depth int
	// TextBytes bounds the decoded text kept of all parts together: 256 KiB.
	TextBytes int
	// URLs bounds the different URLs kept: 100.
	URLs int
}

func (l Limits) orDefaults() Limits {
	for _, f := range []struct {
		value *int
		def   int
	}{
		{&l.HeaderBytes, 256 << 10},
		{&l.PartHeaderBytes, 16 << 10},
		{&l.Fields, 1000},
		{&l.Parts, 256},
		{&l.Depth, 16},
		{&l.TextBytes, 256 << 10},
		{&l.URLs, 100},
	} {
		if *f.value <= 0 {
			*f.value = f.def
		}
	}
	return l
}

// Fault is one way a message is broken.
type Fault string

// The faults.
const (
	// HeaderTooLong: the header is longer than Limits, in bytes or fields.
	HeaderTooLong Fault = "header too long"
	// HeaderMalformed: a line of the header is no field and no continuation.
	HeaderMalformed Fault = "malformed header line"
	// HeaderEightBit: a header holds raw bytes that are not UTF-8.
	HeaderEightBit Fault = "unencoded bytes in header"
	// NoBody: the message ends within its header.
	NoBody Fault = "no end of header"
	// TooManyParts: reading stopped at Limits.Parts.
	TooManyParts Fault = "too many parts"
	// TooDeep: parts nest deeper than Limits.Depth; deeper ones were not opened.
	TooDeep Fault = "parts nest too deep"
	// NoBoundary: a multipart without a usable boundary parameter.
	NoBoundary Fault = "multipart without boundary"
	// Unclosed: a multipart without its last delimiter.
	Unclosed Fault = "multipart not closed"
	// Empty: a multipart without any part.
	Empty Fault = "multipart without parts"
	// BadType: a Content-Type nobody can read; taken as text/plain.
	BadType Fault = "malformed content type"
	// BadEncoding: an unknown Content-Transfer-Encoding, or one that a multipart must not have.
	BadEncoding Fault = "bad transfer encoding"
	// BadBase64 and BadQP: text that does not follow its transfer encoding.
	BadBase64 Fault = "malformed base64"
	BadQP     Fault = "malformed quoted-printable"
	// BadCharset: an unknown charset, or text that is not in it.
	BadCharset Fault = "bad charset"
	// TextTruncated: there is more text than Limits.TextBytes.
	TextTruncated Fault = "text truncated"
	// TooManyURLs: there are more than Limits.URLs.
	TooManyURLs Fault = "too many urls"
	// NUL: the text holds NUL bytes.
	NUL Fault = "nul bytes"
)

// Message is a message as a filter sees it.
type Message struct {
	// Header is the message's header, in order.
	Header []Field
	// HeaderBytes is the length of the header in bytes.
	HeaderBytes int64
	// Parts are all parts in the order of their appearance, containers before what
	// they hold. Parts[0] is the message itself.
	Parts []Part
	// Text is what a person would read: all text parts, those of HTML as text, each
	// ended by a line break.
	Text string
	// HTML says what is peculiar about the HTML parts, all together.
	HTML HTML
	// URLs are the different URLs of the text and of links, in order.
	URLs []URL
	// Faults are the different faults in order of discovery.
	Faults []Fault
	// Bytes is how many bytes were read.
	Bytes int64
}

// Field is one field of a header.
type Field struct {
	// Name is as written. Value is unfolded, without white space at its ends.
	Name, Value string
}

// Part is one part of the MIME tree.
type Part struct {
	// Type is the media type in lower case, "text/plain".
	Type string
	// Charset is the charset parameter in lower case; may be empty.
	Charset string
	// Name is the decoded file name, from Content-Disposition or Content-Type.
	Name string
	// Attachment: the disposition says so.
	Attachment bool
	// Encoding is the transfer encoding in lower case; empty is 7bit.
	Encoding string
	// Depth is 0 for the message itself.
	Depth int
	// Bytes is the encoded length.
	Bytes int64
	// Head is the first decoded bytes, at most 16, to tell types from content.
	Head []byte
	// TextBytes is the length of what the part added to Message.Text.
	TextBytes int
}

// Container reports whether the part only holds others.
func (p Part) Container() bool {
	return strings.HasPrefix(p.Type, "multipart/") || p.Type == typeMessage
}

// Get returns the value of the first field of that name; empty without one.
func (m *Message) Get(name string) string {
	for _, f := range m.Header {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Values returns the values of all fields of that name.
func (m *Message) Values(name string) []string {
	var out []string
	for _, f := range m.Header {
		if strings.EqualFold(f.Name, name) {
			out = append(out, f.Value)
		}
	}
	return out
}

// Has reports whether the message has that fault.
func (m *Message) Has(f Fault) bool {
	return slices.Contains(m.Faults, f)
}

func (m *Message) fault(f Fault) {
	if !m.Has(f) {
		m.Faults = append(m.Faults, f)
	}
}
