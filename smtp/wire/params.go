package wire

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	gosmtp "github.com/emersion/go-smtp"
)

// param is one "KEYWORD=value" behind a path; has tells "KEYWORD" from "KEYWORD=".
type param struct {
	key, value string
	has        bool
}

// splitParams cuts the parameters of MAIL and RCPT (RFC 5321, section 4.1.2). Keys
// come in upper case; one that comes twice is refused.
func splitParams(s string) ([]param, error) {
	var list []param
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ' ' }) {
		key, value, has := strings.Cut(word, "=")
		key = strings.ToUpper(key)
		if !validKeyword(key) || has && value == "" || hasControl(value) {
			return nil, errors.New("malformed parameter")
		}
		if slices.ContainsFunc(list, func(p param) bool { return p.key == key }) {
			return nil, errors.New("parameter given twice")
		}
		list = append(list, param{key, value, has})
	}
	return list, nil
}

func validKeyword(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isLetter(c) && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// parseSize reads the SIZE parameter (RFC 1870, section 4: up to 20 digits). A
// number beyond int64 becomes the largest one.
func parseSize(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 20 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}

// parseNotify reads the NOTIFY parameter (RFC 3461, section 4.1).
func parseNotify(s string) ([]gosmtp.DSNNotify, bool) {
	var list []gosmtp.DSNNotify
	for word := range strings.SplitSeq(strings.ToUpper(s), ",") {
		n := gosmtp.DSNNotify(word)
		switch n {
		case gosmtp.DSNNotifyNever, gosmtp.DSNNotifyDelayed, gosmtp.DSNNotifyFailure, gosmtp.DSNNotifySuccess:
		default:
			return nil, false
		}
		if slices.Contains(list, n) {
			return nil, false
		}
		list = append(list, n)
	}
	if slices.Contains(list, gosmtp.DSNNotifyNever) && len(list) > 1 {
		return nil, false
	}
	return list, true
}

// ParseORCPT splits the ORCPT parameter "type;address" (RFC 3461, section 4.2, and
// RFC 6533, section 3) and decodes the address. The type is in upper case.
func ParseORCPT(s string) (kind gosmtp.DSNAddressType, address string, err error) {
	t, encoded, found := strings.Cut(s, ";")
	t = strings.ToUpper(t)
	if !found || !validKeyword(t) || encoded == "" || len(s) > 500 {
		return "", "", errors.New("ORCPT is not type;address")
	}
	kind = gosmtp.DSNAddressType(t)
	if kind == gosmtp.DSNAddressTypeUTF8 {
		address, err = decodeUTF8Address(encoded)
	} else {
		address, err = DecodeXtext(encoded)
		if err == nil && !isASCII(address) {
			err = errors.New("ORCPT: 8-bit character in an address of an ASCII type")
		}
	}
	if err == nil && (hasControl(address) || !utf8.ValidString(address)) {
		err = errors.New("ORCPT: control character or broken UTF-8 in address")
	}
	if err != nil {
		return "", "", err
	}
	return kind, address, nil
}

// FormatORCPT is the reverse of ParseORCPT. It writes ASCII only: UTF-8 addresses
// in the form utf-8-addr-xtext (RFC 6533, section 3).
func FormatORCPT(kind gosmtp.DSNAddressType, address string) string {
	t := strings.ToLower(string(kind))
	if kind != gosmtp.DSNAddressTypeUTF8 {
		return t + ";" + EncodeXtext(address)
	}
	var b strings.Builder
	b.WriteString(t + ";")
	for _, r := range address {
		if r > ' ' && r <= '~' && r != '+' && r != '=' && r != '\\' {
			b.WriteRune(r)
			continue
		}
		b.WriteString(`\x{`)
		b.WriteString(strings.ToUpper(strconv.FormatInt(int64(r), 16)))
		b.WriteByte('}')
	}
	return b.String()
}

// decodeUTF8Address reads utf-8-addr-xtext and utf-8-addr-unitext.
func decodeUTF8Address(s string) (string, error) {
	bad := errors.New("ORCPT: malformed utf-8 address")
	var b strings.Builder
	for s != "" {
		if rest, found := strings.CutPrefix(s, `\x{`); found {
			hex, after, closed := strings.Cut(rest, "}")
			n, err := strconv.ParseUint(hex, 16, 32)
			if !closed || err != nil || len(hex) < 2 || len(hex) > 6 || !utf8.ValidRune(rune(n)) {
				return "", bad
			}
			b.WriteRune(rune(n))
			s = after
			continue
		}
		r, size := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError || unicode.IsControl(r) || r == ' ' || r == '+' || r == '=' || r == '\\' {
			return "", bad
		}
		b.WriteRune(r)
		s = s[size:]
	}
	return b.String(), nil
}
