package config

import (
	"encoding"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"time"
)

// kind is how a key is written.
type kind uint8

const (
	kindSection  kind = iota // a struct: keys below
	kindString               // any text
	kindBool                 // true or false
	kindInt                  // a whole number
	kindFloat                // a number
	kindDuration             // a number with a unit of time
	kindSize                 // a number with a unit of bytes
	kindMode                 // a file mode in octal
	kindText                 // a type that parses itself (encoding.TextUnmarshaler)
	kindList                 // several values of one kind
	kindMap                  // values by names that the operator chooses
)

// key is one node of the schema: a section, or a value.
type key struct {
	path  string // "smtp.queue.lifetime"; "" is the root
	name  string // "lifetime"
	kind  kind
	typ   reflect.Type
	index []int // of the field, from the struct of the section above

	def, doc string
	enum     []string
	reload   bool // may change on SIGHUP
	secret   bool // names a file that only its owner and group may read
	single   bool // a list that may be written without brackets when it has one element

	children []*key // of a section, in the order of the fields
	elem     *key   // of a list or map: one element, with path "...[]" or "....NAME"
	// inlined are the structs whose keys are children here, for their Validate;
	// each index starts at the section's struct.
	inlined [][]int
}

// child returns the key below a section with that name, or nil.
func (k *key) child(name string) *key {
	for _, c := range k.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// scalar says that one word of text is the whole value.
func (k *key) scalar() bool {
	return k.kind != kindSection && k.kind != kindList && k.kind != kindMap
}

// settableByEnv says that the environment can hold the value: a scalar, or a
// list of scalars separated by commas.
func (k *key) settableByEnv() bool {
	return k.scalar() || (k.kind == kindList && k.elem.scalar())
}

// envPrefix starts the name of every environment variable that sets a key.
const envPrefix = "UNDERSTUDY_"

// env is the key's environment variable.
func (k *key) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

// walk calls f for k's descendants, sections included, in the order of the
// fields, without the elements of lists and maps.
func (k *key) walk(f func(*key)) {
	for _, c := range k.children {
		f(c)
		c.walk(f)
	}
}

// schemaOf reads the tags of struct type t. An error is a mistake in that
// struct, not of an operator.
func schemaOf(t reflect.Type) (*key, error) {
	root := &key{kind: kindSection, typ: t}
	if err := root.addFields(t, nil, false); err != nil {
		return nil, err
	}
	return root, nil
}

// addFields makes the fields of struct t, found at index of k's own struct, keys
// below k. reload marks them all.
func (k *key) addFields(t reflect.Type, index []int, reload bool) error {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("key")
		if tag == "-" || (!f.IsExported() && !f.Anonymous && !tagged) {
			continue
		}
		if !f.IsExported() {
			return fmt.Errorf("%s.%s: is not exported and cannot be set", t, f.Name)
		}
		at := append(append([]int(nil), index...), i)
		name, option, _ := strings.Cut(tag, ",")
		inline := option == "inline" || (f.Anonymous && !tagged)
		reload := reload || f.Tag.Get("reload") == "true"
		switch {
		case inline && f.Type.Kind() != reflect.Struct:
			return fmt.Errorf("%s.%s: only a struct can be inlined", t, f.Name)
		case inline:
			k.inlined = append(k.inlined, at)
			if err := k.addFields(f.Type, at, reload); err != nil {
				return err
			}
		case name == "":
			return fmt.Errorf("%s.%s: no key tag", t, f.Name)
		case k.child(name) != nil:
			return fmt.Errorf("%s.%s: key %q is there twice", t, f.Name, name)
		default:
			c, err := newKey(join(k.path, name), f, reload)
			if err != nil {
				return err
			}
			c.index = at
			k.children = append(k.children, c)
		}
	}
	return nil
}

// newKey describes one field.
func newKey(path string, f reflect.StructField, reload bool) (*key, error) {
	k := &key{
		path: path, name: path[strings.LastIndexByte(path, '.')+1:], typ: f.Type,
		def: f.Tag.Get("default"), doc: f.Tag.Get("doc"), reload: reload, single: f.Tag.Get("single") == "true",
	}
	if enum := f.Tag.Get("enum"); enum != "" {
		k.enum = strings.Split(enum, ",")
	}
	k.secret = strings.HasSuffix(k.name, "_file")
	if s, ok := f.Tag.Lookup("secret"); ok {
		k.secret = s == "true"
	}
	return k, k.setKind(f.Type, strings.HasSuffix(f.Name, "Bytes"))
}

// setKind fills in k's kind and what is below it. bytes says that an int64 is a size.
func (k *key) setKind(t reflect.Type, bytes bool) error {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		k.kind = kindDuration
	case t == reflect.TypeFor[fs.FileMode]():
		k.kind = kindMode
	case bytes && t.Kind() == reflect.Int64:
		k.kind = kindSize
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		k.kind = kindText
	case t.Kind() == reflect.Struct:
		k.kind = kindSection
		return k.addFields(t, nil, k.reload)
	case t.Kind() == reflect.Slice:
		k.kind = kindList
		return k.setElem(k.path+"[]", t.Elem(), bytes)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		k.kind = kindMap
		return k.setElem(k.path+".NAME", t.Elem(), bytes)
	default:
		scalar, ok := scalarKinds()[t.Kind()]
		if !ok {
			return fmt.Errorf("%s: type %s cannot be configured", k.path, t)
		}
		k.kind = scalar
	}
	return nil
}

// setElem describes what a list or map holds.
func (k *key) setElem(path string, t reflect.Type, bytes bool) error {
	k.elem = &key{path: path, typ: t, enum: k.enum, reload: k.reload, secret: k.secret}
	return k.elem.setKind(t, bytes)
}

// scalarKinds maps Go's plain kinds to ours.
func scalarKinds() map[reflect.Kind]kind {
	return map[reflect.Kind]kind{
		reflect.String: kindString, reflect.Bool: kindBool,
		reflect.Int: kindInt, reflect.Int8: kindInt, reflect.Int16: kindInt, reflect.Int32: kindInt, reflect.Int64: kindInt,
		reflect.Uint: kindInt, reflect.Uint8: kindInt, reflect.Uint16: kindInt, reflect.Uint32: kindInt, reflect.Uint64: kindInt,
		reflect.Float32: kindFloat, reflect.Float64: kindFloat,
	}
}

// join puts name below path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
