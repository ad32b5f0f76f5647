package accounts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"understudy/internal/ask"
)

// maxFileBytes bounds a file of accounts and the output of a program.
const maxFileBytes = 64 << 20

// errTooLong says that a list is longer than anybody's.
var errTooLong = errors.New("the list of accounts is longer than 64 MiB")

// collector gathers accounts and refuses one that is there twice with different
// logins.
type collector struct {
	sites []string
	seen  map[string]Account
}

// List returns the accounts that cfg names, in the order of their names. sites
// are the two sites' names. Any source that fails, fails the list.
func List(ctx context.Context, cfg Config, sites []string) ([]Account, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	c := &collector{sites: sites, seen: map[string]Account{}}
	if cfg.File != "" {
		if err := c.files(cfg.File); err != nil {
			return nil, err
		}
	}
	if len(cfg.Command) > 0 {
		err := ask.Command(ctx, cfg.Command, func(out io.Reader) error { return c.lines(out, cfg.Command[0]) })
		if err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
	}
	if cfg.Query != "" {
		query := ask.Query{Driver: cfg.Driver, DSNFile: cfg.DSNFile, Text: cfg.Query}
		if err := query.Rows(ctx, c.row); err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
	}
	list := make([]Account, 0, len(c.seen))
	for _, a := range c.seen {
		if (len(cfg.Include) == 0 || Match(cfg.Include, a.Name)) && !Match(cfg.Exclude, a.Name) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, sorted)
	return list, nil
}

// add takes an account; a login that is not given is the account's name.
func (c *collector) add(name string, at map[string]Login) error {
	if err := checkName(name); err != nil {
		return err
	}
	a := Account{Name: name, At: make(map[string]Login, len(c.sites))}
	for _, site := range c.sites {
		login := at[site]
		if login.User == "" {
			login.User = name
		}
		a.At[site] = login
	}
	before, twice := c.seen[name]
	if twice && !before.Equal(a) {
		return fmt.Errorf("account %s is there twice, with different logins", name)
	}
	c.seen[name] = a
	return nil
}

func (c *collector) row(n int, columns []string) error {
	at := map[string]Login{}
	for i, site := range c.sites {
		if i+1 < len(columns) {
			at[site] = Login{User: strings.TrimSpace(columns[i+1])}
		}
	}
	name := strings.TrimSpace(columns[0])
	if name == "" {
		return nil
	}
	if err := c.add(name, at); err != nil {
		return fmt.Errorf("row %d: %w", n, err)
	}
	return nil
}

func (c *collector) files(pattern string) error {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("accounts: pattern %q: %w", pattern, err)
	}
	if len(names) == 0 {
		// A missing file and an empty directory are mistakes, not "nobody".
		return fmt.Errorf("accounts: %s: %w", pattern, os.ErrNotExist)
	}
	for _, name := range names {
		if err := c.file(name); err != nil {
			return fmt.Errorf("accounts: %w", err)
		}
	}
	return nil
}

func (c *collector) file(name string) error {
	f, err := os.Open(name) //nolint:gosec // the operator's own file
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	switch filepath.Ext(name) {
	case ".yaml", ".yml":
		return c.yaml(f, name)
	default:
		return c.lines(f, name)
	}
}

// lines reads one account a line; what follows a # is a comment.
func (c *collector) lines(r io.Reader, name string) error {
	limited := &io.LimitedReader{R: r, N: maxFileBytes + 1}
	s := bufio.NewScanner(limited)
	for n := 1; s.Scan(); n++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := c.add(text, nil); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if limited.N <= 0 {
		return errTooLong
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// entry is one account in a YAML file:
//
//   - name: alice@example.com
//     at:
//     a: {user: alice}
//     b: {user: alice@example.com, password_file: /etc/understudy/alice}
type entry struct {
	Name string               `yaml:"name"`
	At   map[string]siteEntry `yaml:"at"`
}

type siteEntry struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
}

func (c *collector) yaml(r io.Reader, name string) error {
	text, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxFileBytes {
		return errTooLong
	}
	var entries []entry
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&entries); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, e := range entries {
		at := make(map[string]Login, len(e.At))
		for site, s := range e.At {
			if !slices.Contains(c.sites, site) {
				return fmt.Errorf("%s: account %s: %q is not a site (%s)", name, e.Name, site, strings.Join(c.sites, ", "))
			}
			at[site] = Login(s)
		}
		if err := c.add(e.Name, at); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
