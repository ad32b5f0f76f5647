package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/dnsfailover"
	"understudy/dnsfailover/hosted"
	"understudy/dnsfailover/probe"
	"understudy/dnsfailover/rfc2136"
	"understudy/dnsfailover/witness"
	"understudy/internal/config"
	"understudy/internal/hooks"
	"understudy/internal/peer"
	"understudy/smtp/queue"
	"understudy/smtp/relay"
)

// stopFailover bounds the end of the decision: a request to the register, and a
// hook that is running.
const stopFailover = 15 * time.Second

// actorLimit bounds what one part does about a change of role.
const actorLimit = 10 * time.Second

// buildFailover makes the controller where there is a failover; its feed becomes
// everybody's view.
func (d *Daemon) buildFailover(cfg config.Config) error {
	if !cfg.Failover.On() {
		return nil
	}
	if d.link == nil {
		return errors.New("failover: needs the link to the other site")
	}
	sites := [2]dnsfailover.Site{dnsfailover.Site(cfg.Sites[0]), dnsfailover.Site(cfg.Sites[1])}
	deps := dnsfailover.Deps{
		Site: dnsfailover.Site(cfg.Site), Sites: sites, Primary: dnsfailover.Site(cfg.Primary),
		Hash: peer.Hash(config.Summary(cfg)), Dir: filepath.Join(cfg.DataDir, "failover"),
		Peer: d.link, Gates: d.gates, Logger: d.log, Alarms: d.alarms, Registerer: d.registry,
		Actors: []dnsfailover.Actor{{Name: "redis", Limit: actorLimit, Do: d.moveRedis}},
		Hook:   hookRunner(cfg.Failover.HooksSocket),
	}
	if err := d.buildRegister(cfg, &deps); err != nil {
		return fmt.Errorf("failover: %w", err)
	}
	if err := buildProbers(cfg, &deps); err != nil {
		return fmt.Errorf("failover.probes: %w", err)
	}
	if err := d.buildTwin(cfg); err != nil {
		return fmt.Errorf("failover: %w", err)
	}
	var err error
	if d.failover, err = dnsfailover.NewController(cfg.Failover.Decide, deps); err != nil {
		return fmt.Errorf("failover: %w", err)
	}
	d.feed = d.failover.Feed()
	d.view = d.feed.Load()
	for _, method := range dnsfailover.Methods() {
		d.link.Handle(method, func(ctx context.Context, params json.RawMessage) (any, error) {
			return dnsfailover.Serve(ctx, d.failover, method, params)
		})
	}
	return nil
}

// buildRegister makes the arbiter and who changes records elsewhere.
func (d *Daemon) buildRegister(cfg config.Config, deps *dnsfailover.Deps) error {
	f := cfg.Failover
	if f.Register.Kind == config.RegisterWitness {
		key, err := peer.LoadKey(cfg.Link.KeyFile)
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		client, err := witness.New(f.WitnessClient(), key)
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		deps.Arbiter = client
	} else {
		arb, err := rfc2136.New(f.RFC2136(), rfc2136.Deps{})
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		deps.Arbiter, deps.RegisterZone = arb, dnsfailover.CanonicalName(f.Register.Zone)
	}
	for _, z := range f.Zones {
		p, err := rfc2136.NewPublisher(z, rfc2136.Deps{})
		if err != nil {
			return fmt.Errorf("zone %s: %w", z.Zone, err)
		}
		deps.Zones = append(deps.Zones, dnsfailover.Zone{Name: dnsfailover.CanonicalName(z.Zone), Publisher: p})
	}
	for _, z := range f.Hosted {
		p, err := hosted.New(z)
		if err != nil {
			return fmt.Errorf("zone %s: %w", z.Zone, err)
		}
		deps.Zones = append(deps.Zones, dnsfailover.Zone{Name: dnsfailover.CanonicalName(z.Zone), Publisher: p})
	}
	return nil
}

// buildProbers makes what says that a site works, where something does.
func buildProbers(cfg config.Config, deps *dnsfailover.Deps) error {
	list := cfg.Failover.Probes
	if own := probe.About(list, cfg.Site, cfg.Site); len(own) > 0 {
		set, err := probe.New(own)
		if err != nil {
			return err
		}
		deps.Self = set
	}
	if others := probe.About(list, cfg.Site, cfg.Peer()); len(others) > 0 {
		set, err := probe.New(others)
		if err != nil {
			return err
		}
		deps.Public = set
	}
	return nil
}

