package config

import (
	"path/filepath"

	"understudy/dnsfailover/tunnel"
	"understudy/internal/admin"
	"understudy/internal/peer"
	"understudy/smtp"
	"understudy/smtp/dsn"
	"understudy/smtp/queue"
	"understudy/smtp/recipients"
	"understudy/smtp/recipients/postfix"
	"understudy/smtp/relay"
	"understudy/smtp/wire"
)

// Config is the whole configuration. A section that is absent from the file
// leaves its feature off: without smtp.listen no mail is accepted.
type Config struct {
	// Site is this machine's name among Sites.
	Site string `key:"site" doc:"Name of this machine's site, one of sites."`
	// Sites are the names of the two sites.
	Sites []string `key:"sites" default:"a, b" doc:"Names of the two sites, the same in both configurations."`
	// Primary is never empty after Load: it is the first of Sites by default.
	Primary string `key:"primary" doc:"The site that is active for ever where there is no failover; by default the first of sites."`
	// DataDir is where everything durable lives.
	DataDir string `key:"data_dir" default:"/var/lib/understudy" doc:"Directory of everything that must survive a restart."`
	// Domains are the mail domains both sites serve, in lower case.
	Domains []string `key:"domains" doc:"Mail domains that both sites serve; mail to any other is refused." reload:"true"`

	Admin admin.Config `key:"admin"`
	// Link is the section "peer": the connection with the other site.
	Link   peer.Config   `key:"peer"`
	Tunnel tunnel.Config `key:"tunnel"`
	// Failover is who is active.
	Failover Failover `key:"failover"`
	Log      Log      `key:"log"`
	SMTP     SMTP     `key:"smtp"`
	Spam     Spam     `key:"spam"`

	Mailsync Mailsync `key:"mailsync"`
}

// Log is the section "log".
type Log struct {
	// Level is the least severe level written.
	Level string `key:"level" default:"info" enum:"debug,info,warn,error" doc:"Least severe messages that are written." reload:"true"`
	// Format is how lines look on standard error.
	Format string `key:"format" default:"maillog" enum:"maillog,text,json" doc:"How log lines are written: maillog is the form of Postfix, which log readers and fail2ban know."`
}

// SMTP is the section "smtp": the front, what stands behind it and the queue.
type SMTP struct {
	// Listen holds host:port; empty means that no mail is accepted here.
	Listen []string `key:"listen" doc:"Addresses to accept mail on, as :25 or 192.0.2.1:25; empty: none."`
	// Hostname is the name in the banner, in EHLO and in Received.
	Hostname string `key:"hostname" doc:"Name this machine gives itself in SMTP and in Received lines; the one in its MX record."`
	TLS      TLS    `key:"tls"`

	// Server is the protocol's own part of the section, Policy the session's.
	Server wire.ServerConfig `key:",inline"`
	Policy smtp.Config       `key:",inline"`

	Recipients recipients.Config `key:"recipients"`
	Deliver    Deliver           `key:"deliver"`
	Queue      queue.Config      `key:"queue"`
	DSN        dsn.Config        `key:"dsn"`
	// Postfix answers a Postfix that keeps port 25 for itself.
	Postfix postfix.Config `key:"postfix"`
}

// TLS names a certificate and its key; both or neither.
type TLS struct {
	// Certificate is a PEM file with the chain, the server's own first.
	Certificate string `key:"certificate" doc:"PEM file of the certificate and its chain; without it STARTTLS is not offered. It is read again when it changes."`
	// Key is a PEM file only the daemon's user and group may read.
	Key string `key:"key" secret:"true" doc:"PEM file of the private key; the world must not be able to read it."`
}

// Deliver is the section "smtp.deliver": where accepted mail goes, and how it is
// carried there. Hops are written as relay.ParseHop reads them, the preferred
// one first.
type Deliver struct {
	// ToPeer are the next hops while the other site is active.
	ToPeer []string `key:"to_peer" single:"true" doc:"Next hop while the other site is active, as smtp://mx1.example.net:25; of several, the first that answers."`
	// Local are the next hops while this site is active; none: this site never
	// delivers locally.
	Local []string `key:"local" single:"true" doc:"Next hop while this site is active, as lmtp:///run/dovecot/lmtp or smtp://127.0.0.1:10025; none: this site never delivers locally."`

	Relay relay.Config `key:",inline"`
}

// Hops parses next hops. Those of a loaded Config parse.
func Hops(list []string) ([]relay.Hop, error) {
	hops := make([]relay.Hop, len(list))
	for i, text := range list {
		var err error
		if hops[i], err = relay.ParseHop(text); err != nil {
			return nil, err
		}
	}
	return hops, nil
}

// complete fills in what follows from other keys.
func (c *Config) complete() {
	if c.Primary == "" && len(c.Sites) > 0 {
		c.Primary = c.Sites[0]
	}
	if c.Mailsync.RunAt == "" {
		c.Mailsync.RunAt = c.Primary
	}
	c.completePeer()
	c.completeFailover()
	if c.SMTP.Queue.Dir == "" {
		c.SMTP.Queue.Dir = filepath.Join(c.DataDir, "spool")
	}
}
