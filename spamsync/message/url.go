package message

import (
	"net/netip"
	"strings"
)

// maxURLBytes bounds one URL.
const maxURLBytes = 2 << 10

// URL is a URL of the text.
type URL struct {
	// Raw is as it was found.
	Raw string
	// Host is in lower case, without port and user.
	Host string
	// User says that something stands before an @: "http://bank.example@evil.example/".
	User bool
}

// Numeric reports whether the host is an address.
func (u URL) Numeric() bool {
	_, err := netip.ParseAddr(strings.Trim(u.Host, "[]"))
	return err == nil
}

// urlSet collects different URLs.
type urlSet struct {
	list []URL
	seen map[string]bool
	max  int
	over bool
}

func newURLSet(limit int) *urlSet {
	return &urlSet{max: limit, seen: make(map[string]bool)}
}

// find adds what looks like a URL in plain text.
func (s *urlSet) find(text string) {
	for len(text) > 0 {
		i := nextURL(text)
		if i < 0 {
			return
		}
		text = text[i:]
		end := strings.IndexFunc(text, func(r rune) bool {
			return r <= ' ' || strings.ContainsRune("<>\"'`()[]{}|\\^", r) || r == 0x7f
		})
		if end < 0 {
			end = len(text)
		}
		s.add(strings.TrimRight(text[:end], ".,;:!?"))
		text = text[max(end, 1):]
	}
}

// nextURL is the index of the next "http://", "https://" or "www." of text, or -1.
func nextURL(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] | 0x20 {
		case 'h':
			if hasFold(text[i:], "http://") || hasFold(text[i:], "https://") {
				return i
			}
		case 'w':
			if hasFold(text[i:], "www.") && (i == 0 || !wordByte(text[i-1])) {
				return i
			}
		}
	}
	return -1
}

func hasFold(s, lower string) bool {
	return len(s) >= len(lower) && strings.EqualFold(s[:len(lower)], lower)
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c >= 0x80
}

// add adds raw if it is a URL of the web.
func (s *urlSet) add(raw string) {
	if len(raw) > maxURLBytes {
		raw = strings.ToValidUTF8(raw[:maxURLBytes], "")
	}
	rest := raw
	switch {
	case hasFold(raw, "http://"):
		rest = raw[len("http://"):]
	case hasFold(raw, "https://"):
		rest = raw[len("https://"):]
	case hasFold(raw, "//"):
		rest = raw[2:]
	case hasFold(raw, "www."):
	default:
		return
	}
	u := URL{Raw: raw}
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest, u.User = rest[i+1:], true
	}
	if !strings.HasPrefix(rest, "[") {
		rest, _, _ = strings.Cut(rest, ":")
	} else if i := strings.IndexByte(rest, ']'); i >= 0 {
		rest = rest[:i+1]
	}
	u.Host = strings.TrimSuffix(strings.ToLower(rest), ".")
	if u.Host == "" || !strings.ContainsAny(u.Host, ".:") || len(u.Host) > 255 || s.seen[raw] {
		return
	}
	if len(s.list) >= s.max {
		s.over = true
		return
	}
	s.seen[raw] = true
	s.list = append(s.list, u)
}
