package recipients

import (
	"strings"
	"unicode/utf8"

	"understudy/smtp"
)

// rules say when two addresses are the same mailbox.
type rules struct {
	caseSensitive bool
	delimiters    string
}

// query is an address made ready to be looked up.
type query struct {
	local, domain string
	base          string // local without its extension; empty where there is none
}

// query applies the rules to an address.
func (r rules) query(a smtp.Address) query {
	q := query{local: r.fold(a.Local), domain: a.Domain}
	if r.delimiters != "" {
		if i := strings.IndexAny(q.local, r.delimiters); i > 0 {
			q.base = q.local[:i]
		}
	}
	return q
}

// fold drops the case of a local part where it does not matter. RFC 5321, section
// 2.4, leaves that to the host that owns the mailbox; nearly all ignore it.
func (r rules) fold(local string) string {
	if r.caseSensitive {
		return local
	}
	for i := range len(local) {
		if c := local[i]; 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf {
			return strings.ToLower(local)
		}
	}
	return local
}

// key is what an address is stored under. A catch-all has an empty local part.
func (r rules) key(a smtp.Address) string {
	return r.fold(a.Local) + "@" + a.Domain
}

// match says which form of an address was found.
type match uint8

const (
	matchNone match = iota
	matchWhole
	matchBase     // without the extension
	matchCatchAll // the domain's
)

// find looks for the whole address, then for it without its extension, then for
// the catch-all. It does not allocate.
func (q query) find(s *set) match {
	var space [320]byte
	buf := append(space[:0], q.local...)
	buf = append(buf, '@')
	buf = append(buf, q.domain...)
	if s.has(buf) {
		return matchWhole
	}
	domain := buf[len(q.local):]
	if q.base != "" {
		var space [320]byte
		short := append(space[:0], q.base...)
		if s.has(append(short, domain...)) {
			return matchBase
		}
	}
	if s.has(domain) {
		return matchCatchAll
	}
	return matchNone
}

// text returns the key that was found.
func (q query) text(m match) string {
	switch m {
	case matchWhole:
		return q.local + "@" + q.domain
	case matchBase:
		return q.base + "@" + q.domain
	case matchCatchAll:
		return "@" + q.domain
	case matchNone:
	}
	return ""
}
