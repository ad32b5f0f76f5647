package wire

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// RFC 3501, section 5.1.3: base64 with "," for "/" and no padding.
var mailboxBase64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// EncodeMailbox writes a name in modified UTF-7. Every name has a form; control
// characters become base64.
func EncodeMailbox(name string) string {
	if plainName(name) {
		return name
	}
	var out strings.Builder
	var wide []uint16
	flush := func() {
		if len(wide) == 0 {
			return
		}
		raw := make([]byte, 0, 2*len(wide))
		for _, u := range wide {
			raw = append(raw, byte(u>>8), byte(u))
		}
		out.WriteString("&" + mailboxBase64.EncodeToString(raw) + "-")
		wide = wide[:0]
	}
	for _, r := range name {
		if r < 0x20 || r > 0x7e {
			wide = utf16.AppendRune(wide, r)
			continue
		}
		flush()
		out.WriteRune(r)
		if r == '&' {
			out.WriteByte('-')
		}
	}
	flush()
	return out.String()
}

func plainName(name string) bool {
	for i := range len(name) {
		if name[i] < 0x20 || name[i] > 0x7e || name[i] == '&' {
			return false
		}
	}
	return true
}

// DecodeMailbox reads modified UTF-7. It is strict, so that two names of the server
// never become one here: ok is false unless EncodeMailbox gives the same bytes back.
// Names that are UTF-8 already are taken as they are.
func DecodeMailbox(raw string) (name string, ok bool) {
	if plainName(raw) {
		return raw, true
	}
	if !isASCII(raw) {
		return raw, utf8.ValidString(raw) && !strings.ContainsFunc(raw, func(r rune) bool { return r < 0x20 })
	}
	var out strings.Builder
	for rest := raw; rest != ""; {
		i := strings.IndexByte(rest, '&')
		if i < 0 {
			out.WriteString(rest)
			break
		}
		out.WriteString(rest[:i])
		code, after, found := strings.Cut(rest[i+1:], "-")
		if !found {
			return "", false
		}
		rest = after
		if code == "" {
			out.WriteByte('&')
			continue
		}
		bytes, err := mailboxBase64.DecodeString(code)
		if err != nil || len(bytes)%2 != 0 {
			return "", false
		}
		wide := make([]uint16, 0, len(bytes)/2)
		for j := 0; j < len(bytes); j += 2 {
			wide = append(wide, uint16(bytes[j])<<8|uint16(bytes[j+1]))
		}
		out.WriteString(string(utf16.Decode(wide)))
	}
	name = out.String()
	return name, EncodeMailbox(name) == raw
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
