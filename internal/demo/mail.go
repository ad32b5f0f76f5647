package demo

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
)

// mail is one message of the story: what the sender sent.
type mail struct {
	serial int
	to     string
	// text is the whole message, header and body, with CRLF lines.
	text []byte
	// shape says what is special about it.
	shape string
}

// write makes the messages of the story: different every one, and among them
// the shapes that careless software damages.
func write(first, n int, to func(i int) string) []mail {
	rng := rand.New(rand.NewPCG(uint64(first), 2026)) //nolint:gosec // filler text, no secret
	out := make([]mail, 0, n)
	for i := range n {
		serial := first + i
		m := mail{serial: serial, to: to(i)}
		var b bytes.Buffer
		fmt.Fprintf(&b, "From: sender@elsewhere.example\r\nTo: %s\r\nSubject: demo message %d\r\nMessage-ID: <demo-%d@elsewhere.example>\r\n\r\n", m.to, serial, serial)
		switch i % 5 {
		case 0:
			m.shape = "plain text"
			words(&b, rng, 2<<10)
		case 1:
			m.shape = "lines that begin with dots"
			b.WriteString(".\r\n..\r\n.hidden\r\n...\r\n")
			words(&b, rng, 1<<10)
		case 2:
			m.shape = "8-bit text"
			b.WriteString(strings.Repeat("Grüße, 邮件, почта\r\n", 40))
		case 3:
			m.shape = "very long lines"
			b.WriteString(strings.Repeat("x", 900) + "\r\n" + strings.Repeat("y", 2500) + "\r\n")
		case 4:
			m.shape = "big (a spill file)"
			words(&b, rng, 1<<20+rng.IntN(1<<20))
		}
		m.text = b.Bytes()
		out = append(out, m)
	}
	return out
}

// words fills b with n bytes of lines.
func words(b *bytes.Buffer, rng *rand.Rand, n int) {
	for end := b.Len() + n; b.Len() < end; {
		for range 8 {
			fmt.Fprintf(b, "%06x ", rng.IntN(1<<24))
		}
		b.WriteString("\r\n")
	}
}

// sum identifies a text.
func sum(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }
