package config

import (
	"errors"
	"maps"
	"reflect"
	"strings"
)

// reporter takes one fault of the key at path.
type reporter func(path, text string)

// validate runs the rules between packages, every package's own Validate and,
// unless skipped, the checks of the files that are named. A key that could not
// be read has its fault already and is not judged again.
func (l *loader) validate(cfg *Config, skipFiles bool) {
	unread := maps.Clone(l.faulty)
	report := func(path, text string) {
		if !unread[path] {
			l.faultAt(path, text)
		}
	}
	cfg.check(report)
	l.validatePackages(l.schema, l.target, report)
	if !skipFiles {
		l.checkSecrets(report)
		cfg.SMTP.TLS.checkPair(report)
	}
}

// faultAt records a fault where the key was set: its line, its variable, or the
// line of the section it is missing from.
func (l *loader) faultAt(path, text string) {
	if env, ok := l.envs[path]; ok {
		l.envFault(env, path, "%s", text)
		return
	}
	for at := path; at != ""; at = parent(at) {
		if line, ok := l.lines[at]; ok {
			l.fault(path, line, "%s", text)
			return
		}
	}
	l.fault(path, 0, "%s", text)
}

// parent is path without its last part: an index, or a name.
func parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}

// validatePackages asks every struct of the configuration that can validate
// itself, and gives its faults their full keys.
func (l *loader) validatePackages(k *key, v reflect.Value, report reporter) {
	structs := []reflect.Value{v}
	for _, index := range k.inlined {
		structs = append(structs, v.FieldByIndex(index))
	}
	for _, s := range structs {
		if val, ok := reflect.TypeAssert[interface{ Validate() error }](s); ok {
			for _, err := range split(val.Validate()) {
				path, text := l.locate(k.path, err.Error())
				report(path, text)
			}
		}
	}
	for _, c := range k.children {
		if c.kind == kindSection {
			l.validatePackages(c, v.FieldByIndex(c.index), report)
		}
	}
}

// split takes joined errors apart. An error that only wraps several is one.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var parts []error
	for _, e := range joined.Unwrap() {
		parts = append(parts, split(e)...)
	}
	if errors.Join(parts...).Error() != err.Error() {
		return []error{err}
	}
	return parts
}

// locate finds the key that a package's fault "limits.clients: ..." is about.
// Packages do not know where they are put, so the words before the colon may
// start at the package's section or at any above it; the longest match wins.
// Without a match the fault belongs to the section.
func (l *loader) locate(section, text string) (path, rest string) {
	text = strings.ReplaceAll(text, "\n", "; ")
	words, after, ok := strings.Cut(text, ": ")
	if !ok || strings.ContainsAny(words, " \t\"") {
		return section, text
	}
	best := ""
	for words := words; words != ""; words = parent(words) {
		for at := section; ; at = parent(at) {
			if full := join(at, words); best == "" && l.known(full) {
				best, path = words, full
			}
			if at == "" {
				break
			}
		}
	}
	if best == "" {
		return section, text
	}
	// What follows the key within it, an index or a name, stays in the path.
	return path + strings.TrimPrefix(words, best), after
}

// known says that the schema has a key at path.
func (l *loader) known(path string) bool {
	k := l.schema
	for name := range strings.SplitSeq(path, ".") {
		if k = k.child(name); k == nil {
			return false
		}
	}
	return true
}

// each calls f for every scalar of the configuration, those in lists and maps
// included, with the path of its value.
func each(k *key, path string, v reflect.Value, f func(k *key, path string, v reflect.Value)) {
	switch k.kind {
	case kindSection:
		for _, c := range k.children {
			each(c, join(path, c.name), v.FieldByIndex(c.index), f)
		}
	case kindList:
		for i := range v.Len() {
			each(k.elem, indexed(path, i), v.Index(i), f)
		}
	case kindMap:
		for _, name := range v.MapKeys() {
			each(k.elem, join(path, name.String()), v.MapIndex(name), f)
		}
	case kindString, kindBool, kindInt, kindFloat, kindDuration, kindSize, kindMode, kindText:
		f(k, path, v)
	}
}
