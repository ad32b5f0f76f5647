package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/fleet"
	"understudy/internal/config"
)

func newMailsyncCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mailsync",
		Short: "Keep the mailboxes of both sites equal",
		Long: `mailsync keeps mailboxes at both sites equal, whichever of them people use. It works
with or without the daemon: "run" is for cron, a timer or a first copy; where the
daemon synchronises all the time, the other commands ask it.`,
		Example: `  understudy mailsync run --all
  understudy mailsync run alice@example.com --dry-run
  understudy mailsync status
  understudy mailsync holds`,
	}
	m := &mailsyncCommand{a: a, link: newAdminLink(a, cmd)}
	cmd.AddCommand(newMailsyncRunCommand(m), newMailsyncStatusCommand(m), newMailsyncVerifyCommand(m), newMailsyncSieveCommand(m),
		newMailsyncHoldsCommand(m), newMailsyncSettleCommand(m, true), newMailsyncSettleCommand(m, false))
	return cmd
}

// mailsyncCommand is what all commands of the group share.
type mailsyncCommand struct {
	a    *app
	link *adminLink
}

// load reads the configuration, which must have the section.
func (m *mailsyncCommand) load() (config.Config, error) {
	cfg, err := config.Load(m.a.configPath, m.a.configOptions())
	if err != nil {
		return cfg, err
	}
	if !cfg.Mailsync.On() {
		return cfg, configError(errors.New("the configuration has no section mailsync"))
	}
	return cfg, nil
}

// opener opens accounts; what it logs goes to w.
func (m *mailsyncCommand) opener(cfg config.Config, w io.Writer, level slog.Level) *fleet.IMAP {
	return cfg.MailsyncOpener(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})))
}

// pick lists the accounts whose names fit patterns; none: all. A pattern that fits
// nobody is a mistake.
func (m *mailsyncCommand) pick(ctx context.Context, cfg config.Config, patterns []string) ([]accounts.Account, error) {
	list, err := accounts.List(ctx, cfg.Mailsync.Accounts, cfg.Sites)
	if err != nil || len(patterns) == 0 {
		return list, err
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(list, func(a accounts.Account) bool { return accounts.Match([]string{p}, a.Name) }) {
			return nil, usageError(fmt.Errorf("no account %s in mailsync.accounts", safe(p)))
		}
	}
	return slices.DeleteFunc(list, func(a accounts.Account) bool { return !accounts.Match(patterns, a.Name) }), nil
}

// base calls use with the base of an account that nobody else has open. Where the
// daemon has it, busy is asked instead.
func (m *mailsyncCommand) base(o *fleet.IMAP, account string, use func(*imapsync.Account) error, busy func() error) error {
	acc, err := o.OpenBase(account)
	if errors.Is(err, imapsync.ErrBusy) {
		return busy()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", safe(account), err)
	}
	return errors.Join(use(acc), acc.Close())
}
