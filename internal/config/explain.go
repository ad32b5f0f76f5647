package config

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Explain writes every key with its type, default, meaning, environment
// variable, and whether SIGHUP applies a change.
func Explain(w io.Writer) error {
	schema, err := schemaOf(reflect.TypeFor[Config]())
	if err != nil {
		return fmt.Errorf("read the tags of the configuration: %w", err)
	}
	var b strings.Builder
	first := true
	schema.walkAll(func(k *key) {
		if k.kind == kindSection {
			return
		}
		if !first {
			b.WriteByte('\n')
		}
		first = false
		fmt.Fprintf(&b, "%s\n    %s\n    %s, %s\n", k.path, k.meaning(), k.typeName(), k.defaultText())
		change := "a change needs a restart"
		if k.reload {
			change = "a change takes effect on SIGHUP"
		}
		if k.settableByEnv() && !k.inElement() {
			change = k.env() + "; " + change
		}
		fmt.Fprintf(&b, "    %s\n", change)
	})
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the explanation: %w", err)
	}
	return nil
}

// ExplainMarkdown writes the same as a page: docs/configuration.md.
func ExplainMarkdown(w io.Writer) error {
	schema, err := schemaOf(reflect.TypeFor[Config]())
	if err != nil {
		return fmt.Errorf("read the tags of the configuration: %w", err)
	}
	var b strings.Builder
	b.WriteString(markdownIntro)
	writeMarkdownSection(&b, schema)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// markdownIntro opens docs/configuration.md.
const markdownIntro = `# Configuration

<!-- Written by "go test ./internal/config -update" from the tags of the Config structs. Do not edit. -->

One YAML file, by default ` + "`/etc/understudy/understudy.yaml`" + `. ` + "`understudy check-config`" + ` reports everything that is
wrong with it at once; ` + "`understudy check-config --explain`" + ` prints this page as text.

- A section that is absent leaves its feature off. A key that is absent has its default.
- **Durations** need a unit: ` + "`500ms`, `90s`, `1h30m`, `30d`" + `. **Sizes** need one too: B, KiB, MiB, GiB (1024) or KB, MB, GB (1000).
- A key that does not exist, a duplicate and a value of the wrong type are errors. YAML aliases are not read.
- Every single value, and every list of them with commas between, can be set by the environment instead of the file:
  ` + "`smtp.queue.lifetime`" + ` is ` + "`UNDERSTUDY_SMTP_QUEUE_LIFETIME`" + `. The name of a section, or of no key, is an error.
- **Secrets** are files: a key that ends in ` + "`_file`" + ` names one, which must not be open to everybody.
- **Next hops** are written ` + "`smtp://host:25`" + `, ` + "`smtps://host`" + `, ` + "`lmtp://host:24`" + `, ` + "`lmtp:///path/of/socket`" + ` or ` + "`mx://domain`" + `. Options
  follow as a query: ` + "`?tls=required`" + ` (none, opportunistic, required, verified, pinned, dane), ` + "`pin=sha256:...`" + `,
  ` + "`name=`" + ` (the name to verify), ` + "`connections=`" + `, ` + "`chunking=off`" + `.
- **SIGHUP** reads the file again. Keys marked "yes" under *reload* change at once; changing another needs a restart, and the
  log says so. A file with a fault changes nothing.
`

// writeMarkdownSection writes the values directly in section k as one table, and
// then the sections below it.
func writeMarkdownSection(b *strings.Builder, k *key) {
	var values, sections []*key
	for _, c := range k.children {
		if c.kind == kindSection {
			sections = append(sections, c)
			continue
		}
		values = append(values, c)
		if !k.inlines(c.elem) {
			c.walkElement(func(e *key) { values = append(values, e) })
		}
	}
	if len(values) > 0 {
		title := "Top level"
		if k.path != "" {
			title = "`" + k.path + "`"
		}
		fmt.Fprintf(b, "\n## %s\n\n", title)
		b.WriteString("| key | meaning | type | default | reload |\n|---|---|---|---|---|\n")
		for _, v := range values {
			reload := ""
			if v.reload {
				reload = "yes"
			}
			fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", strings.TrimPrefix(v.path, k.path+"."),
				cell(v.meaning()), cell(v.typeName()), cell(v.markdownDefault()), reload)
		}
	}
	for _, s := range sections {
		writeMarkdownSection(b, s)
	}
}

// cell makes text safe within a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}

// walkAll is walk with the keys of elements that are sections.
func (k *key) walkAll(f func(*key)) {
	for _, c := range k.children {
		f(c)
		if !k.inlines(c.elem) {
			c.walkElement(f)
		}
		c.walkAll(f)
	}
}

// inlines says that section k has elem's keys itself as well, and so explains
// them already.
func (k *key) inlines(elem *key) bool {
	return elem != nil && slices.ContainsFunc(k.inlined, func(index []int) bool {
		return k.typ.FieldByIndex(index).Type == elem.typ
	})
}

// walkElement calls f for the keys of the sections that k's list or map holds.
func (k *key) walkElement(f func(*key)) {
	for e := k.elem; e != nil; e = e.elem {
		e.walkAll(f)
	}
}

// inElement says that k stands inside a list or map, where no variable reaches.
func (k *key) inElement() bool {
	return strings.Contains(k.path, "[]") || strings.Contains(k.path, ".NAME")
}

// meaning is the doc, and what the type adds to it.
func (k *key) meaning() string {
	if k.secret && k.kind == kindString && !strings.Contains(k.doc, "world") {
		return k.doc + " It must not be open to everybody."
	}
	return k.doc
}

// defaultText says what holds without the key.
func (k *key) defaultText() string {
	switch {
	case k.def == "" && k.kind == kindList:
		return "default: empty list"
	case k.def == "":
		return "no default"
	case k.kind == kindList:
		return "default [" + k.def + "]"
	}
	return "default " + k.def
}

func (k *key) markdownDefault() string {
	switch {
	case k.def == "":
		return ""
	case k.kind == kindList:
		return "`[" + k.def + "]`"
	}
	return "`" + k.def + "`"
}
