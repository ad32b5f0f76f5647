package queue

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
	"unique"

	"understudy/smtp"
)

// glob reports whether text matches pattern, where * stands for any bytes and ?
// for one character. ASCII case does not matter.
func glob(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == '?':
			_, n := utf8.DecodeRuneInString(text[t:])
			p, t = p+1, t+n
		case p < len(pattern) && lower(pattern[p]) == lower(text[t]):
			p, t = p+1, t+1
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// senderText is how patterns see a sender: the null sender is "<>".
func senderText(sender string) string {
	if sender == "" {
		return "<>"
	}
	return sender
}

// domainOf is smtp.Domain without folding the case.
func domainOf(addr string) string {
	return addr[strings.LastIndexByte(addr, '@')+1:]
}

// matcher is a Selection made ready.
type matcher struct {
	sel     Selection
	now     time.Time
	ids     map[ident]bool
	states  [stateEnd]bool
	nextHop string
	errors  map[unique.Handle[reply]]bool
}

func newMatcher(sel Selection, nextHop string) *matcher {
	q := &matcher{sel: sel, now: time.Now(), nextHop: nextHop, errors: make(map[unique.Handle[reply]]bool)}
	if len(sel.IDs) > 0 {
		q.ids = make(map[ident]bool, len(sel.IDs))
		for _, text := range sel.IDs {
			if id, ok := parseIdent(text); ok {
				q.ids[id] = true
			}
		}
	}
	for _, state := range sel.States {
		q.states[stateIndex(state)] = true
	}
	return q
}

func (q *matcher) match(m *message) bool {
	sel := &q.sel
	if len(sel.States) > 0 && !q.states[stateIndex(m.state())] {
		return false
	}
	if m.size < sel.MinBytes || sel.MaxBytes > 0 && m.size > sel.MaxBytes {
		return false
	}
	if sel.MinAge > 0 || sel.MaxAge > 0 {
		age := q.now.Sub(time.Unix(0, m.received))
		if age < sel.MinAge || sel.MaxAge > 0 && age > sel.MaxAge {
			return false
		}
	}
	if sel.Sender != "" && !glob(sel.Sender, senderText(m.sender)) {
		return false
	}
	if sel.Recipient != "" && !m.any(func(r *rcpt) bool { return glob(sel.Recipient, r.addr.Value()) }) {
		return false
	}
	if sel.Domain != "" && !m.any(func(r *rcpt) bool { return glob(sel.Domain, domainOf(r.addr.Value())) }) {
		return false
	}
	if sel.NextHop != "" {
		hop := m.route.name
		if hop == "" {
			hop = q.nextHop
		}
		if !contains(hop, sel.NextHop) {
			return false
		}
	}
	return sel.Error == "" || m.any(q.failed)
}

// failed reports whether the last answer for r contains the error asked for.
// Messages share answers, so each is searched once.
func (q *matcher) failed(r *rcpt) bool {
	if r.outcome == smtp.Delivered || r.last == (unique.Handle[reply]{}) {
		return false
	}
	found, known := q.errors[r.last]
	if !known {
		v := r.last.Value()
		found = contains(v.String()+" "+v.relay, q.sel.Error)
		q.errors[r.last] = found
	}
	return found
}

func contains(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

func (m *message) any(fn func(*rcpt) bool) bool {
	for i := range m.rcpts {
		if fn(&m.rcpts[i]) {
			return true
		}
	}
	return false
}

// scanPause is after how many messages a scan lets others at the index.
const scanPause = 4096

// find returns the selected messages, oldest first. Spool.mu is free; the
// messages may change or go afterwards.
func (s *Spool) find(sel Selection) []*message {
	q := newMatcher(sel, s.nextHop())
	var out []*message
	s.mu.Lock()
	if q.ids != nil {
		for id := range q.ids {
			if m := s.messages[id]; m != nil && q.match(m) {
				out = append(out, m)
			}
		}
	} else {
		n := 0
		for _, m := range s.messages {
			if q.match(m) {
				out = append(out, m)
			}
			if n++; n%scanPause == 0 {
				s.mu.Unlock()
				s.mu.Lock()
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b *message) int {
		return cmp.Or(cmp.Compare(a.received, b.received), bytes.Compare(a.id[:], b.id[:]))
	})
	if sel.Limit > 0 && len(out) > sel.Limit {
		out = out[:sel.Limit]
	}
	return out
}
