package dnsfailover

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrRecord is what Canonical returns for a value that is none of its type.
var ErrRecord = errors.New("not a value of this record type")

// RRKey names a record set.
type RRKey struct {
	// Name is in lower case and ends in a dot: see CanonicalName.
	Name string
	// Type is A, AAAA or MX.
	Type string
}

// String is "webmail.example.net. A".
func (k RRKey) String() string { return k.Name + " " + k.Type }

// RRSet is a record set as it stands in a zone. Values are in the form of
// Canonical, sorted, each once; none at all means that the set does not exist.
type RRSet struct {
	RRKey
	TTL    time.Duration
	Values []string
}

// RRChange replaces the values of one record set. Old and New are in the form
// of RRSet.Values. New is never empty: no name and no type is ever deleted. An
// empty Old stands for "the set does not exist".
type RRChange struct {
	RRKey
	// TTL is that of the new values.
	TTL      time.Duration
	Old, New []string
}

// String is "webmail.example.net. A 192.0.2.10 -> 198.51.100.10".
func (c RRChange) String() string {
	old := strings.Join(c.Old, ", ")
	if old == "" {
		old = "nothing"
	}
	return fmt.Sprintf("%s: %s -> %s", c.RRKey, old, strings.Join(c.New, ", "))
}

// CanonicalName is a name in lower case with the dot at its end.
func CanonicalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, ".")) + "."
}

// Canonical is the one way in which a value is written: addresses as netip
// writes them, a mail exchanger as "10 mx1.example.net.". An error Is ErrRecord.
func Canonical(typ, value string) (string, error) {
	switch typ {
	case "A", "AAAA":
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" || a.Is4() != (typ == "A") || a.Is4In6() {
			return "", fmt.Errorf("%w: %q is no address for %s", ErrRecord, value, typ)
		}
		return a.String(), nil
	case "MX":
		f := strings.Fields(value)
		if len(f) != 2 {
			return "", fmt.Errorf("%w: %q is no preference and name", ErrRecord, value)
		}
		pref, err := strconv.ParseUint(f[0], 10, 16)
		if err != nil {
			return "", fmt.Errorf("%w: %q is no preference", ErrRecord, f[0])
		}
		return fmt.Sprintf("%d %s", pref, CanonicalName(f[1])), nil
	}
	return "", fmt.Errorf("%w: type %q", ErrRecord, typ)
}

// CanonicalSet is the values in the form of RRSet.Values.
func CanonicalSet(typ string, values []string) ([]string, error) {
	out := make([]string, 0, len(values))
	for _, v := range values {
		c, err := Canonical(typ, v)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
