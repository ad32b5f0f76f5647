package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/fleet"
	"understudy/imapsync/wire"
)

// Mailsync is the section "mailsync": whose mailboxes are kept equal, and how.
type Mailsync struct {
	// Sites is one IMAP server a site, by the site's name.
	Sites    map[string]MailSite `key:"sites" doc:"The IMAP server of each site, by the site's name."`
	Auth     fleet.Auth          `key:"auth"`
	Accounts accounts.Config     `key:"accounts"`
	// Continuous makes serve synchronise.
	Continuous bool `key:"continuous" default:"true" doc:"Whether serve synchronises all the time; false leaves it to mailsync run from cron or a timer."`
	// RunAt is never empty after Load.
	RunAt string `key:"run_at" doc:"The site whose daemon synchronises all the time; by default the primary. The other site's only answers."`

	Fleet fleet.Config    `key:",inline"`
	Sync  imapsync.Config `key:",inline"`
}

// MailSite is one site's IMAP server.
type MailSite struct {
	Server wire.Config `key:",inline"`
	// Auth, where its PasswordFile is set, replaces mailsync.auth at this site.
	Auth fleet.Auth `key:"auth"`
	// Sieve is the site's ManageSieve server.
	Sieve string `key:"sieve" doc:"host:port of the ManageSieve server (RFC 5804), for mailsync sieve; the login and the trust are those of the IMAP server."`
}

// On says that mailboxes are synchronised.
func (m Mailsync) On() bool { return len(m.Sites) > 0 }

// AuthAt is how to log in at site.
func (m Mailsync) AuthAt(site string) fleet.Auth {
	if own := m.Sites[site].Auth; own.PasswordFile != "" {
		return own
	}
	return m.Auth
}

// MailsyncDir is where the bases of all accounts are.
func (c *Config) MailsyncDir() string { return filepath.Join(c.DataDir, "mailsync") }

// Validate returns what is wrong within the section.
func (m Mailsync) Validate() error {
	if !m.On() {
		return nil
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(m.Sites)) {
		site := m.Sites[name]
		prefix := "sites." + name + "."
		for _, err := range split(site.Server.Validate()) {
			faults = append(faults, fmt.Errorf("%s%w", prefix, err))
		}
		if site.Sieve != "" {
			if _, _, err := net.SplitHostPort(site.Sieve); err != nil {
				faults = append(faults, fmt.Errorf("%ssieve: %w", prefix, err))
			}
		}
		for _, err := range split(site.Auth.Validate()) {
			faults = append(faults, fmt.Errorf("%sauth.%w", prefix, err))
		}
	}
	if !m.Accounts.On() {
		faults = append(faults, errors.New("accounts: name a file, a command or a query"))
	}
	return errors.Join(faults...)
}

// checkMailsync is what the section needs of the rest.
func (c *Config) checkMailsync(report reporter) {
	if !c.Mailsync.On() {
		return
	}
	for _, site := range c.Sites {
		if _, ok := c.Mailsync.Sites[site]; !ok {
			report("mailsync.sites", fmt.Sprintf("site %s is missing; each of %s needs its server", site, strings.Join(c.Sites, ", ")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Mailsync.Sites)) {
		if !slices.Contains(c.Sites, name) {
			report("mailsync.sites."+name, fmt.Sprintf("is not one of sites (%s)", strings.Join(c.Sites, ", ")))
		}
	}
	if !slices.Contains(c.Sites, c.Mailsync.RunAt) {
		report("mailsync.run_at", fmt.Sprintf("%q is not one of sites (%s)", c.Mailsync.RunAt, strings.Join(c.Sites, ", ")))
	}
}

// MailsyncOpener opens the accounts of the section mailsync. The side of the
// primary wins where both moved the same thing.
func (c *Config) MailsyncOpener(log *slog.Logger) *fleet.IMAP {
	o := &fleet.IMAP{Dir: c.MailsyncDir(), Sync: c.Mailsync.Sync, Logger: log}
	for side := range o.Sites {
		name := c.Sites[side]
		o.Sites[side], o.Servers[side], o.Auth[side] = name, c.Mailsync.Sites[name].Server, c.Mailsync.AuthAt(name)
		if name == c.Primary {
			o.Sync.Prefer = imapsync.Side(side).String()
		}
	}
	return o
}
