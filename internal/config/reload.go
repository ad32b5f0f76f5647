package config

import (
	"reflect"
)

// Reload compares the configuration in force with the one just read. It names
// the changed keys that can take effect at once, and those that need a restart,
// both in the order of Explain. It changes nothing.
func Reload(old, changed Config) (reloadable, restart []string) {
	schema, err := schemaOf(reflect.TypeFor[Config]())
	if err != nil {
		return nil, []string{err.Error()} // a test excludes it
	}
	compare(schema, reflect.ValueOf(old), reflect.ValueOf(changed), func(k *key) {
		if k.reload {
			reloadable = append(reloadable, k.path)
		} else {
			restart = append(restart, k.path)
		}
	})
	return reloadable, restart
}

// compare calls differs for every key below section k that a and b do not agree on.
func compare(k *key, a, b reflect.Value, differs func(*key)) {
	for _, c := range k.children {
		x, y := a.FieldByIndex(c.index), b.FieldByIndex(c.index)
		switch {
		case c.kind == kindSection:
			compare(c, x, y, differs)
		case (c.kind == kindList || c.kind == kindMap) && x.Len() == 0 && y.Len() == 0:
			// nil and empty are the same configuration
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			differs(c)
		}
	}
}
