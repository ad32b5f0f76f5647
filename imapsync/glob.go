package imapsync

import (
	"errors"
	"regexp"
	"strings"
)

// glob matches folder names: * within one level, ** across levels, ? one
// character. Without wildcards it also matches everything below the name.
type glob struct{ re *regexp.Regexp }

func compileGlob(pattern string) (glob, error) {
	if pattern == "" {
		return glob{}, errors.New("is empty")
	}
	var b strings.Builder
	b.WriteString("^")
	wild := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(".*")
			i++
			wild = true
		case c == '*':
			b.WriteString("[^/]*")
			wild = true
		case c == '?':
			b.WriteString("[^/]")
			wild = true
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	if !wild {
		b.WriteString("(/.*)?")
	}
	re, err := regexp.Compile(b.String() + "$")
	return glob{re}, err
}

// matchAny says whether one of the patterns matches; a bad pattern matches nothing.
func matchAny(patterns []glob, name string) bool {
	for _, p := range patterns {
		if p.re != nil && p.re.MatchString(name) {
			return true
		}
	}
	return false
}

func compileGlobs(patterns []string) ([]glob, error) {
	var out []glob
	for _, p := range patterns {
		g, err := compileGlob(p)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}
