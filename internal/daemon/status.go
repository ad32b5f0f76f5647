package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"understudy/internal/admin"
	"understudy/smtp"
	"understudy/smtp/queue"
	"understudy/smtp/recipients"
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
	out := admin.StatusReport{
		Version: d.opts.Version, Site: d.cfg.Site,
		Active: string(d.view.Active), Role: d.view.Role.String(), Epoch: d.view.Epoch,
		Started: d.started, PID: os.Getpid(), Stopping: d.stopping.Load(),
		Queue: &stats, Hops: hopList, Sources: sources(d.people.Status()), Parts: d.parts(),
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
		{Name: "spool", Ready: func(ctx context.Context) error {
			_, err := d.spool.List(ctx, queue.Selection{Limit: 1})
			return err
		}},
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
			return nil
		}},
	}
}

// directory shows the recipients to operators.
type directory struct {
	d     *recipients.Directory
	front *smtp.Front
}

// Explain implements admin.Recipients.
func (r directory) Explain(ctx context.Context, address string) (admin.RecipientAnswer, error) {
	ex, err := r.d.Explain(ctx, address)
	if err != nil {
		return admin.RecipientAnswer{}, fmt.Errorf("recipient %q: %w", address, err)
	}
	out := admin.RecipientAnswer{
		Address: ex.Address, Disposition: ex.Answer, Reply: r.front.Answer(ctx, address),
		Reason: ex.Reason, Audit: ex.Audit,
	}
	for _, s := range ex.Sources {
		src := admin.RecipientSource{Name: s.Name, Answer: s.Answer, Detail: s.Detail, Loaded: s.AsOf, Stale: !s.Fresh}
		if s.Matched != "" {
			src.Detail = "matched " + s.Matched
		}
		out.Sources = append(out.Sources, src)
	}
	return out, nil
}

// Approve implements admin.Recipients.
func (r directory) Approve(_ context.Context, source string) error { return r.d.Approve(source) }

// sources shows the state of every recipients source.
func sources(st recipients.Status) []admin.RecipientSource {
	out := make([]admin.RecipientSource, 0, len(st.Sources))
	for _, s := range st.Sources {
		src := admin.RecipientSource{Name: s.Name, Entries: s.Entries, Loaded: s.AsOf, Stale: !s.Fresh, Error: s.Error}
		if s.Pending > 0 {
			src.Pending = fmt.Sprintf("%d entries wait for approval: %s", s.Pending, s.Reason)
		}
		out = append(out, src)
	}
	return out
}
