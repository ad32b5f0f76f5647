package recipients

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// table is one of Postfix's regexp or pcre tables. It is immutable.
type table struct {
	rules []tableRule
	// source is the text it was read from, for the snapshot.
	source string
	format string
}

// tableRule is one line. For "if", next is the index behind its "endif".
type tableRule struct {
	re     *regexp.Regexp // nil for endif
	negate bool
	isIf   bool
	next   int
	text   string
}

// match returns the first rule that address matches (regexp_table(5): in the
// order of the file).
func (t *table) match(address string) (rule string, ok bool) {
	for i := 0; i < len(t.rules); {
		r := &t.rules[i]
		i++
		if r.re == nil {
			continue
		}
		hit := r.re.MatchString(address) != r.negate
		switch {
		case r.isIf && !hit:
			i = r.next
		case !r.isIf && hit:
			return r.text, true
		}
	}
	return "", false
}

// tableReader reads a table line by line.
type tableReader struct {
	format string
	t      *table
	source strings.Builder
	buf    string // a logical line
	start  int    // where it begins
	ifs    []int  // rules of open if blocks
	faults []error
}

func newTableReader(format string) *tableReader {
	return &tableReader{format: format, t: &table{format: format}}
}

// line takes the next physical line; a line that begins with white space
// continues the one before.
func (r *tableReader) line(n int, text string) {
	text = strings.TrimRight(text, "\r")
	r.source.WriteString(text)
	r.source.WriteByte('\n')
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "" || trimmed[0] == '#':
		return
	case text[0] == ' ' || text[0] == '\t':
		if r.buf != "" {
			r.buf += strings.TrimRight(text, " \t") // the white space stays, as in Postfix
			return
		}
	}
	r.flush()
	r.buf, r.start = trimmed, n
}

func (r *tableReader) flush() {
	if r.buf == "" {
		return
	}
	if err := r.rule(r.buf); err != nil && len(r.faults) < maxFaults {
		r.faults = append(r.faults, fmt.Errorf("line %d: %w", r.start, err))
	}
	r.buf = ""
}

func (r *tableReader) rule(line string) error {
	if strings.EqualFold(line, "endif") {
		if len(r.ifs) == 0 {
			return errors.New("endif without if")
		}
		open := r.ifs[len(r.ifs)-1]
		r.ifs = r.ifs[:len(r.ifs)-1]
		r.t.rules = append(r.t.rules, tableRule{})
		r.t.rules[open].next = len(r.t.rules)
		return nil
	}
	var rule tableRule
	rest := line
	if len(line) > 2 && strings.EqualFold(line[:2], "if") && (line[2] == ' ' || line[2] == '\t') {
		rule.isIf = true
		rest = strings.TrimSpace(line[2:])
	}
	pattern, flags, negate, result, err := splitPattern(rest)
	if err != nil {
		return err
	}
	rule.negate = negate
	switch {
	case rule.isIf && result != "":
		return errors.New("text behind the pattern of if")
	case !rule.isIf && result == "":
		return errors.New("pattern without a result")
	}
	expr, err := goPattern(pattern, flags, r.format)
	if err != nil {
		return err
	}
	if rule.re, err = regexp.Compile(expr); err != nil {
		return fmt.Errorf("pattern /%s/ cannot be evaluated here (Go's regexp has no look-around, back-references or possessive repeats): %w", pattern, err)
	}
	rule.text = line
	if rule.isIf {
		r.ifs = append(r.ifs, len(r.t.rules))
	}
	r.t.rules = append(r.t.rules, rule)
	return nil
}

func (r *tableReader) done() (*table, error) {
	r.flush()
	if len(r.ifs) > 0 {
		r.faults = append(r.faults, errors.New("if without endif"))
	}
	if err := errors.Join(r.faults...); err != nil {
		return nil, err
	}
	r.t.source = r.source.String()
	return r.t, nil
}

// splitPattern takes "!/pattern/flags result" apart. The delimiter is the first
// character; a backslash keeps it from ending the pattern.
func splitPattern(s string) (pattern, flags string, negate bool, result string, err error) {
	for strings.HasPrefix(s, "!") {
		negate = !negate
		s = strings.TrimLeft(s[1:], " \t")
	}
	if s == "" {
		return "", "", false, "", errors.New("no pattern")
	}
	delim := s[0]
	if delim >= 0x80 || delim == '\\' || 'a' <= delim|0x20 && delim|0x20 <= 'z' || '0' <= delim && delim <= '9' {
		return "", "", false, "", fmt.Errorf("%q is no delimiter of a pattern", delim)
	}
	var b strings.Builder
	i := 1
	for ; i < len(s) && s[i] != delim; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if s[i+1] != delim {
				b.WriteByte('\\')
			} else if strings.IndexByte(`.*+?()[]{}|^$\`, delim) >= 0 {
				b.WriteByte('\\')
			}
			i++
		}
		b.WriteByte(s[i])
	}
	if i == len(s) {
		return "", "", false, "", fmt.Errorf("pattern is not closed by %q", delim)
	}
	rest := s[i+1:]
	end := strings.IndexAny(rest, " \t")
	if end < 0 {
		end = len(rest)
	}
	return b.String(), rest[:end], negate, strings.TrimSpace(rest[end:]), nil
}

// goPattern turns a pattern and its flags into Go's syntax. Both table types
// ignore case unless the flag i toggles that.
func goPattern(pattern, flags, format string) (string, error) {
	ignoreCase, multiline, dotAll := true, false, format == FormatRegexp
	if format == FormatPCRE {
		dotAll = true // pcre_table(5): the flag s is on by default
	}
	anchored, ungreedy := false, false
	for _, f := range flags {
		switch {
		case f == 'i':
			ignoreCase = !ignoreCase
		case f == 'm':
			multiline = !multiline
		case f == 's' && format == FormatPCRE:
			dotAll = !dotAll
		case f == 'A' && format == FormatPCRE:
			anchored = true
		case f == 'U' && format == FormatPCRE:
			ungreedy = true
		case f == 'x' && format == FormatRegexp:
			// Extended syntax is on by default; x switches to the basic one.
			return "", errors.New("flag x (basic regular expressions) cannot be evaluated here")
		default:
			return "", fmt.Errorf("flag %q cannot be evaluated here", f)
		}
	}
	var mode strings.Builder
	for _, m := range []struct {
		on bool
		c  string
	}{{ignoreCase, "i"}, {multiline, "m"}, {dotAll, "s"}, {ungreedy, "U"}} {
		if m.on {
			mode.WriteString(m.c)
		}
	}
	expr := "(?:" + pattern + ")"
	if anchored {
		expr = `\A` + expr
	}
	if mode.Len() > 0 {
		expr = "(?" + mode.String() + ")" + expr
	}
	return expr, nil
}
