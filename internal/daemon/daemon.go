package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"understudy/dnsfailover"
	"understudy/dnsfailover/tunnel"
	"understudy/internal/admin"
	"understudy/internal/bans"
	"understudy/internal/config"
	"understudy/internal/peer"
	"understudy/smtp"
	"understudy/smtp/dsn"
	"understudy/smtp/queue"
	"understudy/smtp/recipients"
	"understudy/smtp/recipients/postfix"
	"understudy/smtp/relay"
	"understudy/smtp/wire"
	"understudy/spamsync"
)

// How long each part may take to stop. Mail that is being received has the
// longest; the service manager's own limit (TimeoutStopSec) lies above the sum
// of what can run at all.
const (
	stopSMTP       = 20 * time.Second
	stopRelay      = 10 * time.Second
	stopSpool      = 10 * time.Second
	stopRecipients = 2 * time.Second
	stopAdmin      = 6 * time.Second
)

// Options are what the command line knows beyond the configuration.
type Options struct {
	// Log and Level come from NewLogger; Level may be changed by a reload.
	Log   *slog.Logger
	Level *slog.LevelVar
	// Load reads the configuration again, for a reload; nil makes Reload fail.
	Load func() (config.Config, error)
	// Version is shown in the status.
	Version string
}

// Daemon is everything that serve runs.
type Daemon struct {
	opts     Options
	log      *slog.Logger
	started  time.Time
	view     dnsfailover.View
	feed     *dnsfailover.Feed
	failover *dnsfailover.Controller // nil where primary is active for ever

	registry        *prometheus.Registry
	alarms          *alarms
	spool           *queue.Spool
	toPeer, toLocal []relay.Hop // next hops as standby, and as active
	relay           *relay.Relay
	bounces         *dsn.Watcher // nil where notifications are off
	delays          *dsn.Delays  // nil where delay notices are off
	people          *recipients.Directory
	domains         *smtp.Domains
	front           *smtp.Front
	spam            *spam     // nil where mail is not judged
	mailsync        *mailsync // nil where mailboxes are not synchronised
	postfix         *postfix.Server
	server          *wire.Server
	admin           *admin.Server
	link            *peer.Link // nil where there is no other site to talk to
	bans            *bans.List
	tunnel          *tunnel.Tunnel // nil where there are no services

	doors       *doors
	twins       *twins // nil without failover
	bansChanged chan struct{}

	notify   notifier
	stopping atomic.Bool

	mu        sync.Mutex
	cfg       config.Config
	listeners []admin.Listener
}

// New builds every part; it takes the spool's lock and recovers it, and neither
// listens nor dials. After an error nothing is left open.
func New(cfg config.Config, opts Options) (*Daemon, error) {
	d := &Daemon{
		opts: opts, log: opts.Log, cfg: cfg, started: time.Now(),
		view:     dnsfailover.Fixed(dnsfailover.Site(cfg.Site), dnsfailover.Site(cfg.Primary)),
		registry: prometheus.NewRegistry(),
		notify:   notifier{log: opts.Log},
	}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.feed = dnsfailover.NewFeed(d.view)
	d.alarms = newAlarms(d.log, d.registry)
	d.doors = &doors{alarms: d.alarms}
	spamsync.LogClientsTo(d.log)
	if err := d.build(cfg); err != nil {
		if d.spam != nil {
			err = errors.Join(err, d.spam.close())
		}
		if d.spool != nil {
			err = errors.Join(err, d.spool.Close())
		}
		return nil, err
	}
	return d, nil
}

// Run starts every part, serves until ctx ends or a part fails, and stops them
// in reverse. It returns nil after a clean stop.
func (d *Daemon) Run(ctx context.Context) error {
	undo := &stack{log: d.log}
	failed := make(chan error, 16)
	err := d.start(ctx, undo, failed)
	if err == nil {
		d.notify.tell("READY=1")
		d.log.Info("serving", "site", d.cfg.Site, "role", d.currentView().Role.String(), "version", d.opts.Version)
		wctx, stopWatchdog := context.WithCancel(ctx)
		var watchdog sync.WaitGroup
		watchdog.Go(func() { d.notify.watchdog(wctx, d.alive) })
		select {
		case <-ctx.Done():
		case err = <-failed:
			d.log.Error("a part has failed, stopping", "err", err)
		}
		stopWatchdog()
		watchdog.Wait()
	}
	d.stopping.Store(true)
	d.notify.tell("STOPPING=1")
	err = errors.Join(err, undo.unwind(context.WithoutCancel(ctx)))
	d.log.Info("stopped")
	return err
}

