package wire

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxAddress bounds an address. RFC 5321, section 4.5.3.1.3, asks for 256; senders
// with return paths made from whole addresses (SRS, VERP) go further.
const maxAddress = 1000

// splitVerb cuts a command line without its CRLF into the verb, in upper case, and
// the rest. Verbs are letters; anything else is garbage: ok is false.
func splitVerb(line []byte) (verb, rest string, ok bool) {
	i := 0
	for i < len(line) && isLetter(line[i]) {
		i++
	}
	if i == 0 || i > 16 || i < len(line) && line[i] != ' ' {
		return "", "", false
	}
	verb = strings.ToUpper(string(line[:i]))
	// RFC 5321, section 4.1.1: trailing white space is tolerated.
	return verb, strings.Trim(string(line[i:]), " "), true
}

func isLetter(c byte) bool {
	c |= 0x20
	return c >= 'a' && c <= 'z'
}

// hasControl reports whether s contains ASCII control characters.
func hasControl[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// cutPath takes a path in angle brackets off the front of "FROM:<...> PARAMETERS"
// and returns the inside, without a source route, and the parameters. A blank
// behind the colon is tolerated, as everybody does.
func cutPath(arg, keyword string) (path, params string, ok bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", "", false
	}
	arg = strings.TrimLeft(arg[len(keyword):], " ")
	if !strings.HasPrefix(arg, "<") {
		return "", "", false
	}
	end, quoted := -1, false
scan:
	for i := 1; i < len(arg); i++ {
		switch c := arg[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			end = i
			break scan
		}
	}
	if end < 0 {
		return "", "", false
	}
	path, params = arg[1:end], arg[end+1:]
	if params != "" && params[0] != ' ' {
		return "", "", false
	}
	// RFC 5321, appendix C: source routes are accepted and ignored.
	if strings.HasPrefix(path, "@") {
		route, mailbox, found := strings.Cut(path, ":")
		if !found || !validRoute(route) {
			return "", "", false
		}
		path = mailbox
	}
	return path, strings.Trim(params, " "), true
}

func validRoute(route string) bool {
	for hop := range strings.SplitSeq(route, ",") {
		name, found := strings.CutPrefix(hop, "@")
		if !found || !validDomain(name) {
			return false
		}
	}
	return true
}

// validMailbox checks "local-part@domain" (RFC 5321, section 4.1.2, and RFC 6531,
// section 3.3). Two things Postfix takes are taken as well: dots at odd places of a
// local part, which some providers hand out, and underscores in a domain.
func validMailbox(s string) bool {
	if len(s) > maxAddress || !utf8.ValidString(s) {
		return false
	}
	var local, domain string
	if strings.HasPrefix(s, `"`) {
		end := quotedEnd(s)
		if end < 0 || end+1 >= len(s) || s[end+1] != '@' {
			return false
		}
		return validDomainOrLiteral(s[end+2:])
	}
	local, domain, found := strings.Cut(s, "@")
	return found && validLocal(local) && validDomainOrLiteral(domain)
}

// quotedEnd returns the index of the quote that closes the one at s[0], or -1.
func quotedEnd(s string) int {
	escaped := false
	for i, r := range s[1:] {
		switch {
		case unicode.IsControl(r):
			return -1
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == '"':
			return i + 1
		}
	}
	return -1
}

func validLocal(s string) bool {
	if s == "" {
		return false
	}
	for _, r := range s {
		switch {
		case r <= ' ' || unicode.IsControl(r):
			return false
		case strings.ContainsRune(`<>()[]\,;:"@`, r):
			return false
		}
	}
	return true
}

func validDomainOrLiteral(s string) bool {
	if strings.HasPrefix(s, "[") {
		return validLiteral(s)
	}
	return validDomain(s)
}

// validLiteral checks "[192.0.2.1]" and "[IPv6:2001:db8::1]" (RFC 5321, 4.1.3).
func validLiteral(s string) bool {
	s, ok := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	if !ok {
		return false
	}
	six := len(s) > 5 && strings.EqualFold(s[:5], "IPv6:")
	if six {
		s = s[5:]
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == "" && a.Is6() == six
}

func validDomain(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 && isASCII(label) {
			return false
		}
		for _, r := range label {
			ok := r == '-' || r == '_' || r >= '0' && r <= '9' || r < 0x80 && isLetter(byte(r)) ||
				r >= 0x80 && r != utf8.RuneError && !unicode.IsControl(r) && !unicode.IsSpace(r)
			if !ok {
				return false
			}
		}
	}
	return true
}

// validHello checks the argument of HELO and EHLO: one word of printable ASCII.
// What it says is often wrong and is left to the session to judge.
func validHello(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
