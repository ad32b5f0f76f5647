package twin

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// Config is the section "failover.twin".
type Config struct {
	// Standard names sets of items that every installation has or has not.
	Standard []string `key:"standard" default:"postfix, dovecot, dkim, roundcube, packages" doc:"Ready sets of what both sites must have alike: postfix, dovecot, dkim, roundcube, packages; what a machine has not is not compared."`
	// Items are further ones; what of them cannot be read forbids a switchover too.
	Items []Item `key:"items" doc:"What else both sites must have alike."`
	// Interval is the time between two comparisons.
	Interval time.Duration `key:"interval" default:"10m" doc:"How often both sites are compared; a switchover compares at once."`
}

// Item is one thing to compare: exactly one of Files, Command and Hook.
type Item struct {
	Name    string   `key:"name" doc:"Name in the status; files have their own."`
	Files   []string `key:"files" single:"true" doc:"Files, directories with all below them, and patterns as /etc/dkim/*.key."`
	Command []string `key:"command" doc:"A command and its arguments, without a shell; its output is compared line by line."`
	Hook    string   `key:"hook" doc:"A hook that prints what only root may read; its output is compared line by line."`
	Match   string   `key:"match" doc:"Regular expression: only lines that match are compared."`

	standard bool
}

// The sets. Configuration files that name the machine itself are not among them.
func sets() map[string]Item {
	return map[string]Item{
		"postfix": {Files: []string{
			"/etc/aliases", "/etc/postfix/virtual", "/etc/postfix/vmailbox", "/etc/postfix/transport",
			"/etc/postfix/canonical", "/etc/postfix/sender_canonical", "/etc/postfix/recipient_canonical",
		}},
		"dovecot":   {Files: []string{"/etc/dovecot/users", "/etc/dovecot/passwd", "/etc/dovecot/sieve"}},
		"dkim":      {Files: []string{"/var/lib/rspamd/dkim", "/etc/opendkim/keys", "/etc/dkimkeys"}},
		"roundcube": {Files: []string{"/etc/roundcube/config.inc.php"}, Match: `des_key`},
		"packages": {
			Command: []string{"dpkg-query", "-W", "-f=${Package} ${Version}\n"},
			Match:   `^(postfix|dovecot|rspamd|roundcube|redis|spamassassin|opendkim|understudy)`,
		},
	}
}

// Validate says what makes the section unfit.
func (c Config) Validate() error {
	var errs []error
	known := sets()
	for _, name := range c.Standard {
		if _, ok := known[name]; !ok {
			errs = append(errs, fmt.Errorf("standard: %q is none of postfix, dovecot, dkim, roundcube, packages", name))
		}
	}
	if c.Interval < time.Second {
		errs = append(errs, fmt.Errorf("interval: %s is less than 1s", c.Interval))
	}
	var names []string
	for i, it := range c.Items {
		fault := func(text string) { errs = append(errs, fmt.Errorf("items[%d]: %s", i, text)) }
		n := 0
		for _, has := range []bool{len(it.Files) > 0, len(it.Command) > 0, it.Hook != ""} {
			if has {
				n++
			}
		}
		if n != 1 {
			fault("needs exactly one of files, command and hook")
		}
		if it.Name == "" || slices.Contains(names, it.Name) || known[it.Name].Files != nil || known[it.Name].Command != nil {
			fault("needs a name that no other item and no standard set has")
		}
		names = append(names, it.Name)
		for _, f := range it.Files {
			if _, err := filepath.Match(f, ""); err != nil || !filepath.IsAbs(f) {
				fault(fmt.Sprintf("%q is no absolute path or pattern", f))
			}
		}
		if _, err := regexp.Compile(it.Match); err != nil {
			fault("match: " + err.Error())
		}
	}
	return errors.Join(errs...)
}

// all are the items of a valid Config.
func (c Config) all() []Item {
	var out []Item
	known := sets()
	for _, name := range c.Standard {
		it := known[name]
		it.Name, it.standard = name, true
		out = append(out, it)
	}
	return append(out, c.Items...)
}