// start brings the parts up in the order of the package comment.
func (d *Daemon) start(ctx context.Context, undo *stack, failed chan<- error) error {
	run := func(name string, limit time.Duration, fn func(context.Context) error) {
		d.run(ctx, undo, failed, name, limit, fn)
	}
	if err := d.startPeer(ctx, run); err != nil {
		return err
	}
	run("spool", stopSpool, d.spool.Run)
	run("recipients", stopRecipients, d.people.Run)
	run("learned recipients", stopRecipients, d.learnRecipients)
	if err := d.startPostfix(ctx, run); err != nil {
		return err
	}
	run("relay", stopRelay, d.relay.Run)
	d.startSpam(run, undo)
	d.startFailover(run)
	d.startMailsync(run)
	if d.bounces != nil {
		run("notifications", stopSpool, d.bounces.Run)
	}
	if d.delays != nil {
		run("delay notices", stopSpool, d.delays.Run)
	}

	if err := d.admin.Listen(); err != nil {
		return fmt.Errorf("start admin: %w", err)
	}
	run("admin", stopAdmin, d.admin.Run)

	if err := d.startTunnel(ctx, run); err != nil {
		return err
	}
	if d.server != nil {
		if err := d.startSMTP(ctx, undo, failed); err != nil {
			return err
		}
	}
	if d.failover != nil {
		run("listeners", stopPeer, d.watchDoors)
	}
	return nil
}

// startSMTP listens for mail on every address before it serves the first.
func (d *Daemon) startSMTP(ctx context.Context, undo *stack, failed chan<- error) error {
	var open []net.Listener
	for _, addr := range d.cfg.SMTP.Listen {
		l, err := d.doors.Listen(ctx, net.ListenConfig{}, addr)
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
			return fmt.Errorf("listen for mail: %w", err)
		}
		open = append(open, d.bans.Guard(l))
	}
	var serving sync.WaitGroup
	for _, l := range open {
		d.listening("smtp", l.Addr().String())
		serving.Go(func() {
			if err := d.server.Serve(context.WithoutCancel(ctx), l); err != nil {
				failed <- fmt.Errorf("serve smtp on %s: %w", l.Addr(), err)
			}
		})
	}
	undo.push("smtp", stopSMTP, func(ctx context.Context) error {
		err := d.server.Shutdown(ctx)
		serving.Wait()
		return err
	})
	return nil
}

// listening notes an address for the status.
func (d *Daemon) listening(name, address string) {
	d.log.Info("listening", "for", name, "address", address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners = append(d.listeners, admin.Listener{Name: name, Address: address})
}

// run starts fn in a goroutine that undo ends and waits for. The part does not
// see the end of ctx: it is stopped in its turn. An end before that is a failure.
func (d *Daemon) run(ctx context.Context, undo *stack, failed chan<- error, name string, limit time.Duration, fn func(context.Context) error) {
	pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := fn(pctx)
		if pctx.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			failed <- fmt.Errorf("%s: %w", name, err)
		}
		done <- err
	}()
	undo.push(name, limit, func(ctx context.Context) error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// alive is asked by the watchdog and by /readyz: the spool must still answer, and
// in time. What is asked costs nothing, however long the queue is.
func (d *Daemon) alive(ctx context.Context) error {
	d.spool.Routes()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Reload reads the configuration again and puts in force what can change while
// running. A configuration that does not load leaves the old one in force.
func (d *Daemon) Reload() error {
	d.notify.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicMicroseconds()))
	defer d.notify.tell("READY=1")
	if d.opts.Load == nil {
		return errors.New("reload: no configuration file")
	}
	changed, err := d.opts.Load()
	if err != nil {
		return fmt.Errorf("reload: the old configuration stays in force: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now, later := config.Reload(d.cfg, changed)
	if len(later) > 0 {
		d.log.Warn("changed keys need a restart", "keys", later)
	}
	if err := d.domains.Replace(changed.Domains); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if err := d.people.Reload(changed.SMTP.Recipients); err != nil {
		return fmt.Errorf("reload recipients: %w", err)
	}
	if err := d.front.Reload(changed.SMTP.Policy); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if err := d.reloadPeer(changed); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if d.opts.Level != nil {
		d.opts.Level.Set(logLevel(changed.Log.Level))
	}
	d.cfg.Link.Pins = changed.Link.Pins
	d.cfg.Domains, d.cfg.SMTP.Policy, d.cfg.Log.Level = changed.Domains, changed.SMTP.Policy, changed.Log.Level
	d.cfg.SMTP.Recipients = d.cfg.SMTP.Recipients.Following(changed.SMTP.Recipients)
	d.reloadMode(changed, later)
	d.reloadFailover()
	d.log.Info("configuration read again", "changed", now)
	return nil
}

// isActive is the view's answer for the front and the relay.
func (d *Daemon) isActive() bool { return d.currentView().Role == dnsfailover.Active }
