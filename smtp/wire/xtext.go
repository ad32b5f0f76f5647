package wire

import (
	"errors"
	"strings"
)

// EncodeXtext writes s as xtext (RFC 3461, section 4): every byte outside "!" to
// "~", and "+" and "=", becomes "+" and two hexadecimal digits.
func EncodeXtext(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c < '!' || c > '~' || c == '+' || c == '=' {
			b.WriteByte('+')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// DecodeXtext is the reverse of EncodeXtext. It refuses what RFC 3461, section 4,
// does not allow: unencoded "=", blanks, control and 8-bit characters, and "+"
// without two hexadecimal digits. Lower-case digits, which the RFC does not allow
// but Postfix takes, are taken.
func DecodeXtext(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", errors.New("xtext: + without two hexadecimal digits")
			}
			b.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
			i += 2
		case c < '!' || c > '~' || c == '=':
			return "", errors.New("xtext: character that must be encoded")
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
