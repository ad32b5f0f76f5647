package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decode fills the target from the layers. A key whose value is at fault keeps
// its default, so that the other keys can still be validated.
func (l *loader) decode() { l.decodeSection(l.schema, l.target) }

func (l *loader) decodeSection(k *key, dst reflect.Value) {
	for _, c := range k.children {
		to := dst.FieldByIndex(c.index)
		if c.kind == kindSection {
			l.decodeSection(c, to)
			continue
		}
		l.setDefault(c, to)
		v, ok := l.layers.Get(layerKey(c)).(value)
		switch {
		case !ok:
			l.fault(c.path, l.lines[c.path], "cannot be read")
		case v.node != nil:
			l.setNode(c, c.path, to, v.node)
		case v.env != "":
			l.setEnv(c, to, v)
		}
	}
}

// setDefault gives dst its default. A section's keys have their own; a default
// that does not parse is a mistake in a package, which a test looks for.
func (l *loader) setDefault(k *key, dst reflect.Value) {
	if k.kind == kindSection {
		for _, c := range k.children {
			l.setDefault(c, dst.FieldByIndex(c.index))
		}
		return
	}
	if err := defaultError(k, dst); err != nil {
		l.fault(k.path, 0, "the default: %v", err)
	}
}

// defaultError parses k's default into dst. No default is the zero value.
func defaultError(k *key, dst reflect.Value) error {
	if k.def == "" {
		return nil
	}
	return setText(k, dst, k.def)
}

// setEnv sets dst from the environment; on a fault it keeps its default.
func (l *loader) setEnv(k *key, dst reflect.Value, v value) {
	got := reflect.New(k.typ).Elem()
	if err := setText(k, got, v.text); err != nil {
		l.envFault(v.env, k.path, "%v", err)
		return
	}
	dst.Set(got)
}

// setNode sets dst from a node of the file. path is k's, or within a list or
// map the element's own.
func (l *loader) setNode(k *key, path string, dst reflect.Value, n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		l.fault(path, n.Line, "%s", aliasText)
	case isNull(n):
		l.fault(path, n.Line, "has no value; write one, or remove the key to have its default")
	case k.kind == kindSection:
		l.setSection(k, path, dst, n)
	case k.kind == kindList:
		l.setList(k, path, dst, n)
	case k.kind == kindMap:
		l.setMap(k, path, dst, n)
	case n.Kind != yaml.ScalarNode:
		l.fault(path, n.Line, "expected %s, found %s", k.expected(), describe(n))
	default:
		got := reflect.New(k.typ).Elem()
		if err := setText(k, got, n.Value); err != nil {
			l.fault(path, n.Line, "%v", err)
			return
		}
		dst.Set(got)
	}
}

// setSection sets an element that is a struct.
func (l *loader) setSection(k *key, path string, dst reflect.Value, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		l.fault(path, n.Line, "expected a section with keys, found %s", describe(n))
		return
	}
	l.setDefault(k, dst)
	for _, f := range l.fields(k, path, n) {
		l.lines[join(path, f.key.name)] = f.line
		l.setNode(f.key, join(path, f.key.name), dst.FieldByIndex(f.key.index), f.node)
	}
}

func (l *loader) setList(k *key, path string, dst reflect.Value, n *yaml.Node) {
	if k.single && n.Kind == yaml.ScalarNode {
		list := reflect.MakeSlice(k.typ, 1, 1)
		l.setNode(k.elem, path, list.Index(0), n)
		dst.Set(list)
		return
	}
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.ScalarNode && k.elem.scalar() {
			hint = fmt.Sprintf("; write [%q]", n.Value)
		}
		expected := "a list"
		if k.single {
			expected = k.typeName()
		}
		l.fault(path, n.Line, "expected %s, found %s%s", expected, describe(n), hint)
		return
	}
	list := reflect.MakeSlice(k.typ, len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := indexed(path, i)
		l.lines[at] = item.Line
		l.setNode(k.elem, at, list.Index(i), item)
	}
	dst.Set(list)
}

func (l *loader) setMap(k *key, path string, dst reflect.Value, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		l.fault(path, n.Line, "expected names with values, found %s", describe(n))
		return
	}
	m := reflect.MakeMapWithSize(k.typ, len(n.Content)/2)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, item := n.Content[i], n.Content[i+1]
		if name.Kind != yaml.ScalarNode || isNull(name) || name.Tag == "!!merge" {
			l.fault(path, name.Line, "expected a name, found %s", describe(name))
			continue
		}
		at := join(path, name.Value)
		l.lines[at] = name.Line
		if seen[name.Value] {
			l.fault(at, name.Line, "is there twice")
			continue
		}
		seen[name.Value] = true
		elem := reflect.New(k.typ.Elem()).Elem()
		l.setNode(k.elem, at, elem, item)
		m.SetMapIndex(reflect.ValueOf(name.Value).Convert(k.typ.Key()), elem)
	}
	dst.Set(m)
}

// typeName says how a value is written, for people.
func (k *key) typeName() string {
	if len(k.enum) > 0 && k.scalar() {
		return "one of " + strings.Join(k.enum, ", ")
	}
	switch k.kind {
	case kindSection:
		return "section"
	case kindString, kindText:
		return "text"
	case kindBool:
		return "true or false"
	case kindInt:
		return "whole number"
	case kindFloat:
		return "number"
	case kindDuration:
		return "duration"
	case kindSize:
		return "size"
	case kindMode:
		return "file mode"
	case kindList:
		if k.single {
			return k.elem.typeName() + " or a list of it"
		}
		return "list of " + plural(k.elem)
	case kindMap:
		return "names, each with a " + k.elem.typeName()
	}
	return "value"
}

// plural is typeName for several.
func plural(k *key) string {
	if k.kind == kindSection || k.kind == kindDuration || k.kind == kindSize || k.kind == kindInt && len(k.enum) == 0 {
		return k.typeName() + "s"
	}
	return k.typeName()
}

// expected is typeName with its article.
func (k *key) expected() string {
	name := k.typeName()
	if k.kind == kindString || k.kind == kindText || k.kind == kindBool || len(k.enum) > 0 {
		return name
	}
	return "a " + name
}
