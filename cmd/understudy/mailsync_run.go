package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/fleet"
	"understudy/internal/config"
)

// mailsyncRun is "mailsync run".
type mailsyncRun struct {
	*mailsyncCommand
	all, once, watch, dryRun, full, asJSON, quiet, verbose bool
	workers                                                int
	folders                                                []string
	maxAge                                                 time.Duration
}

func newMailsyncRunCommand(m *mailsyncCommand) *cobra.Command {
	r := &mailsyncRun{mailsyncCommand: m}
	cmd := &cobra.Command{
		Use:   "run [ACCOUNT...]",
		Short: "Synchronise accounts now",
		Long: `run makes both sites equal for the named accounts (patterns as *@example.com are
allowed) or, with --all, for all of them: once, or with --watch until it is
interrupted.

It prints a line only for accounts in which something changed or went wrong, so
that cron has something to send only then. An account that another runner has in
hand is left to it. Large deletions are held: see "mailsync holds".

Exit codes: 0 all are equal; 1 something failed, is held or could not be done;
2 the command line or the configuration is wrong.`,
		Example: `  understudy mailsync run --all -j 16
  understudy mailsync run alice@example.com --dry-run
  understudy mailsync run '*@example.com' --folder INBOX --folder 'Archive/**'
  understudy mailsync run --all --max-age 2h`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&r.all, "all", false, "all accounts")
	fl.IntVarP(&r.workers, "jobs", "j", 0, "accounts at the same `time` (default: mailsync.workers)")
	fl.StringArrayVar(&r.folders, "folder", nil, "only folders that fit this `pattern`; * within a level, ** across")
	fl.BoolVar(&r.once, "once", false, "one pass (the default)")
	fl.BoolVar(&r.watch, "watch", false, "go on until interrupted")
	fl.BoolVar(&r.dryRun, "dry-run", false, "print what would be done, change nothing")
	fl.BoolVar(&r.full, "full", false, "read every folder whole instead of what changed")
	fl.DurationVar(&r.maxAge, "max-age", 0, "fail where an account has not been equal for this `long`")
	fl.BoolVar(&r.asJSON, "json", false, "print an event a line as JSON")
	fl.BoolVarP(&r.quiet, "quiet", "q", false, "print only what went wrong")
	fl.BoolVarP(&r.verbose, "verbose", "v", false, "print every account, and what the servers are asked")
	cmd.MarkFlagsMutuallyExclusive("once", "watch")
	cmd.MarkFlagsMutuallyExclusive("watch", "dry-run")
	cmd.MarkFlagsMutuallyExclusive("quiet", "verbose")
	return cmd
}

func (r *mailsyncRun) run(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 && !r.all:
		return usageError(errors.New("name accounts, or give --all"))
	case len(args) > 0 && r.all:
		return usageError(errors.New("--all and named accounts exclude each other"))
	case r.workers < 0 || r.maxAge < 0:
		return usageError(errors.New("--jobs and --max-age must not be negative"))
	}
	cfg, err := r.load()
	if err != nil {
		return err
	}
	if r.workers > 0 {
		cfg.Mailsync.Fleet.Workers = r.workers
	}
	level := slog.LevelWarn
	if r.verbose {
		level = slog.LevelDebug
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if r.watch {
		return r.follow(ctx, cfg, args)
	}
	list, err := r.pick(ctx, cfg, args)
	if err != nil {
		return err
	}
	view := newMailsyncView(r, len(list))
	o := r.opener(cfg, view.log(), level)
	f := fleet.New(cfg.Mailsync.Fleet, fleet.Deps{Opener: o})
	opt := imapsync.PassOptions{DryRun: r.dryRun, Folders: r.folders, Full: r.full}
	sum := f.Once(ctx, list, opt, view.watcher())
	view.end(sum)
	return errors.Join(r.verdict(sum), r.checkAge(o, list))
}

// verdict is the exit code of a sweep.
func (r *mailsyncRun) verdict(sum fleet.Summary) error {
	if sum.Failed == 0 && (sum.Faulty == 0 || r.dryRun) {
		return nil
	}
	var parts []string
	if sum.Failed > 0 {
		parts = append(parts, count(sum.Failed, "account")+" failed")
	}
	if sum.Faulty > 0 {
		parts = append(parts, fmt.Sprintf("%s not equal (%d with held deletions)", count(sum.Faulty, "account"), sum.Held))
	}
	return errors.New(strings.Join(parts, ", "))
}

// checkAge is --max-age: who has not been equal for too long, by the bases.
func (r *mailsyncRun) checkAge(o *fleet.IMAP, list []accounts.Account) error {
	if r.maxAge == 0 {
		return nil
	}
	late := 0
	for _, a := range list {
		err := r.base(o, a.Name, func(acc *imapsync.Account) error {
			st, err := acc.Status()
			if err != nil {
				return err
			}
			if age := time.Since(st.LastClean); st.LastClean.IsZero() || age > r.maxAge {
				late++
				since := "never"
				if !st.LastClean.IsZero() {
					since = "last " + stamp(st.LastClean)
				}
				r.a.warnf("%s: has not been equal for more than %v (%s)\n", safe(a.Name), r.maxAge, since)
			}
			return nil
		}, func() error { return nil }) // whoever has it in hand watches it
		if err != nil {
			return err
		}
	}
	if late > 0 {
		return fmt.Errorf("%s behind by more than %v", count(late, "account"), r.maxAge)
	}
	return nil
}

// follow is --watch.
func (r *mailsyncRun) follow(ctx context.Context, cfg config.Config, patterns []string) error {
	level := slog.LevelInfo
	switch {
	case r.quiet:
		level = slog.LevelWarn
	case r.verbose:
		level = slog.LevelDebug
	}
	var handler slog.Handler = slog.NewTextHandler(r.a.Out, &slog.HandlerOptions{Level: level})
	if r.asJSON {
		handler = slog.NewJSONHandler(r.a.Out, &slog.HandlerOptions{Level: level})
	}
	log := slog.New(handler)
	f := fleet.New(cfg.Mailsync.Fleet, fleet.Deps{Opener: cfg.MailsyncOpener(log), Logger: log})
	return f.Run(ctx, func(ctx context.Context) ([]accounts.Account, error) { return r.pick(ctx, cfg, patterns) })
}
