package recipients

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-ldap/ldap/v3"

	"understudy/smtp"
)

// The kinds of source.
const (
	KindFile    = "file"
	KindCommand = "command"
	KindSQL     = "sql"
	KindLDAP    = "ldap"
	KindRedis   = "redis"
	KindCallout = "callout"
)

// The answers for an address that no source has while one of them is stale.
const (
	// StaleExact answers 550 all the same.
	StaleExact = "exact"
	// StaleTempfail answers 450: the sender tries again.
	StaleTempfail = "tempfail"
	// StaleAccept takes the message.
	StaleAccept = "accept"
)

// The formats of files and command output.
const (
	// FormatLines: one address or @domain a line, "#" begins a comment line; what
	// follows the address behind white space is ignored.
	FormatLines = "lines"
	// FormatPostmap: the output of postmap -s: a key, white space, a value.
	FormatPostmap = "postmap"
	// FormatAliases: an aliases(5) file or the output of postalias -s: local names.
	FormatAliases = "aliases"
	// FormatPasswd: lines whose first field, up to a colon, is a local name.
	FormatPasswd = "passwd"
	// FormatRegexp and FormatPCRE: Postfix's regexp_table(5) and pcre_table(5).
	FormatRegexp = "regexp"
	FormatPCRE   = "pcre"
)

// Config is the section smtp.recipients.
type Config struct {
	One           SourceConfig   `key:",inline"`
	Sources       []SourceConfig `key:"sources" doc:"Several sources, each with the keys of this section's single one; an address exists if any of them has it."`
	WhenStale     string         `key:"when_stale" default:"tempfail" enum:"exact,tempfail,accept" reload:"true" doc:"The answer for unknown addresses while a source is stale: exact (550), tempfail (450) or accept."`
	Domains       []DomainConfig `key:"domains" reload:"true" doc:"Domains with another when_stale."`
	Delimiter     string         `key:"delimiter" default:"+" reload:"true" doc:"Characters that begin an address extension: user+list is user. Empty switches extensions off."`
	CaseSensitive bool           `key:"case_sensitive" default:"false" doc:"Whether User and user are two mailboxes (RFC 5321, section 2.4, permits it)."`
	Audit         bool           `key:"audit" default:"false" reload:"true" doc:"Refuse nobody; only log what would have been refused, and compare with the primary's own answers."`
	AuditAddress  string         `key:"audit_address" reload:"true" doc:"host:port of the primary's SMTP server, asked in audit mode; empty compares nothing."`
}

// DomainConfig sets one domain apart.
type DomainConfig struct {
	Name      string `key:"name" doc:"The domain."`
	WhenStale string `key:"when_stale" enum:"exact,tempfail,accept" doc:"The answer for its unknown addresses while a source is stale."`
}

