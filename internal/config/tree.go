package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// field is a key of a section as it stands in the file.
type field struct {
	key  *key
	line int
	node *yaml.Node
}

// fields matches a mapping's keys against section k, which stands at path (its
// own, or that of an element), and reports those that are unknown or there
// twice.
func (l *loader) fields(k *key, path string, node *yaml.Node) []field {
	var found []field
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, val := node.Content[i], node.Content[i+1]
		if name.Kind != yaml.ScalarNode || name.Tag == "!!merge" {
			l.fault(path, name.Line, "expected a key, found %s", describe(name))
			continue
		}
		full := join(path, name.Value)
		if first, dup := seen[name.Value]; dup {
			l.fault(full, name.Line, "is already set on line %d", first)
			continue
		}
		seen[name.Value] = name.Line
		c := k.child(name.Value)
		if c == nil {
			l.fault(full, name.Line, "%s", l.unknown(k, path, name.Value))
			continue
		}
		found = append(found, field{key: c, line: name.Line, node: val})
	}
	return found
}

// aliasText refuses YAML's aliases: a file of a few lines does not need them,
// and a small one can be made to unfold into gigabytes.
const aliasText = "an alias (*name) is not read; write the value out"

// unknown says what to do about a name that section k does not have.
func (l *loader) unknown(k *key, path, name string) string {
	names := make([]string, len(k.children))
	for i, c := range k.children {
		names[i] = c.name
	}
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("unknown key; did you mean %q?", near)
	}
	// Perhaps the key is right and only in the wrong place.
	var elsewhere []string
	l.schema.walk(func(c *key) {
		if c.name == name {
			elsewhere = append(elsewhere, c.path)
		}
	})
	if len(elsewhere) == 1 {
		return fmt.Sprintf("unknown key; did you mean %s?", elsewhere[0])
	}
	if path == "" {
		path = "the top level"
	}
	return fmt.Sprintf("unknown key; %s has %s", path, strings.Join(names, ", "))
}

// isNull says that a key has nothing behind it.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe names what a node is, for "expected ..., found ...".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias (*" + n.Value + ")"
	case yaml.ScalarNode:
		if isNull(n) {
			return "nothing"
		}
		return strconv.Quote(n.Value)
	case yaml.DocumentNode:
		return "a document"
	}
	return "nothing"
}

// decodeNode reads the next document. yaml panics on some malformed input
// instead of returning an error; both are the file's fault.
func decodeNode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return dec.Decode(n)
}

// yamlError takes the line out of yaml's "yaml: line 3: did not find ...".
func yamlError(err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, after, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				return n, after
			}
		}
	}
	return 0, text
}
