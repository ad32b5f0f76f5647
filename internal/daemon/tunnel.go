package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"understudy/dnsfailover/tunnel"
	"understudy/internal/config"
)

// buildTunnel makes the services that either site serves.
func (d *Daemon) buildTunnel(cfg config.Config) error {
	if !cfg.Tunnel.On() {
		return nil
	}
	var err error
	d.tunnel, err = tunnel.New(cfg.Tunnel, tunnel.Deps{
		Site: cfg.Site, View: d.feed.Load, Link: d.link, Banned: d.bans.Banned, Listen: d.doors.Listen,
		Logger: d.log, Registerer: d.registry,
	})
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	return nil
}

// startTunnel listens for clients, after the link is there to carry them.
func (d *Daemon) startTunnel(ctx context.Context, run func(string, time.Duration, func(context.Context) error)) error {
	if d.tunnel == nil {
		return nil
	}
	if err := d.tunnel.Listen(ctx); err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	addrs := d.tunnel.Addrs()
	for _, name := range slices.Sorted(maps.Keys(addrs)) {
		for _, a := range addrs[name] {
			d.listening(name, a.String())
		}
	}
	run("tunnel", d.cfg.Tunnel.StopDrain+5*time.Second, d.tunnel.Run)
	run("tunnel view", stopPeer, func(ctx context.Context) error {
		for {
			_, changed := d.feed.Changed()
			d.tunnel.ViewChanged()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
		}
	})
	return nil
}

// tunnelLine is what the status says about the services.
func (d *Daemon) tunnelLine() string {
	var parts []string
	for _, s := range d.tunnel.Status() {
		n := 0
		for _, k := range s.Connections {
			n += k
		}
		text := fmt.Sprintf("%s %s, %d open", s.Name, s.Way, n)
		if s.Draining > 0 {
			text += fmt.Sprintf(" (%d end soon)", s.Draining)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}
