package smtp

import (
	"net/netip"
	"strings"
	"time"
)

// received returns the trace header line for env as it came from a client (RFC
// 5321, section 4.4), folded and ended by CRLF. "for" appears only with a single recipient, so that nobody
// learns of the others (RFC 5321, section 7.2).
func received(hostname string, from Client, env *Envelope) string {
	var b strings.Builder
	b.Grow(384)
	b.WriteString("Received: from ")
	b.WriteString(traceWord(from.HELO))
	b.WriteString(" (")
	if from.ReverseName == "" {
		b.WriteString("unknown")
	} else {
		b.WriteString(traceWord(from.ReverseName))
	}
	b.WriteString(" ")
	b.WriteString(addressLiteral(from.Addr.Addr()))
	b.WriteString(")")
	if from.TLS != "" {
		b.WriteString("\r\n\t(using ")
		b.WriteString(traceComment(from.TLS))
		b.WriteString(")")
	}
	b.WriteString("\r\n\tby ")
	b.WriteString(hostname)
	b.WriteString(ownMark)
	b.WriteString(" with ")
	b.WriteString(traceWord(from.Protocol))
	b.WriteString(" id ")
	b.WriteString(env.ID)
	if len(env.Recipients) == 1 {
		if addr := env.Recipients[0].Address; printable(addr) && len(addr) <= 512 {
			b.WriteString("\r\n\tfor <")
			b.WriteString(addr)
			b.WriteString(">")
		}
	}
	b.WriteString(";\r\n\t")
	b.WriteString(env.Received.UTC().Format(time.RFC1123Z))
	b.WriteString("\r\n")
	return b.String()
}

// ownMark tells our trace lines from those of another program on the same host.
const ownMark = " (understudy)"

// addressLiteral writes [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321, section 4.1.3).
func addressLiteral(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return "[unknown]"
	}
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}

// traceWord makes what a client said fit for the trace line: other characters
// than those of host names and address literals become "?".
func traceWord(s string) string {
	if s == "" {
		return "unknown"
	}
	const maxBytes = 255
	if len(s) > maxBytes {
		s = s[:maxBytes]
	}
	ok := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-._:[]", c)
	}
	return strings.Map(func(c rune) rune {
		if ok(c) {
			return c
		}
		return '?'
	}, s)
}

// traceComment keeps text inside a comment from ending it (RFC 5322, section 3.2.2).
func traceComment(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '(' || c == ')' || c == '\\' {
			return '?'
		}
		return c
	}, s)
}

// printable says that s has no control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
