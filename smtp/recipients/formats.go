package recipients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"understudy/smtp"
)

// maxLineBytes bounds one line of a file or of a command's output.
const maxLineBytes = 64 << 10

// maxFaults bounds how many malformed lines are named.
const maxFaults = 5

// errTooLong is returned for a source that has more than max_output.
var errTooLong = errors.New("more than max_output")

// listing collects what one query of a source returned. It belongs to one goroutine.
type listing struct {
	rules   rules
	bare    []string // domains of names without one, normalised
	ours    func(domain string) bool
	keys    *builder
	tables  []*table
	faults  []string // the first malformed entries
	nFaults int
}

func newListing(r rules, bare []string, ours func(string) bool) *listing {
	l := &listing{rules: r, ours: ours, keys: newBuilder()}
	for _, d := range bare {
		if n, err := smtp.NormalizeDomain(d); err == nil {
			l.bare = append(l.bare, n)
		}
	}
	return l
}

// fault counts a malformed entry.
func (l *listing) fault(where string, err error) {
	l.nFaults++
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, fmt.Sprintf("%s: %v", where, err))
	}
}

// faulty says what is wrong with the listing; nil where nothing is.
func (l *listing) faulty() error {
	if l.nFaults == 0 {
		return nil
	}
	more := ""
	if n := l.nFaults - len(l.faults); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%d malformed entries: %s%s", l.nFaults, strings.Join(l.faults, "; "), more)
}

// add takes an address, "@domain", or a name without a domain.
func (l *listing) add(where, entry string) error {
	if strings.HasPrefix(entry, "@") {
		d, err := smtp.NormalizeDomain(entry[1:])
		if err != nil {
			l.fault(where, err)
			return nil
		}
		return l.keys.add([]byte("@" + d))
	}
	a, err := smtp.ParseAddress(entry)
	switch {
	case err != nil:
		l.fault(where, err)
	case a.Local == "" || len(a.Local)+len(a.Domain) > maxKeyBytes:
		l.fault(where, fmt.Errorf("%w: %q", smtp.ErrAddress, entry))
	case a.Domain != "":
		return l.keys.add([]byte(l.rules.key(a)))
	case len(l.bare) == 0:
		l.fault(where, fmt.Errorf("%q has no domain, and bare_domains is empty", entry))
	}
	if a.Domain == "" && err == nil {
		return l.addBare(a.Local)
	}
	return nil
}

func (l *listing) addBare(local string) error {
	for _, d := range l.bare {
		if err := l.keys.add([]byte(l.rules.key(smtp.Address{Local: local, Domain: d}))); err != nil {
			return err
		}
	}
	return nil
}

// read takes text in one of the formats. Malformed lines are counted, not
// returned; errors are of the reader, the context or the size.
func (l *listing) read(ctx context.Context, r io.Reader, format string, maxBytes int64) error {
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	sc := bufio.NewScanner(limited)
	sc.Buffer(make([]byte, 0, 4096), maxLineBytes)
	var t *tableReader
	if format == FormatRegexp || format == FormatPCRE {
		t = newTableReader(format)
	}
	for n := 1; sc.Scan(); n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line := sc.Text()
		if strings.IndexByte(line, 0) >= 0 {
			return fmt.Errorf("line %d has a NUL byte: this is no text", n)
		}
		where := fmt.Sprintf("line %d", n)
		if t != nil {
			t.line(n, line)
			continue
		}
		entry := entryOf(strings.TrimRight(line, "\r"), format)
		if entry == "" || format == FormatPostmap && l.declares(entry) {
			continue
		}
		if err := l.add(where, entry); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read list: %w", err)
	}
	if limited.N <= 0 {
		return errTooLong
	}
	if t != nil {
		tab, err := t.done()
		if err != nil {
			return err
		}
		l.tables = append(l.tables, tab)
	}
	return nil
}

// declares reports whether a key of a Postfix map is a domain alone, which only
// declares the domain (virtual(5)): one of ours, or, where names without a domain
// mean nobody, anything that looks like one.
func (l *listing) declares(key string) bool {
	if strings.IndexByte(key, '@') >= 0 {
		return false
	}
	if l.ours(key) {
		return true
	}
	_, err := smtp.NormalizeDomain(key)
	return err == nil && len(l.bare) == 0 && strings.IndexByte(key, '.') > 0
}

// entryOf returns the address of a line in one of the line formats; empty where
// the line has none.
func entryOf(line, format string) string {
	if format == FormatAliases && strings.TrimLeft(line, " \t") != line {
		return "" // continued from the line above
	}
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return ""
	}
	switch format {
	case FormatPasswd:
		name, _, _ := strings.Cut(line, ":")
		return strings.TrimSpace(name)
	case FormatAliases:
		return aliasName(line)
	}
	return firstWord(line)
}

// firstWord returns what stands before the first white space outside quotes.
func firstWord(line string) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return line[:i]
		}
	}
	return line
}

// aliasName returns the name of an aliases(5) line, "name: value", or of a line
// of postalias -s, "name:<tab>value", whose names may hold blanks without quotes.
// NIS and the daemon's own keys name nobody.
func aliasName(line string) string {
	name := firstWord(line)
	if key, _, ok := strings.Cut(line, ":\t"); ok && !strings.ContainsAny(key, `:"`) {
		name = key
		if strings.Contains(name, " ") {
			name = `"` + name + `"`
		}
	} else if strings.HasPrefix(line, `"`) {
		end := strings.Index(line[1:], `"`)
		if end < 0 {
			return line
		}
		name = line[1 : end+1]
		if name != "" && strings.ContainsAny(name, " \t") {
			name = `"` + name + `"`
		}
	} else if i := strings.IndexByte(line, ':'); i >= 0 && i <= len(name) {
		name = strings.TrimSpace(line[:i])
	}
	if name == "@" || strings.HasPrefix(name, "YP_") {
		return ""
	}
	return name
}
