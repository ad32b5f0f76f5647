package twin

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What one item may cost.
const (
	maxBytes = 16 << 20 // of a file, and of an output
	maxFiles = 2000
	itemTime = 10 * time.Second
)

// Mark is what a site says about one item.
type Mark struct {
	// Hashes by the name of the file, or the first word of the line.
	Hashes map[string]string `json:"hashes,omitempty"`
	// Fault says why nothing is known about the item.
	Fault string `json:"fault,omitempty"`
	// Standard: not asked for by name.
	Standard bool `json:"standard,omitempty"`
}

// Difference is one thing that is not the same at both sites, or not known to be.
type Difference struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// Unknown: not compared.
	Unknown bool `json:"unknown,omitempty"`
	// Forbids a switchover: a difference, or what is unknown though asked for.
	Forbids bool `json:"forbids,omitempty"`
}

// String is the difference in one line.
func (d Difference) String() string { return d.Name + " " + d.Text }

// Checker makes the marks of this site. Its methods may be called concurrently.
type Checker struct {
	items []Item
	match []*regexp.Regexp
	hook  func(ctx context.Context, name string) (string, error)
}

// New returns a Checker; hook runs a hook and returns its output, nil where
// there are none.
func New(cfg Config, hook func(ctx context.Context, name string) (string, error)) (*Checker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Checker{items: cfg.all(), hook: hook}
	for _, it := range c.items {
		re, err := regexp.Compile(it.Match)
		if err != nil {
			return nil, fmt.Errorf("match of %s: %w", it.Name, err)
		}
		c.match = append(c.match, re)
	}
	return c, nil
}

// Asks says whether anything was asked for by name.
func (c *Checker) Asks() bool {
	return slices.ContainsFunc(c.items, func(it Item) bool { return !it.standard })
}

// Marks hashes everything with a salt of the asker's.
func (c *Checker) Marks(ctx context.Context, salt string) map[string]Mark {
	out := map[string]Mark{}
	for i, it := range c.items {
		ictx, cancel := context.WithTimeout(ctx, itemTime)
		hashes, err := c.hashes(ictx, it, c.match[i], salt)
		cancel()
		m := Mark{Hashes: hashes, Standard: it.standard}
		if err != nil {
			m.Hashes, m.Fault = nil, err.Error()
		}
		out[it.Name] = m
	}
	return out
}

func (c *Checker) hashes(ctx context.Context, it Item, match *regexp.Regexp, salt string) (map[string]string, error) {
	out := map[string]string{}
	switch {
	case len(it.Files) > 0:
		names, err := list(ctx, it.Files)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := read(name)
			if err != nil {
				return nil, err
			}
			if it.Match != "" {
				data = matching(data, match)
			}
			out[name] = mark(salt, name, data)
		}
		return out, nil
	case it.Hook != "":
		if c.hook == nil {
			return nil, errors.New("there is nothing that runs hooks")
		}
		text, err := c.hook(ctx, it.Hook)
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", it.Hook, err)
		}
		return lines([]byte(text), match, salt), nil
	}
	data, err := run(ctx, it.Command)
	if errors.Is(err, exec.ErrNotFound) && it.standard {
		return out, nil // a machine of another kind
	}
	if err != nil {
		return nil, err
	}
	return lines(data, match, salt), nil
}

// list are the files that a list of files, directories and patterns means now.
func list(ctx context.Context, patterns []string) ([]string, error) {
	var out []string
	for _, p := range patterns {
		roots, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w", p, err)
		}
		if !strings.ContainsAny(p, `*?[\`) {
			roots = []string{p} // Glob is silent about what it may not see
		}
		for _, root := range roots {
			err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
				switch {
				case errors.Is(err, fs.ErrNotExist):
					return nil
				case err != nil:
					return err
				case e.IsDir():
					return ctx.Err()
				case len(out) >= maxFiles:
					return fmt.Errorf("%s: more than %d files", root, maxFiles)
				}
				out = append(out, name)
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("look at %s: %w", root, err)
			}
		}
	}
	return out, nil
}

// read reads a regular file, also behind a link.
func read(name string) ([]byte, error) {
	st, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at file: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s is bigger than %d bytes", name, maxBytes)
	}
	return data, nil
}

func run(ctx context.Context, argv []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out := &bounded{}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w", argv[0], err)
	}
	return out.Bytes(), nil
}

// bounded is a buffer that takes maxBytes.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxBytes {
		return 0, fmt.Errorf("more than %d bytes of output", maxBytes)
	}
	return b.Buffer.Write(p)
}

func matching(data []byte, match *regexp.Regexp) []byte {
	var out []byte
	for line := range bytes.Lines(data) {
		if match.Match(bytes.TrimRight(line, "\r\n")) {
			out = append(append(out, bytes.TrimRight(line, "\r\n")...), '\n')
		}
	}
	return out
}

// lines hashes an output by its lines' first words; the order does not matter
// but among lines that begin alike.
func lines(data []byte, match *regexp.Regexp, salt string) map[string]string {
	all := map[string][]byte{}
	for line := range bytes.Lines(matching(data, match)) {
		word := ""
		if f := bytes.Fields(line); len(f) > 1 {
			word = string(f[0])
		}
		all[word] = append(all[word], line...)
	}
	out := map[string]string{}
	for word, text := range all {
		out[word] = mark(salt, word, text)
	}
	return out
}

func mark(salt, name string, data []byte) string {
	h := hmac.New(sha256.New, []byte(salt))
	h.Write([]byte(name + "\x00"))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Compare names what two sites do not have alike, in order.
func Compare(own, theirs map[string]Mark) []Difference {
	var out []Difference
	for _, item := range keys(own, theirs) {
		a, here := own[item]
		b, there := theirs[item]
		asked := here && !a.Standard || there && !b.Standard
		unknown := func(text string) {
			out = append(out, Difference{Name: item, Text: "is not compared: " + text, Unknown: true, Forbids: asked})
		}
		switch {
		case !here:
			unknown("only the other site is asked to")
			continue
		case !there:
			unknown("the other site is not asked to")
			continue
		case a.Fault != "":
			unknown("here: " + a.Fault)
			continue
		case b.Fault != "":
			unknown("there: " + b.Fault)
			continue
		}
		for _, name := range keys(a.Hashes, b.Hashes) {
			x, y := a.Hashes[name], b.Hashes[name]
			text := "differs"
			switch {
			case x == y:
				continue
			case x == "":
				text = "is only there"
			case y == "":
				text = "is only here"
			}
			out = append(out, Difference{Name: strings.TrimSpace(item + " " + name), Text: text, Forbids: true})
		}
	}
	return out
}

// keys are those of both, in order.
func keys[V any](a, b map[string]V) []string {
	var out []string
	for k := range a {
		out = append(out, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
