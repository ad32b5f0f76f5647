package lab

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
)

// idHeader names a message of the lab in its own header.
const idHeader = "X-Lab-Id"

// Message is one test message. It is made anew from its number, so that a
// thousand of them need not be in memory.
type Message struct {
	// ID is its number in the story.
	ID int
	// From and To are its envelope.
	From string
	To   []string
	// Text is header and body with CRLF line ends; the last line has none where
	// it was made with Open.
	Text []byte
}

// Body returns what follows the header.
func (m Message) Body() []byte { return body(m.Text) }

// Sum identifies the body as a server that stores lines sees it: LF line ends,
// and one at the very end.
func (m Message) Sum() Sum { return sum(m.Body()) }

// Sum is the SHA-256 of a body with LF line ends.
type Sum [sha256.Size]byte

// Sizes of the messages a story sends: 1 KiB to 5 MiB, evenly spread over the
// orders of magnitude, so that 1,000 of them are about 600 MB.
const (
	minMessageBytes = 1 << 10
	maxMessageBytes = 5 << 20
)

// Mail makes the messages of one story; the same seed makes the same mail.
type Mail struct {
	Seed     uint64
	From, To string
	// MaxBytes limits the size of a message; 0 is 5 MiB.
	MaxBytes int
}

// Ending is how a message's text ends.
type Ending uint8

// The endings.
const (
	// Line is an ordinary last line.
	Line Ending = iota
	// EmptyLine is one more line end; smtp-source cannot do otherwise.
	EmptyLine
	// Open is a last line without its end, which only BDAT can carry.
	Open
)

// Message makes message number id.
func (m Mail) Message(id int, ending Ending) Message {
	rnd := rand.New(rand.NewPCG(m.Seed, uint64(id)))
	limit := m.MaxBytes
	if limit == 0 {
		limit = maxMessageBytes
	}
	size := int(minMessageBytes * math.Exp(rnd.Float64()*math.Log(float64(limit)/minMessageBytes)))
	var b bytes.Buffer
	b.Grow(size + 8<<10)
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: message %d\r\nMessage-ID: <%d.%x@lab.test>\r\n", m.From, m.To, id, id, m.Seed)
	fmt.Fprintf(&b, "Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n%s: %d\r\n\r\n", idHeader, id)
	fill(&b, rnd, size)
	text := b.Bytes()
	switch ending {
	case Line:
	case EmptyLine:
		text = append(text, "\r\n"...)
	case Open:
		text = append(text, "the last line has no end"...)
	}
	return Message{ID: id, From: m.From, To: []string{m.To}, Text: text}
}

// awkward are lines that mail software has been known to change.
var awkward = []string{
	".", "..", ".leading dot", "..two dots", "From the mbox format's point of view",
	">From an archive", "trailing blanks  \t ", "", "\tfolded?", "=3D is not ours to decode",
	"Gr\xfc\xdfe in Latin-1", "h\u00e9llo w\u00f6rld \u2603 \U0001f4ec", "\x01\x02\x1b control", "\x80\xff\xfe",
	"QUIT", "DATA", "BDAT 10 LAST", "--boundary--",
}

// fill writes lines until b holds about size bytes.
func fill(b *bytes.Buffer, rnd *rand.Rand, size int) {
	for _, i := range rnd.Perm(len(awkward)) {
		b.WriteString(awkward[i])
		b.WriteString("\r\n")
	}
	const letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:-_\xc3\xa9"
	var block [1024]byte
	for i := range block {
		block[i] = letters[rnd.IntN(len(letters))]
	}
	for b.Len() < size {
		length := 20 + rnd.IntN(100)
		switch rnd.IntN(200) {
		case 0:
			length = 990 // the longest that RFC 5322 allows, nearly
		case 1:
			length = 5000 // longer than any server's buffer for a line
		}
		for length > 0 {
			from := rnd.IntN(len(block))
			n := min(length, len(block)-from)
			b.Write(block[from : from+n])
			length -= n
		}
		b.WriteString("\r\n")
	}
}

// body returns what follows the first empty line, whatever the line ends.
func body(text []byte) []byte {
	for i := 0; i < len(text); {
		n := bytes.IndexByte(text[i:], '\n')
		if n < 0 {
			return nil
		}
		line := text[i : i+n]
		i += n + 1
		if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return text[i:]
		}
	}
	return nil
}

// sum hashes a body with CRLF turned into LF and a final LF where it lacks one.
func sum(body []byte) Sum {
	h := sha256.New()
	ended := true
	for len(body) > 0 {
		n := bytes.IndexByte(body, '\n') + 1
		line := body
		if n > 0 {
			line = body[:n]
		}
		body = body[len(line):]
		ended = n > 0
		if ended && bytes.HasSuffix(line, []byte("\r\n")) {
			h.Write(line[:len(line)-2])
			h.Write([]byte("\n"))
		} else {
			h.Write(line)
		}
	}
	if !ended {
		h.Write([]byte("\n"))
	}
	var s Sum
	h.Sum(s[:0])
	return s
}

// identify finds the number of a received message; false where it is not ours.
func identify(text []byte) (int, bool) {
	header := text[:len(text)-len(body(text))]
	for line := range bytes.Lines(header) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok && string(name) == idHeader {
			id, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return id, err == nil
		}
	}
	return 0, false
}
