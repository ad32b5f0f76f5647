package accounts

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"understudy/internal/ask"
)

// Config is the section "mailsync.accounts".
type Config struct {
	// File is one file or a pattern of files.
	File string `key:"file" doc:"File of accounts, or a pattern as /etc/understudy/accounts.d/*: one account a line, or YAML (.yaml, .yml) where names or passwords differ between the sites."`
	// Command prints one account a line.
	Command []string `key:"command" doc:"Program and arguments, run without a shell, that prints one account a line, as [doveadm, user, '*']."`
	Driver  string   `key:"driver" enum:"postgres,mysql" doc:"Database that query asks: postgres or mysql (also MariaDB)."`
	DSNFile string   `key:"dsn_file" secret:"true" doc:"File with the data source name of the database."`
	Query   string   `key:"query" doc:"Query that returns an account in its first column, and its name at the first and at the second site in the second and third where these differ."`
	// Include and Exclude are patterns of names.
	Include []string      `key:"include" doc:"Patterns of accounts to synchronise, as *@example.com; empty: all."`
	Exclude []string      `key:"exclude" doc:"Patterns of accounts to leave alone."`
	Timeout time.Duration `key:"timeout" default:"1m" doc:"Longest time that a program or a query may take."`
}

// On says that accounts are configured.
func (c Config) On() bool { return c.File != "" || len(c.Command) > 0 || c.Query != "" }

// Validate returns all faults at once, each prefixed with its key.
func (c Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %w", key, fmt.Errorf(format, args...)))
	}
	if _, err := filepath.Match(c.File, ""); err != nil {
		fault("file", "pattern %q: %w", c.File, err)
	}
	for _, list := range []struct {
		key      string
		patterns []string
	}{{"include", c.Include}, {"exclude", c.Exclude}} {
		for _, p := range list.patterns {
			if _, err := path.Match(p, ""); err != nil {
				fault(list.key, "pattern %q: %w", p, err)
			}
		}
	}
	switch {
	case c.Query == "":
		if c.Driver != "" || c.DSNFile != "" {
			fault("query", "is missing beside driver and dsn_file")
		}
	case c.Driver != ask.Postgres && c.Driver != ask.MySQL:
		fault("driver", "%q is not postgres or mysql", c.Driver)
	case c.DSNFile == "":
		fault("dsn_file", "is missing beside query")
	}
	if c.Timeout <= 0 {
		fault("timeout", "must be more than nothing")
	}
	return errors.Join(faults...)
}
