package probe

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The kinds of probes.
const (
	SMTP    = "smtp"
	Mail    = "mail"
	IMAP    = "imap"
	HTTP    = "http"
	Redis   = "redis"
	Disk    = "disk"
	Command = "command"
)

// Who tries a probe.
const (
	// FromSelf: the site that it is about.
	FromSelf = "self"
	// FromPeer: the other site, through the public address.
	FromPeer = "peer"
	// FromBoth: either.
	FromBoth = "both"
)

// Config is one probe.
type Config struct {
	Name    string `key:"name" doc:"What the probe is called in status and alarms; by default its kind and address."`
	Kind    string `key:"kind" enum:"smtp,mail,imap,http,redis,disk,command" default:"smtp" doc:"smtp: EHLO, MAIL, RCPT. mail: delivery by LMTP and reading by IMAP. imap: LOGIN and SELECT. http: a page. redis: PING. disk: write and sync. command: any program that exits with 0."`
	Site    string `key:"site" doc:"The site that the probe is about; empty: each site tries it on itself."`
	From    string `key:"from" enum:"both,self,peer" default:"both" doc:"Who tries a probe with a site: that site itself, the other one, or both."`
	Address string `key:"address" doc:"host:port of the server; with kind http, where to connect instead of the URL's host."`

	Recipient string `key:"recipient" doc:"With smtp, the address that RCPT must accept, empty for EHLO alone; with mail, the one that is delivered to."`
	LMTP      string `key:"lmtp" doc:"With mail, where the message is delivered: host:port, or the path of a socket."`
	TLS       string `key:"tls" enum:"auto,implicit,starttls,none" default:"auto" doc:"With imap and mail: auto is implicit TLS on port 993 and none elsewhere."`
	// Name in the certificate, where it is not the host of Address.
	ServerName   string `key:"server_name" doc:"Name in the server's certificate, where it is not the host of address."`
	InsecureTLS  bool   `key:"insecure_tls" default:"false" doc:"Do not check the certificate. An expired one fails for users too, so better leave this off."`
	User         string `key:"user" doc:"With imap and mail, the user to log in as; with redis, the user of its ACL."`
	PasswordFile string `key:"password_file" doc:"File with that user's password."`
	Mailbox      string `key:"mailbox" default:"INBOX" doc:"With imap and mail, the mailbox that is opened."`

	URL    string `key:"url" doc:"With http, what is fetched."`
	Expect string `key:"expect" doc:"With http, text that must be in the page; with command, text that must be in its output."`

	Path    string `key:"path" doc:"With disk, a directory on it."`
	MinFree int    `key:"min_free_percent" default:"5" doc:"With disk, the least share of free space and of free inodes."`

	Command []string `key:"command" doc:"With command, the program and its arguments."`

	Timeout time.Duration `key:"timeout" default:"5s" doc:"Time for the whole probe; after it, the service counts as failed."`
}

func (c Config) withDefaults() Config {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.Kind, SMTP)
	set(&c.From, FromBoth)
	set(&c.TLS, "auto")
	set(&c.Mailbox, "INBOX")
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.MinFree == 0 {
		c.MinFree = 5
	}
	if c.TLS == "auto" {
		c.TLS = "none"
		if _, port, err := net.SplitHostPort(c.Address); err == nil && port == "993" {
			c.TLS = "implicit"
		}
	}
	what := c.Address
	switch c.Kind {
	case HTTP:
		what = c.URL
	case Disk:
		what = c.Path
	case Command:
		what = filepath.Base(strings.Join(c.Command[:min(1, len(c.Command))], ""))
	}
	set(&c.Name, strings.TrimSpace(c.Kind+" "+what))
	return c
}

// Validate joins all faults, each starting with its key.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	hostPort := func(key, address string) {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			fault("%s: %q is not host:port", key, address)
		}
	}
	switch c.Kind {
	case SMTP, Redis:
		hostPort("address", c.Address)
	case IMAP, Mail:
		hostPort("address", c.Address)
		if c.User == "" {
			fault("user: is empty")
		}
		if c.PasswordFile == "" {
			fault("password_file: is empty")
		}
	case HTTP:
		if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			fault("url: %q is no http or https URL", c.URL)
		}
		if c.Address != "" {
			hostPort("address", c.Address)
		}
	case Disk:
		if !filepath.IsAbs(c.Path) {
			fault("path: %q is no absolute path", c.Path)
		}
	case Command:
		if len(c.Command) == 0 || c.Command[0] == "" {
			fault("command: is empty")
		}
	default:
		fault("kind: %q is not one of smtp, mail, imap, http, redis, disk, command", c.Kind)
	}
	if c.Kind == Mail {
		if !strings.HasPrefix(c.LMTP, "/") {
			hostPort("lmtp", c.LMTP)
		}
		if c.Recipient == "" {
			fault("recipient: is empty")
		}
	}
	if strings.ContainsAny(c.Recipient, "<>\r\n ") {
		fault("recipient: %q is no address", c.Recipient)
	}
	if !slices.Contains([]string{"implicit", "starttls", "none"}, c.TLS) {
		fault("tls: %q is not one of auto, implicit, starttls, none", c.TLS)
	}
	if !slices.Contains([]string{FromBoth, FromSelf, FromPeer}, c.From) {
		fault("from: %q is not one of both, self, peer", c.From)
	}
	if c.MinFree < 0 || c.MinFree > 90 {
		fault("min_free_percent: %d is not between 0 and 90", c.MinFree)
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute {
		fault("timeout: %s is not between 100ms and 1m", c.Timeout)
	}
	return errors.Join(errs...)
}

// About selects the probes that site tries about target (which may be itself).
func About(list []Config, site, target string) []Config {
	var out []Config
	for _, c := range list {
		c = c.withDefaults()
		self := site == target
		if c.Site == "" && self || c.Site == target && (c.From == FromBoth || self == (c.From == FromSelf)) {
			out = append(out, c)
		}
	}
	return out
}
