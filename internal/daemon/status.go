package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"understudy/internal/admin"
)

// Status implements admin.Status.
func (d *Daemon) Status(ctx context.Context) (admin.StatusReport, error) {
	stats, err := d.spool.Stats(ctx)
	if err != nil {
		return admin.StatusReport{}, fmt.Errorf("count the queue: %w", err)
	}
	hopList, err := hops{d.relay}.Hops(ctx)
	if err != nil {
		return admin.StatusReport{}, err
	}
	people := d.people.Status()
	view := d.currentView()
	out := admin.StatusReport{
		Version: d.opts.Version, Site: d.cfg.Site,
		Active: string(view.Active), Role: view.Role.String(), Epoch: view.Epoch,
		Started: d.started, PID: os.Getpid(), Stopping: d.stopping.Load(),
		Queue: &stats, Hops: hopList, Sources: sources(people), Parts: d.parts(),
	}
	if d.failover != nil {
		out.Parts["Failover"] = d.failoverLine()
		out.Parts["Twin"] = d.twins.line()
	}
	if line := auditLine(people.Audit); line != "" {
		out.Parts["recipients"] = line
	}
	d.mu.Lock()
	out.Listeners = slices.Clone(d.listeners)
	d.mu.Unlock()
	for _, a := range d.alarms.list() {
		out.Alarms = append(out.Alarms, admin.Alarm(a))
	}
	return out, nil
}

// checks are the conditions of /readyz.
func (d *Daemon) checks() []admin.Check {
	return []admin.Check{
		{Name: "running", Ready: func(context.Context) error {
			if d.stopping.Load() {
				return errors.New("the daemon is stopping")
			}
			return nil
		}},
		{Name: "spool", Ready: d.alive},
		{Name: "space", Ready: func(context.Context) error { return d.spool.Room(0) }},
		{Name: "smtp_listener", Ready: func(context.Context) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			up := 0
			for _, l := range d.listeners {
				if l.Name == "smtp" {
					up++
				}
			}
			if up < len(d.cfg.SMTP.Listen) {
				return errors.New("not listening yet")
			}
			if d.doors.isShut() {
				return errors.New("shut while this active site is sick")
			}
			return nil
		}},
	}
}
