package imapsync

import (
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Flags is a set of flags in one canonical form: system flags in RFC spelling,
// keywords as first seen, no \Recent and no \*, sorted and compared without case.
// Values are never changed in place.
type Flags []imap.Flag

// NewFlags makes a canonical set of what a server sent.
func NewFlags(list ...imap.Flag) Flags {
	if len(list) == 0 {
		return nil
	}
	out := make(Flags, 0, len(list))
	for _, f := range list {
		if f = canonical(f); f != "" {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, compareFlags)
	out = slices.CompactFunc(out, func(a, b imap.Flag) bool { return compareFlags(a, b) == 0 })
	if len(out) == 0 {
		return nil
	}
	return out
}

// canonical returns "" for what is no flag of a message.
func canonical(f imap.Flag) imap.Flag {
	if !strings.HasPrefix(string(f), `\`) {
		return f
	}
	for _, known := range []imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft} {
		if strings.EqualFold(string(f), string(known)) {
			return known
		}
	}
	if strings.EqualFold(string(f), `\Recent`) || f == imap.FlagWildcard {
		return ""
	}
	return f
}

func compareFlags(a, b imap.Flag) int {
	if a == b {
		return 0
	}
	return strings.Compare(strings.ToLower(string(a)), strings.ToLower(string(b)))
}

// Has says whether f is in the set.
func (s Flags) Has(f imap.Flag) bool {
	_, found := slices.BinarySearchFunc(s, f, compareFlags)
	return found
}

// Equal compares two sets.
func (s Flags) Equal(o Flags) bool {
	return slices.EqualFunc(s, o, func(a, b imap.Flag) bool { return compareFlags(a, b) == 0 })
}

// Union has what is in either set.
func (s Flags) Union(o Flags) Flags {
	if len(o) == 0 {
		return s
	}
	if len(s) == 0 {
		return o
	}
	return NewFlags(slices.Concat(s, o)...)
}

// Minus has what is in s and not in o.
func (s Flags) Minus(o Flags) Flags { return s.keep(func(f imap.Flag) bool { return !o.Has(f) }) }

// And has what is in both sets.
func (s Flags) And(o Flags) Flags { return s.keep(o.Has) }

func (s Flags) keep(want func(imap.Flag) bool) Flags {
	var out Flags
	for _, f := range s {
		if want(f) {
			out = append(out, f)
		}
	}
	return out
}

// String lists the flags as IMAP does, without brackets.
func (s Flags) String() string {
	var b strings.Builder
	for i, f := range s {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(f))
	}
	return b.String()
}
