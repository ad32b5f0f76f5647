package auth

import (
	"strings"
)

// Result is what a method says, in the words of RFC 8601, section 2.7.
type Result string

// The results. The zero value is: not checked.
const (
	None      Result = "none"
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	Neutral   Result = "neutral"
	TempError Result = "temperror"
	PermError Result = "permerror"
	// Policy: the signature is right, but of a kind not accepted here.
	Policy Result = "policy"
)

// tags reads "name=value; name=value" (RFC 6376, section 3.2). A duplicate or a
// piece without "=" makes it malformed: false.
func tags(s string) (map[string]string, bool) {
	out := make(map[string]string)
	for piece := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(piece) == "" {
			continue
		}
		name, value, ok := strings.Cut(piece, "=")
		name = strings.TrimSpace(name)
		if _, there := out[name]; !ok || there || name == "" {
			return out, false
		}
		out[name] = strings.TrimSpace(value)
	}
	return out, true
}

// noSpace removes white space, which may stand anywhere in base64 and lists.
func noSpace(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, s)
}
