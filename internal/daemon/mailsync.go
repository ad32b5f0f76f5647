package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/fleet"
	"understudy/internal/admin"
	"understudy/internal/config"
)

// stopMailsync is how long passes may take to save what they have done.
const stopMailsync = 20 * time.Second

// mailsync keeps mailboxes equal for as long as the daemon runs.
type mailsync struct {
	cfg    config.Config
	opener *fleet.IMAP
	fleet  *fleet.Fleet // nil: the other site, or cron, synchronises
}

var _ admin.Mailsync = (*mailsync)(nil)

// buildMailsync makes the fleet where this daemon is the one that synchronises.
func (d *Daemon) buildMailsync(cfg config.Config) {
	if !cfg.Mailsync.On() {
		return
	}
	log := d.log.With("part", "mailsync")
	d.mailsync = &mailsync{cfg: cfg, opener: cfg.MailsyncOpener(log)}
	if cfg.Mailsync.Continuous && cfg.Mailsync.RunAt == cfg.Site {
		d.mailsync.fleet = fleet.New(cfg.Mailsync.Fleet, fleet.Deps{
			Opener: d.mailsync.opener, Logger: log, Alarms: d.alarms, Metrics: fleet.NewMetrics(d.registry),
		})
	}
}

// startMailsync starts the fleet.
func (d *Daemon) startMailsync(run func(string, time.Duration, func(context.Context) error)) {
	if d.mailsync == nil || d.mailsync.fleet == nil {
		return
	}
	run("mailbox synchronisation", stopMailsync, func(ctx context.Context) error {
		return d.mailsync.fleet.Run(ctx, d.mailsync.list)
	})
}

// mailsyncAdmin is what operators see of it; nil where there is none.
func (d *Daemon) mailsyncAdmin() admin.Mailsync {
	if d.mailsync == nil {
		return nil
	}
	return d.mailsync
}

// line is mailsync in the daemon's status; "" where there is none.
func (m *mailsync) line() string {
	switch {
	case m == nil:
		return ""
	case m.fleet == nil:
		return "mailsync run does it, or site " + m.cfg.Mailsync.RunAt
	}
	st := m.fleet.Status()
	line := fmt.Sprintf("%d of %d accounts equal", st.Clean, st.Accounts)
	if st.Holds > 0 {
		line += fmt.Sprintf(", %d held deletions wait for you (mailsync holds)", st.Holds)
	}
	if n := len(st.Stale); n > 0 {
		line += fmt.Sprintf(", %d BEHIND, %s for %v", n, st.Stale[0].Account, st.Stale[0].Age.Round(time.Second))
	}
	return line
}

func (m *mailsync) list(ctx context.Context) ([]accounts.Account, error) {
	return accounts.List(ctx, m.cfg.Mailsync.Accounts, m.cfg.Sites)
}

// MailsyncStatus implements admin.Mailsync.
func (m *mailsync) MailsyncStatus(context.Context) (admin.MailsyncStatus, error) {
	if m.fleet == nil {
		return admin.MailsyncStatus{}, nil
	}
	st := m.fleet.Status()
	out := admin.MailsyncStatus{Running: true, Accounts: st.Accounts, Clean: st.Clean, Holds: st.Holds, Oldest: st.Oldest}
	for _, s := range st.Stale {
		out.Stale = append(out.Stale, admin.MailsyncLate{Account: s.Account, Age: s.Age, Reason: s.Reason})
	}
	return out, nil
}

// MailsyncAccount implements admin.Mailsync.
func (m *mailsync) MailsyncAccount(ctx context.Context, account string) (imapsync.Status, error) {
	var st imapsync.Status
	err := m.with(ctx, account, func(a fleet.Account) (bool, error) {
		var err error
		st, err = a.Status()
		return false, err
	})
	return st, err
}

// SettleHolds implements admin.Mailsync.
func (m *mailsync) SettleHolds(ctx context.Context, account, id string, approve bool) error {
	return m.with(ctx, account, func(a fleet.Account) (bool, error) {
		if approve {
			return true, a.Approve(id)
		}
		return true, a.Reject(id)
	})
}

func (m *mailsync) with(ctx context.Context, account string, use func(fleet.Account) (bool, error)) error {
	if m.fleet == nil {
		return admin.Conflict("this daemon does not synchronise mailboxes (mailsync.continuous, mailsync.run_at)")
	}
	err := m.fleet.With(ctx, account, use)
	if errors.Is(err, fleet.ErrUnknown) {
		return admin.NotFound("account " + account)
	}
	return err
}
