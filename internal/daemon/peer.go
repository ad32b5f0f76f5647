package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"understudy/internal/admin"
	"understudy/internal/bans"
	"understudy/internal/config"
	"understudy/internal/peer"
)

// stopPeer bounds the end of the link: its connections are closed at once.
const stopPeer = 3 * time.Second

// callBans bounds one exchange of bans; retryBans is the pause after one that failed.
const (
	callBans  = 10 * time.Second
	retryBans = 30 * time.Second
)

// methodBans exchanges the lists: each site sends all it has, and gets all the
// other one has.
const methodBans = "bans.merge"

// buildPeer makes the link with the other site, where there is one, and the list
// of bans, which works without.
func (d *Daemon) buildPeer(cfg config.Config) error {
	var err error
	d.bansChanged = make(chan struct{}, 1)
	d.bans, err = bans.Open(filepath.Join(cfg.DataDir, "bans.json"), bans.Deps{
		Site: cfg.Site, Registerer: d.registry, Changed: d.passBansOn,
	})
	if err != nil {
		return err
	}
	if !cfg.Link.On() {
		return nil
	}
	key, err := peer.LoadKey(cfg.Link.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("peer: this site has no key yet; run understudy peer init (%w)", err)
	}
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	d.link, err = peer.New(cfg.Link, peer.Deps{
		Site: cfg.Site, PeerSite: cfg.Peer(), Version: d.opts.Version, Key: key,
		Logger: d.log, Registerer: d.registry, Alarms: d.alarms,
	})
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	d.link.SetConfig(config.Summary(cfg))
	peer.HandleJSON(d.link, methodBans, d.mergeBans)
	d.link.OnChange(func(up bool) {
		if up {
			d.passBansOn()
		}
	})
	return nil
}

// startPeer listens for the other site and keeps the link.
func (d *Daemon) startPeer(ctx context.Context, run func(string, time.Duration, func(context.Context) error)) error {
	if d.link == nil {
		return nil
	}
	if err := d.link.Listen(ctx); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	for _, a := range d.link.Addrs() {
		d.listening("peer", a.String())
	}
	run("peer link", stopPeer, d.link.Run)
	run("bans", stopPeer, d.exchangeBans)
	return nil
}

// reloadPeer puts changed pins in force, and tells the other site what this one is
// configured to be now.
func (d *Daemon) reloadPeer(cfg config.Config) error {
	if d.link == nil {
		return nil
	}
	if err := d.link.SetPins(cfg.Link.Pins); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	d.link.SetConfig(config.Summary(cfg))
	return nil
}

// passBansOn asks for an exchange; it does not block.
func (d *Daemon) passBansOn() {
	select {
	case d.bansChanged <- struct{}{}:
	default:
	}
}

// mergeBans answers the other site's list with this one's.
func (d *Daemon) mergeBans(_ context.Context, theirs []bans.Entry) ([]bans.Entry, error) {
	if _, err := d.bans.Merge(theirs); err != nil {
		return nil, err
	}
	return d.bans.All(), nil
}

// exchangeBans passes changes on, and tries again while that fails.
func (d *Daemon) exchangeBans(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.bansChanged:
		case <-again:
		}
		again = nil
		if !d.link.Up() {
			continue // OnChange asks again
		}
		cctx, cancel := context.WithTimeout(ctx, callBans)
		var theirs []bans.Entry
		err := d.link.Call(cctx, methodBans, d.bans.All(), &theirs)
		cancel()
		if err == nil {
			_, err = d.bans.Merge(theirs)
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("bans not exchanged with the other site", "err", err)
			again = time.After(retryBans)
		}
	}
}

// peerLine is what the status says about the link.
func (d *Daemon) peerLine() string {
	s := d.link.Status()
	if !s.Up {
		text := "site " + s.Site + " is not heard"
		if !s.Heard.IsZero() {
			text += " since " + s.Heard.UTC().Format(time.RFC3339)
		}
		if s.Fault != "" {
			text += ": " + s.Fault
		}
		return text
	}
	text := fmt.Sprintf("site %s, %s, round trip %s, clock %s", s.Site, s.Program, s.RTT.Round(10*time.Microsecond), ahead(s.ClockOffset))
	if len(s.Differing) > 0 {
		text += "; CONFIGURED DIFFERENTLY: " + strings.Join(s.Differing, ", ")
	}
	if p, ok := s.Pools[peer.Tunnel]; ok {
		text += fmt.Sprintf("; %d of %d connections warm", p.Idle, p.Target)
	}
	return text
}

// ahead says how two clocks differ.
func ahead(offset time.Duration) string {
	switch r := offset.Round(time.Millisecond); {
	case r > 0:
		return r.String() + " ahead"
	case r < 0:
		return (-r).String() + " behind"
	}
	return "equal"
}

// Ban implements admin.Bans.
func (d *Daemon) Ban(_ context.Context, p netip.Prefix, length time.Duration, reason string) error {
	if err := d.bans.Ban(p, length, reason); err != nil {
		return banError(err)
	}
	d.log.Info("network banned", "network", p.String(), "for", length, "reason", reason)
	return nil
}

// Unban implements admin.Bans.
func (d *Daemon) Unban(_ context.Context, p netip.Prefix) error {
	if err := d.bans.Unban(p); err != nil {
		return banError(err)
	}
	d.log.Info("ban lifted", "network", p.String())
	return nil
}

// Bans implements admin.Bans.
func (d *Daemon) Bans(context.Context) ([]bans.Entry, error) { return d.bans.List(), nil }

// banError is what an operator may have done wrong, or the error itself.
func banError(err error) error {
	if errors.Is(err, bans.ErrTooWide) || errors.Is(err, bans.ErrNotBanned) || errors.Is(err, bans.ErrFull) {
		return admin.Conflict(err.Error())
	}
	return err
}