// hookRunner asks the root unit to run a hook.
func hookRunner(socket string) func(context.Context, string, map[string]string, time.Duration) error {
	return func(ctx context.Context, name string, env map[string]string, limit time.Duration) error {
		res, err := hooks.Call(ctx, socket, hooks.Request{Name: name, Env: env, Timeout: limit})
		if err != nil {
			return err
		}
		if res.ExitCode != 0 {
			return fmt.Errorf("exit code %d: %s", res.ExitCode, lastLine(res.Output))
		}
		return nil
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// startFailover lets the controller decide, and tells it how the link is.
func (d *Daemon) startFailover(run func(string, time.Duration, func(context.Context) error)) {
	if d.failover == nil {
		return
	}
	changes := make(chan struct{}, 1)
	d.link.OnChange(func(bool) {
		select {
		case changes <- struct{}{}:
		default:
		}
	})
	run("twin check", stopPeer, d.twins.run(d.cfg.Failover.Twin.Interval, d.link.Up))
	run("failover", stopFailover, d.failover.Run)
	run("failover link", stopPeer, func(ctx context.Context) error {
		for {
			d.failover.LinkChanged(ctx, d.link.Up())
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changes:
			}
		}
	})
}

// reloadMode takes over a changed mode. One that comes together with changes which
// need a restart waits for it: automatic without the probes it was written with
// would be another configuration than the one that was checked. So does observe: a
// site that leaves it has no permit yet, and would be fenced for a moment.
func (d *Daemon) reloadMode(changed config.Config, later []string) {
	mode := changed.Failover.Decide.Mode
	old := d.cfg.Failover.Decide.Mode
	if d.failover == nil || mode == old {
		return
	}
	needs := func(key string) bool {
		return strings.HasPrefix(key, "failover.") || strings.HasPrefix(key, "smtp.deliver.") || strings.HasPrefix(key, "peer.")
	}
	if mode == "" || mode == dnsfailover.Observe || old == dnsfailover.Observe || slices.ContainsFunc(later, needs) {
		d.log.Warn("the mode of failover changes after a restart only: it is or was observe, or other keys changed with it", "mode", string(mode))
		return
	}
	d.log.Info("mode of failover changed", "mode", string(mode))
	d.cfg.Failover.Decide.Mode = mode
}

// reloadFailover tells the decision the hash of what is in force now: with the old
// one it would differ from a site that was started with the same configuration.
func (d *Daemon) reloadFailover() {
	if d.failover == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	d.failover.Configure(ctx, d.cfg.Failover.Decide.Mode, peer.Hash(config.Summary(d.cfg)))
}

// currentView is who is active now.
func (d *Daemon) currentView() dnsfailover.View { return d.feed.Load() }

// hopsNow is where accepted mail goes now: the active site delivers locally, the
// standby hands over to the other one, and a fenced site delivers locally too,
// for mailboxes merge. Who has not learned yet who is active keeps the mail.
func (d *Daemon) hopsNow() ([]relay.Hop, <-chan struct{}) {
	v, changed := d.feed.Changed()
	switch {
	case v.Role == dnsfailover.Standby:
		return d.toPeer, changed
	case v.Role == dnsfailover.Fenced && v.Active == "":
		return nil, changed
	}
	return d.toLocal, changed
}

// moveRedis makes the active site's Redis the home of what both filters remember.
// A fenced site leaves it where it is.
func (d *Daemon) moveRedis(_ context.Context, v dnsfailover.View) error {
	if d.spam == nil || d.spam.replica == nil || v.Role == dnsfailover.Fenced {
		return nil
	}
	d.spam.replica.SetHome(d.homeHere(v))
	return nil
}

// maxBacklog is how many waiting messages a switchover may leave behind.
const maxBacklog = 50

// gates are the reasons against handing the role over now.
func (d *Daemon) gates(ctx context.Context) []string {
	var out []string
	if s := d.link.Status(); len(s.Differing) > 0 {
		out = append(out, "the configurations differ: "+strings.Join(s.Differing, ", "))
	}
	out = append(out, d.twins.gates(ctx)...)
	stats, err := d.spool.Stats(ctx)
	if err != nil {
		out = append(out, fmt.Sprintf("the queue cannot be counted: %v", err))
	} else if n := stats.States[queue.Queued].Messages; n > maxBacklog {
		out = append(out, fmt.Sprintf("%d messages wait in the queue of %s, more than %d", n, d.cfg.Site, maxBacklog))
	}
	if d.spam != nil && d.spam.replica != nil {
		if s := d.spam.replica.Status(); s.Failure != "" {
			out = append(out, "the filters' shared state does not replicate: "+s.Failure)
		}
	}
	return out
}

// failoverLine is what the status says about it.
func (d *Daemon) failoverLine() string {
	s := d.failover.Snapshot()
	text := fmt.Sprintf("mode %s, %s, epoch %d", s.Mode, s.Role, s.Epoch)
	if s.PermitLeft > 0 {
		text += fmt.Sprintf(", permit for %s", s.PermitLeft.Round(time.Second))
	}
	if s.Silent != "" {
		text += "; register: " + s.Silent
	}
	if s.Paused {
		text += "; PAUSED"
	}
	if s.Maintenance {
		text += "; in maintenance"
	}
	if s.Foreign != "" {
		text += "; FOREIGN RECORD: " + s.Foreign
	}
	if s.HandingOver != "" {
		text += "; handing over " + s.HandingOver
	}
	if s.Claiming {
		text += fmt.Sprintf("; claiming, takes the role in %s", s.TakeIn.Round(time.Second))
	}
	return text
}
