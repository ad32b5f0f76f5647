package daemon

import (
	"context"
	"fmt"
	"net"
	"time"

	"understudy/internal/config"
	"understudy/smtp/recipients/postfix"
)

// buildPostfix makes the answers for a Postfix that keeps port 25 for itself:
// the same domains, recipients and route that our own front uses.
func (d *Daemon) buildPostfix(cfg config.Config) error {
	var err error
	d.postfix, err = postfix.NewServer(cfg.SMTP.Postfix, postfix.Deps{
		Domains: d.domains, Recipients: d.people, Logger: d.log, Registerer: d.registry,
		Route: func(context.Context, string) (string, error) {
			next, _ := d.hopsNow()
			if len(next) == 0 {
				return "", nil
			}
			return next[0].String(), nil
		},
	})
	if err != nil {
		return fmt.Errorf("smtp.postfix: %w", err)
	}
	return nil
}

// startPostfix listens where Postfix asks.
func (d *Daemon) startPostfix(ctx context.Context, run func(string, time.Duration, func(context.Context) error)) error {
	for _, part := range []struct {
		name  string
		list  []string
		serve func(context.Context, net.Listener) error
	}{
		{"socketmap", d.cfg.SMTP.Postfix.Socketmap, d.postfix.ServeSocketmap},
		{"policy", d.cfg.SMTP.Postfix.Policy, d.postfix.ServePolicy},
	} {
		for _, address := range part.list {
			l, err := postfix.Listen(ctx, address)
			if err != nil {
				return fmt.Errorf("listen for postfix: %w", err)
			}
			d.listening(part.name, l.Addr().String())
			run(part.name, stopRecipients, func(ctx context.Context) error { return part.serve(ctx, l) })
		}
	}
	return nil
}
