package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds a configuration file; a real one has a few KiB.
const maxFileBytes = 1 << 20

// Options says what surrounds the file.
type Options struct {
	// Environ is the environment as os.Environ gives it; variables without the
	// prefix UNDERSTUDY_ are not looked at.
	Environ []string
	// SkipFiles leaves out the checks of files that the configuration names
	// (secrets, certificates), for a configuration of another machine.
	SkipFiles bool
}

// Load reads the configuration from the file at path, with the environment over
// it and the defaults under it. The error is an *Error that holds every fault.
func Load(path string, opts Options) (Config, error) {
	data, err := readFile(path)
	if err != nil {
		return Config{}, &Error{Faults: []Fault{{Text: err.Error()}}}
	}
	return Parse(path, data, opts)
}

// Parse is Load for the content of a file; name stands for the file in faults.
func Parse(name string, data []byte, opts Options) (Config, error) {
	var cfg Config
	l, err := newLoader(name, &cfg)
	if err != nil {
		return Config{}, err
	}
	l.readYAML(data)
	l.readEnviron(opts.Environ)
	if !l.unreadable {
		l.decode()
		cfg.complete()
		l.validate(&cfg, opts.SkipFiles)
	}
	if len(l.faults) > 0 {
		return Config{}, &Error{Faults: sortFaults(l.faults)}
	}
	return cfg, nil
}

// readFile reads at most maxFileBytes from path.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	err = errors.Join(err, f.Close())
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("read configuration %s: it is larger than 1 MiB", path)
	}
	return data, nil
}

// value is one layer's word on a key: text from a default or the environment,
// or a node of the file. viper keeps it as it is, because it is none of the
// types that viper converts or whose map keys it folds to lower case.
type value struct {
	text string
	node *yaml.Node
	env  string // the variable it came from
}

// loader gathers the layers of one configuration and its faults.
type loader struct {
	file   string
	schema *key
	target reflect.Value
	layers *viper.Viper
	// lines and envs say where a key was set, for faults found later.
	lines map[string]int
	envs  map[string]string
	// unreadable says that the file is no YAML: what follows would mislead.
	unreadable bool
	faults     []Fault
	faulty     map[string]bool // keys that have a fault already
}

// delimiter separates the parts of a key within viper. The usual dot would cut
// keys that contain one, such as a domain's.
const delimiter = "::"

// newLoader prepares loading into the struct that target points to, with the
// defaults as the lowest layer.
func newLoader(file string, target any) (*loader, error) {
	v := reflect.ValueOf(target).Elem()
	schema, err := schemaOf(v.Type())
	if err != nil {
		return nil, fmt.Errorf("read the tags of the configuration: %w", err)
	}
	l := &loader{
		file: file, schema: schema, target: v,
		layers: viper.NewWithOptions(viper.KeyDelimiter(delimiter)),
		lines:  map[string]int{}, envs: map[string]string{}, faulty: map[string]bool{},
	}
	// A key without a default in viper is invisible to its environment layer.
	schema.walk(func(k *key) {
		if k.kind != kindSection {
			l.layers.SetDefault(layerKey(k), value{text: k.def})
		}
	})
	return l, nil
}

// layerKey is k's name within viper.
func layerKey(k *key) string { return strings.ReplaceAll(k.path, ".", delimiter) }

// fault records what is wrong with the key at path; an empty path is the file.
func (l *loader) fault(path string, line int, format string, args ...any) {
	f := Fault{File: l.file, Line: line, Key: path, Text: fmt.Sprintf(format, args...)}
	l.faults = append(l.faults, f)
	l.faulty[path] = true
}

// envFault records what is wrong with an environment variable.
func (l *loader) envFault(env, path, format string, args ...any) {
	l.faults = append(l.faults, Fault{Env: env, Key: path, Text: fmt.Sprintf(format, args...)})
	l.faulty[path] = true
}

// readYAML makes the file the layer above the defaults.
func (l *loader) readYAML(data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := decodeNode(dec, &doc)
	if errors.Is(err, io.EOF) || (err == nil && (len(doc.Content) == 0 || isNull(doc.Content[0]))) {
		l.fault("", 0, "the file is empty; it needs at least site, domains and smtp")
		l.unreadable = true
		return
	}
	if err == nil {
		if e := decodeNode(dec, &more); e == nil {
			l.fault("", more.Line, "a second YAML document starts here; only one is read")
		} else if !errors.Is(e, io.EOF) {
			err = e
		}
	}
	if err != nil {
		line, text := yamlError(err)
		l.fault("", line, "not valid YAML: %s", text)
		l.unreadable = true
		return
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		l.fault("", root.Line, "expected keys and values (\"site: b\"), found %s", describe(root))
		l.unreadable = true
		return
	}
	if err := l.layers.MergeConfigMap(l.readSection(l.schema, root)); err != nil {
		l.fault("", 0, "%v", err)
	}
}

// readSection turns the keys of a mapping into a layer for viper.
func (l *loader) readSection(k *key, node *yaml.Node) map[string]any {
	layer := map[string]any{}
	for _, f := range l.fields(k, k.path, node) {
		l.lines[f.key.path] = f.line
		if f.key.kind != kindSection {
			layer[f.key.name] = value{node: f.node}
		} else if f.node.Kind == yaml.MappingNode || isNull(f.node) {
			layer[f.key.name] = l.readSection(f.key, f.node)
		} else {
			l.fault(f.key.path, f.node.Line, "expected a section with keys below it, found %s", describe(f.node))
		}
	}
	return layer
}
