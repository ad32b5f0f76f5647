package daemon

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"

	"understudy/internal/admin"
	"understudy/internal/config"
	"understudy/internal/durable"
	"understudy/smtp"
	"understudy/smtp/auth"
	"understudy/smtp/dsn"
	"understudy/smtp/queue"
	"understudy/smtp/recipients"
	"understudy/smtp/wire"
)

// build makes every part, each from its own section. Parts point downwards: the
// front knows the spool, the spool knows nobody but who writes notifications.
func (d *Daemon) build(cfg config.Config) error {
	var err error
	if d.domains, err = smtp.NewDomains(cfg.Domains); err != nil {
		return fmt.Errorf("domains: %w", err)
	}
	if err = d.buildPeer(cfg); err != nil {
		return err
	}
	if err = d.buildFailover(cfg); err != nil {
		return err
	}
	if err = d.buildTunnel(cfg); err != nil {
		return err
	}
	notifications := &dsn.Writer{
		Hostname: cfg.SMTP.Hostname,
		Auth:     &auth.Verifier{Resolver: net.DefaultResolver},
		Route:    cfg.SMTP.DSN.Route,
	}
	d.spool, err = queue.Open(cfg.SMTP.Queue, queue.Deps{
		Logger: d.log, Registerer: d.registry, Alarms: d.alarms,
		NextHop: d.nextHop, Bouncer: notifications,
	})
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	notifications.Queue = d.spool
	if cfg.SMTP.DSN.Write {
		d.bounces = &dsn.Watcher{Spool: d.spool, Log: d.log}
	}
	if cfg.SMTP.DSN.DelayAfter > 0 {
		d.delays = &dsn.Delays{
			Writer: notifications, Queue: d.spool, After: cfg.SMTP.DSN.DelayAfter,
			File: filepath.Join(cfg.DataDir, "delay-notices.json"), FS: durable.OS(), Log: d.log,
		}
	}
	if err := d.buildRelay(cfg); err != nil {
		return err
	}
	d.people, err = recipients.New(cfg.SMTP.Recipients, recipients.Deps{
		Domains: d.domains, Hostname: cfg.SMTP.Hostname, Dir: filepath.Join(cfg.DataDir, "recipients"),
		Logger: d.log, Alarms: d.alarms, Registerer: d.registry,
	})
	if err != nil {
		return fmt.Errorf("recipients: %w", err)
	}
	filter, err := d.buildSpam(cfg)
	if err != nil {
		return err
	}
	d.front, err = smtp.NewFront(cfg.SMTP.Policy, smtp.Deps{
		Hostname: cfg.SMTP.Hostname, Domains: d.domains, Recipients: d.people, Filter: filter, Queue: d.spool,
		Active: d.isActive, Flush: d.flushDomain, Resolver: net.DefaultResolver,
		MaxMessageBytes: cfg.SMTP.Server.MaxMessageBytes, Logger: d.log, Registerer: d.registry,
	})
	if err != nil {
		return fmt.Errorf("smtp: %w", err)
	}
	if err := d.buildServer(cfg); err != nil {
		return err
	}
	if err := d.buildPostfix(cfg); err != nil {
		return err
	}
	d.buildMailsync(cfg)
	return d.buildAdmin(cfg)
}

// buildServer makes the SMTP server where there is something to listen on.
func (d *Daemon) buildServer(cfg config.Config) error {
	if len(cfg.SMTP.Listen) == 0 {
		return nil
	}
	var tlsConfig *tls.Config
	if cfg.SMTP.TLS.Certificate != "" {
		cert, err := newCertificate(cfg.SMTP.TLS.Certificate, cfg.SMTP.TLS.Key, d.log)
		if err != nil {
			return fmt.Errorf("smtp.tls: %w", err)
		}
		tlsConfig = cert.config()
	}
	var err error
	d.server, err = wire.NewServer(cfg.SMTP.Server, cfg.SMTP.Hostname, tlsConfig, d.front, d.log)
	if err != nil {
		return fmt.Errorf("smtp server: %w", err)
	}
	return nil
}

// buildAdmin makes the operators' API over all that was built before.
func (d *Daemon) buildAdmin(cfg config.Config) error {
	var err error
	d.admin, err = admin.New(cfg.Admin, admin.Deps{
		Logger: d.log, Registerer: d.registry, Gatherer: d.registry,
		Queue: d.spool, Archive: d.spool, Rules: d.spool,
		Hops: hops{d.relay}, Recipients: directory{d.people, d.front}, Status: d, Spam: d.spamAdmin(), Mailsync: d.mailsyncAdmin(), Bans: d, Failover: d.failoverAdmin(),
		AllowBody: func() bool { return cfg.SMTP.Queue.AllowBodyAccess },
		Checks:    d.checks(),
	})
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