// SourceConfig is one source. Which keys matter depends on the kind; zero
// values stand for the defaults named in the tags.
type SourceConfig struct {
	Kind        string        `key:"source" enum:"file,command,sql,ldap,redis,callout" doc:"Kind of source: file, command, sql, ldap, redis or callout."`
	Name        string        `key:"name" doc:"Name in logs and for approve; the kind by default."`
	Path        string        `key:"path" doc:"file: the file, reloaded when it changes."`
	Format      string        `key:"format" default:"lines" enum:"lines,postmap,aliases,passwd,regexp,pcre" doc:"file and command: lines (one address or @domain a line), postmap (output of postmap -s), aliases, passwd, regexp or pcre (Postfix tables)."`
	Command     []string      `key:"command" doc:"command: program and arguments, run without a shell; its output is read in the format."`
	Shell       bool          `key:"shell" default:"false" doc:"command: run the single argument with /bin/sh -c."`
	Driver      string        `key:"driver" enum:"postgres,mysql" doc:"sql: postgres or mysql (also MariaDB)."`
	DSNFile     string        `key:"dsn_file" secret:"true" doc:"sql: file with the data source name."`
	Query       string        `key:"query" doc:"sql: query that returns the addresses in its first column."`
	URL         string        `key:"url" doc:"ldap: ldap://, ldaps:// or ldapi:// address. redis: redis:// or rediss:// address."`
	BindDN      string        `key:"bind_dn" doc:"ldap: whom to bind as; empty binds anonymously."`
	SecretFile  string        `key:"password_file" secret:"true" doc:"ldap, redis: file with the password."`
	Base        string        `key:"base" doc:"ldap: where the search begins."`
	Filter      string        `key:"filter" default:"(mail=*)" doc:"ldap: which entries."`
	Attributes  []string      `key:"attributes" default:"mail" doc:"ldap: attributes that hold addresses; a prefix like smtp: is dropped."`
	StartTLS    bool          `key:"starttls" default:"false" doc:"ldap: STARTTLS on an ldap:// connection."`
	Authorities string        `key:"authorities" doc:"ldap, redis: file with the certificates (PEM) that the server's is checked against; the system's by default."`
	Key         string        `key:"key" doc:"redis: key of the set."`
	Address     string        `key:"address" doc:"callout: host:port of the primary's SMTP server."`
	Positive    time.Duration `key:"positive_lifetime" default:"744h" doc:"callout: how long an accepted address is remembered."`
	Negative    time.Duration `key:"negative_lifetime" default:"72h" doc:"callout: how long a refused address is remembered."`
	BareDomains []string      `key:"bare_domains" doc:"Domains that names without a domain belong to; without it such names are faults."`
	Interval    time.Duration `key:"interval" default:"5m" doc:"How often the source is asked; callout: how long before an address is asked for again."`
	Timeout     time.Duration `key:"timeout" default:"1m" doc:"Longest time one query may take; callout: at most 20s."`
	MaxAge      time.Duration `key:"max_age" default:"0s" doc:"Age from which the source is stale; 0s is never for a file and 24h for all others. A file's age is that of its last change."`
	MaxBytes    int64         `key:"max_output" default:"512MiB" doc:"file and command: most bytes that are read."`
	ShrinkShare int           `key:"shrink_percent" default:"20" doc:"A source that returns this share fewer addresses, and at least shrink_count fewer, is not believed until approved."`
	ShrinkCount int           `key:"shrink_count" default:"20" doc:"Least loss of addresses that must be approved; losing all must always be."`
}

// sources returns all configured sources with defaults filled in.
func (c Config) sources() []SourceConfig {
	var list []SourceConfig
	if c.One.Kind != "" {
		list = append(list, c.One)
	}
	list = append(list, c.Sources...)
	for i := range list {
		list[i] = list[i].withDefaults()
	}
	return list
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c SourceConfig) withDefaults() SourceConfig {
	orDefault(&c.Name, c.Kind)
	orDefault(&c.Format, FormatLines)
	orDefault(&c.Filter, "(mail=*)")
	if len(c.Attributes) == 0 {
		c.Attributes = []string{"mail"}
	}
	orDefault(&c.Positive, 31*24*time.Hour)
	orDefault(&c.Negative, 3*24*time.Hour)
	orDefault(&c.Interval, 5*time.Minute)
	orDefault(&c.Timeout, time.Minute)
	if c.Kind != KindFile {
		orDefault(&c.MaxAge, 24*time.Hour)
	}
	orDefault(&c.MaxBytes, 512<<20)
	orDefault(&c.ShrinkShare, 20)
	orDefault(&c.ShrinkCount, 20)
	return c
}

