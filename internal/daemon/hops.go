package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/internal/admin"
	"understudy/internal/config"
	"understudy/smtp/queue"
	"understudy/smtp/relay"
)

// buildRelay makes the relay. Where mail goes is a function of the view: the
// active site delivers locally, the standby hands over to the other site.
func (d *Daemon) buildRelay(cfg config.Config) error {
	var err error
	if d.toPeer, err = config.Hops(cfg.SMTP.Deliver.ToPeer); err != nil {
		return fmt.Errorf("smtp.deliver: %w", err)
	}
	if d.toLocal, err = config.Hops(cfg.SMTP.Deliver.Local); err != nil {
		return fmt.Errorf("smtp.deliver: %w", err)
	}
	d.relay, err = relay.New(cfg.SMTP.Deliver.Relay, relay.Deps{
		Queue: d.spool, Hostname: cfg.SMTP.Hostname, Logger: d.log, Alarms: d.alarms, Registerer: d.registry,
		Hops: d.hopsNow,
	})
	if err != nil {
		return fmt.Errorf("smtp.deliver: %w", err)
	}
	return nil
}

// flushLimit bounds how long a client waits for the answer to ETRN.
const flushLimit = 30 * time.Second

// nextHop names where the view points, for listings.
func (d *Daemon) nextHop() string {
	next, _ := d.hopsNow()
	names := make([]string, len(next))
	for i, h := range next {
		names[i] = h.String()
	}
	return strings.Join(names, ", ")
}

// flushDomain is ETRN: the queued mail for a domain is due now.
func (d *Daemon) flushDomain(domain string) error {
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	_, err := d.spool.Apply(ctx, queue.Flush, queue.Selection{Domain: domain, States: []queue.State{queue.Queued}}, queue.ApplyOptions{Reason: "ETRN"})
	if err != nil {
		return fmt.Errorf("flush %s: %w", domain, err)
	}
	return nil
}

// hops shows the relay to operators.
type hops struct{ r *relay.Relay }

// Hops implements admin.Hops.
func (h hops) Hops(ctx context.Context) ([]admin.Hop, error) {
	list, err := h.r.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the relay: %w", err)
	}
	out := make([]admin.Hop, 0, len(list))
	for _, s := range list {
		out = append(out, admin.Hop{
			Name: s.Hop, State: hopState(s), Reason: s.Reason, Since: s.Since,
			Checked: latest(s.Since, s.LastErrAt), NextProbe: s.NextTry,
			Connections: s.Connections, Limit: s.Limit,
		})
	}
	return out, nil
}

// hopState translates; a hop that has never been used is not known to be up.
func hopState(s relay.HopStatus) admin.HopState {
	switch {
	case s.State == relay.Down.String():
		return admin.HopDown
	case s.State == relay.Paused.String():
		return admin.HopPaused
	case !s.Proven && s.Connections == 0 && s.Delivered == 0:
		return admin.HopUnknown
	default:
		return admin.HopUp
	}
}

// Resume implements admin.Hops: every route that uses the hop is resumed.
func (h hops) Resume(ctx context.Context, name string) error {
	list, err := h.r.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask the relay: %w", err)
	}
	var routes []string
	for _, s := range list {
		if s.Hop == name && !slices.Contains(routes, s.Route) {
			routes = append(routes, s.Route)
		}
	}
	if len(routes) == 0 {
		return admin.NotFound(fmt.Sprintf("next hop in use: %q", name))
	}
	var errs []error
	for _, r := range routes {
		if err := h.r.Resume(ctx, r); err != nil && !errors.Is(err, relay.ErrNoRoute) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
