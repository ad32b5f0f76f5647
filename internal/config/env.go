package config

import (
	"strings"
)

// readEnviron makes the environment the highest layer. A variable with our
// prefix that sets nothing is a fault: it is a typing mistake, or belongs to a
// later version.
func (l *loader) readEnviron(environ []string) {
	byName := map[string]*key{}
	var names []string
	l.schema.walk(func(k *key) {
		byName[k.env()] = k
		if k.settableByEnv() {
			names = append(names, k.env())
		}
	})
	for _, assignment := range environ {
		name, text, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		k := byName[name]
		switch {
		case k == nil:
			l.unknownEnv(name, names)
		case k.kind == kindSection:
			l.envFault(name, "", "names a section (%s), not a key%s", k.path, example(k))
		case !k.settableByEnv():
			l.envFault(name, "", "%s cannot be set by the environment, only in the file", k.path)
		default:
			l.envs[k.path] = name
			l.layers.Set(layerKey(k), value{text: text, env: name})
		}
	}
}

// unknownEnv reports a variable that no key has.
func (l *loader) unknownEnv(name string, names []string) {
	if near := nearest(name, names); near != "" {
		l.envFault(name, "", "no key has this variable; did you mean %s?", near)
		return
	}
	l.envFault(name, "", "no key has this variable; variables that start with %s are reserved for keys", envPrefix)
}

// example names one key of a section that the environment could set.
func example(section *key) string {
	text := ""
	section.walk(func(k *key) {
		if text == "" && k.settableByEnv() {
			text = "; set one of its keys, as " + k.env()
		}
	})
	return text
}