// Validate returns all faults at once, each prefixed with its key.
func (c Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %w", key, fmt.Errorf(format, args...)))
	}
	switch c.WhenStale {
	case "", StaleExact, StaleTempfail, StaleAccept:
	default:
		fault("when_stale", "%q is not exact, tempfail or accept", c.WhenStale)
	}
	for i, d := range c.Domains {
		if _, err := smtp.NormalizeDomain(d.Name); err != nil {
			fault(fmt.Sprintf("domains[%d].name", i), "%w", err)
		}
		switch d.WhenStale {
		case StaleExact, StaleTempfail, StaleAccept:
		default:
			fault(fmt.Sprintf("domains[%d].when_stale", i), "%q is not exact, tempfail or accept", d.WhenStale)
		}
	}
	if strings.ContainsFunc(c.Delimiter, func(r rune) bool {
		return r > unicode.MaxASCII || unicode.IsSpace(r) || unicode.IsControl(r) || unicode.IsLetter(r) || unicode.IsDigit(r) || r == '@' || r == '"'
	}) {
		fault("delimiter", "%q must be punctuation", c.Delimiter)
	}
	if c.AuditAddress != "" {
		if _, _, err := net.SplitHostPort(c.AuditAddress); err != nil {
			fault("audit_address", "%w", err)
		}
	}
	names := make(map[string]bool)
	if c.One.Kind == "" && c.One.Path != "" {
		fault("source", "is missing beside path")
	}
	check := func(prefix string, s SourceConfig) {
		s = s.withDefaults()
		if err := s.check(prefix); err != nil {
			faults = append(faults, err)
		}
		if names[s.Name] {
			fault(prefix+"name", "%q is there twice", s.Name)
		}
		names[s.Name] = true
	}
	if c.One.Kind != "" {
		check("", c.One)
	}
	for i, s := range c.Sources {
		check(fmt.Sprintf("sources[%d].", i), s)
	}
	return errors.Join(faults...)
}

// check returns the faults of one source.
func (c SourceConfig) check(prefix string) error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s%s: %w", prefix, key, fmt.Errorf(format, args...)))
	}
	need := func(key, value string) {
		if value == "" {
			fault(key, "is missing; source %s needs it", c.Kind)
		}
	}
	switch c.Kind {
	case KindFile:
		need("path", c.Path)
	case KindCommand:
		if len(c.Command) == 0 || c.Command[0] == "" {
			need("command", "")
		} else if c.Shell && len(c.Command) != 1 {
			fault("command", "must be one argument where shell is true")
		}
	case KindSQL:
		need("dsn_file", c.DSNFile)
		need("query", c.Query)
		if c.Driver != "postgres" && c.Driver != "mysql" {
			fault("driver", "%q is not postgres or mysql", c.Driver)
		}
	case KindLDAP:
		need("url", c.URL)
		need("base", c.Base)
		if c.BindDN != "" {
			need("password_file", c.SecretFile)
		}
		if _, err := ldap.CompileFilter(c.Filter); err != nil {
			fault("filter", "%w", err)
		}
	case KindRedis:
		need("url", c.URL)
		need("key", c.Key)
	case KindCallout:
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			fault("address", "%q is not host:port", c.Address)
		}
	default:
		fault("source", "%q is not file, command, sql, ldap, redis or callout", c.Kind)
	}
	if !slices.Contains([]string{FormatLines, FormatPostmap, FormatAliases, FormatPasswd, FormatRegexp, FormatPCRE}, c.Format) {
		fault("format", "%q is not lines, postmap, aliases, passwd, regexp or pcre", c.Format)
	}
	for _, d := range c.BareDomains {
		if _, err := smtp.NormalizeDomain(d); err != nil {
			fault("bare_domains", "%w", err)
		}
	}
	for key, d := range map[string]time.Duration{
		"positive_lifetime": c.Positive, "negative_lifetime": c.Negative, "interval": c.Interval, "timeout": c.Timeout,
	} {
		if d <= 0 {
			fault(key, "%s is not positive", d)
		}
	}
	if c.MaxAge < 0 {
		fault("max_age", "%s is negative", c.MaxAge)
	}
	if c.MaxBytes <= 0 {
		fault("max_output", "%d is not positive", c.MaxBytes)
	}
	if c.ShrinkShare < 1 || c.ShrinkShare > 100 {
		fault("shrink_percent", "%d is not between 1 and 100", c.ShrinkShare)
	}
	if c.ShrinkCount < 1 {
		fault("shrink_count", "%d is less than 1", c.ShrinkCount)
	}
	if strings.ContainsAny(c.Name, "/\\\x00") || strings.HasPrefix(c.Name, ".") {
		fault("name", "%q cannot be part of a file name", c.Name)
	}
	return errors.Join(faults...)
}
