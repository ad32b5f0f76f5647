package smtp

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// ErrAddress is wrapped by what ParseAddress and NormalizeDomain return for
// text that is no mailbox or no domain.
var ErrAddress = errors.New("malformed address")

// Address is a mailbox in the form in which addresses are compared.
type Address struct {
	// Local is the local part with quotes and backslashes removed: "a b"@x and
	// "a"@x have the local parts `a b` and `a`. Its case is kept
	// (RFC 5321, section 2.4: only the host of the mailbox may interpret it).
	Local string
	// Domain is in lower-case A-label form; empty only for a bare postmaster.
	Domain string
}

// ParseAddress reads a forward- or reverse-path without its angle brackets. The
// domain may be absent (RFC 5321, section 4.1.1.3: postmaster); it is compared in
// A-label form (RFC 5890), the local part in NFC (RFC 6532, section 3.1).
func ParseAddress(s string) (Address, error) {
	local, rest, err := splitLocal(s)
	if err != nil {
		return Address{}, fmt.Errorf("%w: %q: %w", ErrAddress, s, err)
	}
	if rest == "" {
		return Address{Local: local}, nil
	}
	domain, err := NormalizeDomain(rest[1:])
	if err != nil {
		return Address{}, err
	}
	return Address{Local: local, Domain: domain}, nil
}

// String returns the canonical text: the local part is quoted only where it must be.
func (a Address) String() string {
	local := a.Local
	if !isDotString(local) {
		local = quoteLocal(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// splitLocal returns the unquoted local part and the rest, which is empty or
// begins with the @.
func splitLocal(s string) (local, rest string, err error) {
	if s == "" {
		return "", "", errors.New("empty")
	}
	if s[0] == '"' {
		return splitQuoted(s)
	}
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		i = len(s)
	}
	local, rest = s[:i], s[i:]
	if local == "" {
		return "", "", errors.New("no local part")
	}
	ascii := true
	for j := range len(local) {
		switch c := local[j]; {
		case c <= ' ' || c == 0x7f:
			return "", "", errors.New("space or control character in the local part")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if !ascii {
		if !utf8.ValidString(local) {
			return "", "", errors.New("local part is not UTF-8")
		}
		local = norm.NFC.String(local)
	}
	return local, rest, nil
}

// splitQuoted reads a Quoted-string (RFC 5321, section 4.1.2).
func splitQuoted(s string) (local, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			rest = s[i+1:]
			if rest != "" && rest[0] != '@' {
				return "", "", errors.New("text behind the quoted local part")
			}
			local = b.String()
			if !utf8.ValidString(local) {
				return "", "", errors.New("local part is not UTF-8")
			}
			return norm.NFC.String(local), rest, nil
		case c == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] >= 0x7f {
				return "", "", errors.New("bad quoted pair")
			}
			b.WriteByte(s[i])
		case c < ' ' || c == 0x7f:
			return "", "", errors.New("control character in the local part")
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("quote is not closed")
}

// isDotString says whether s may stand unquoted (RFC 5321 Dot-string, RFC 6531).
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == 0x7f || strings.IndexByte(`()<>[]:;@\,"`, c) >= 0 {
			return false
		}
	}
	return true
}

func quoteLocal(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// NormalizeDomain returns the form in which domains are compared: lower case,
// A-labels, no final dot. An address literal ("[192.0.2.1]") is only lower-cased.
func NormalizeDomain(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 255 {
		return "", fmt.Errorf("%w: domain %q", ErrAddress, s)
	}
	plain := true
	upper := false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			plain = false
		case c <= ' ' || c == 0x7f || c == '@' || c == '"' || c == '<' || c == '>':
			return "", fmt.Errorf("%w: domain %q", ErrAddress, s)
		case 'A' <= c && c <= 'Z':
			upper = true
		}
	}
	if plain {
		if upper {
			s = strings.ToLower(s)
		}
		if s[0] == '.' || s[len(s)-1] == '.' || s[0] != '[' && strings.Contains(s, "..") {
			return "", fmt.Errorf("%w: domain %q", ErrAddress, s)
		}
		return s, nil
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%w: domain %q is not UTF-8", ErrAddress, s)
	}
	// Lenient about underscores and the like: the question is only which domain is meant.
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))
	a, err := profile.ToASCII(s)
	if err != nil {
		return "", fmt.Errorf("%w: domain %q: %w", ErrAddress, s, err)
	}
	for i := range len(a) {
		if a[i] >= utf8.RuneSelf {
			return "", fmt.Errorf("%w: domain %q", ErrAddress, s)
		}
	}
	return NormalizeDomain(a) // mapping may have made dots and spaces of other characters
}
