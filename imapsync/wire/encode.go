package wire

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// maxCommandBytes bounds a command line, literals not counted: RFC 7162, section 4,
// wants at least 8,192 bytes to be taken by a server.
const maxCommandBytes = 8000

// builder makes one command line. The first fault stays.
type builder struct {
	b   []byte
	err error
}

func (w *builder) fault(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrArgument, fmt.Sprintf(format, args...))
	}
}

// raw adds text of ours, never a caller's.
func (w *builder) raw(parts ...string) *builder {
	for _, s := range parts {
		w.b = append(w.b, s...)
	}
	return w
}

// quoted adds a string. What a quoted string cannot hold is refused rather than sent
// as a literal: no name or password here needs it.
func (w *builder) quoted(s string, eightBit bool) *builder {
	if eightBit && !utf8.ValidString(s) {
		w.fault("%q is not UTF-8", s)
	}
	w.b = append(w.b, '"')
	for i := range len(s) {
		c := s[i]
		if c < 0x20 || c == 0x7f || c >= 0x80 && !eightBit {
			w.fault("byte %#x in a string", c)
			break
		}
		if c == '"' || c == '\\' {
			w.b = append(w.b, '\\')
		}
		w.b = append(w.b, c)
	}
	w.b = append(w.b, '"')
	return w
}

// set adds a set of UIDs; "*" is allowed as the end.
func (w *builder) set(set imap.UIDSet) *builder {
	if len(set) == 0 {
		w.fault("empty set of UIDs")
		return w
	}
	for i, r := range set {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		if r.Start == 0 {
			w.fault("UID 0")
		}
		w.b = strconv.AppendUint(w.b, uint64(r.Start), 10)
		switch {
		case r.Stop == 0:
			w.b = append(w.b, ":*"...)
		case r.Stop != r.Start:
			w.b = append(w.b, ':')
			w.b = strconv.AppendUint(w.b, uint64(r.Stop), 10)
		}
	}
	return w
}

// flags adds a list of flags. Whatever is no atom is refused (injection).
func (w *builder) flags(flags []imap.Flag) *builder {
	w.b = append(w.b, '(')
	n := 0
	for _, f := range flags {
		if strings.EqualFold(string(f), `\Recent`) || f == imap.FlagWildcard {
			continue // no client may store these
		}
		if !ValidFlag(f) {
			w.fault("flag %q", f)
			continue
		}
		if n++; n > 1 {
			w.b = append(w.b, ' ')
		}
		w.b = append(w.b, f...)
	}
	w.b = append(w.b, ')')
	return w
}

// date adds an INTERNALDATE (RFC 3501, section 9: date-time).
func (w *builder) date(t time.Time) *builder {
	if y := t.Year(); y < 1 || y > 9999 {
		w.fault("year %d", y)
		return w
	}
	// Zones with seconds, as before 1900, have no form here.
	if _, offset := t.Zone(); offset%60 != 0 || offset <= -24*3600 || offset >= 24*3600 {
		t = t.UTC()
	}
	w.b = append(w.b, '"')
	w.b = t.AppendFormat(w.b, dateLayout)
	w.b = append(w.b, '"')
	return w
}

const dateLayout = "_2-Jan-2006 15:04:05 -0700"

// ValidFlag says whether f can be sent: an atom, with a backslash in front or not (RFC
// 3501, section 9: flag-keyword).
func ValidFlag(f imap.Flag) bool {
	s := strings.TrimPrefix(string(f), `\`)
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; c {
		case '(', ')', '{', '%', '*', '"', '\\', ']':
			return false
		default:
			if c <= 0x20 || c >= 0x7f {
				return false
			}
		}
	}
	return true
}

// SplitUIDs cuts a set into sets that fit into one command each.
func SplitUIDs(set imap.UIDSet) []imap.UIDSet {
	const limit = maxCommandBytes - 1000 // the rest of the command
	var out []imap.UIDSet
	size, from := 0, 0
	var b []byte
	for i, r := range set {
		b = strconv.AppendUint(b[:0], uint64(r.Start), 10)
		n := len(b) + 1
		if r.Stop != r.Start {
			b = strconv.AppendUint(b[:0], uint64(r.Stop), 10)
			n += len(b) + 1
		}
		if size += n; size > limit {
			out = append(out, set[from:i])
			size, from = n, i
		}
	}
	return append(out, set[from:])
}

// UIDs makes a set of ascending UIDs.
func UIDs(list []imap.UID) imap.UIDSet {
	var set imap.UIDSet
	for _, u := range list {
		if n := len(set); n > 0 && set[n-1].Stop != ^imap.UID(0) && u == set[n-1].Stop+1 {
			set[n-1].Stop = u
			continue
		}
		set = append(set, imap.UIDRange{Start: u, Stop: u})
	}
	return set
}
