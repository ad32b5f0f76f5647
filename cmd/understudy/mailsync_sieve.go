package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"understudy/imapsync"
	"understudy/imapsync/accounts"
	"understudy/imapsync/sieve"
	"understudy/internal/config"
)

// sieveResult is one account of "mailsync sieve".
type sieveResult struct {
	Account string `json:"account"`
	Error   string `json:"error,omitempty"`
	sieve.Report
}

func newMailsyncSieveCommand(m *mailsyncCommand) *cobra.Command {
	var all, dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "sieve [ACCOUNT...]",
		Short: "Make the Sieve scripts of both sites equal",
		Long: `sieve copies Sieve scripts over ManageSieve: what changed at one site since the last
run goes to the other, and so does which script is active. Where both changed the
same script, the primary's keeps the name and the other one is kept beside it.
It prints only what was changed. Exit code 1: something failed or was refused.`,
		Example: `  understudy mailsync sieve --all
  understudy mailsync sieve alice@example.com --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) != all {
				return usageError(errors.New("name accounts, or give --all"))
			}
			cfg, err := m.load()
			if err != nil {
				return err
			}
			for _, site := range cfg.Sites {
				if cfg.Mailsync.Sites[site].Sieve == "" {
					return configError(fmt.Errorf("mailsync.sites.%s.sieve is not configured", site))
				}
			}
			list, err := m.pick(cmd.Context(), cfg, args)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(cfg.MailsyncDir(), 0o700); err != nil {
				return err
			}
			results := []sieveResult{}
			bad := 0
			for _, a := range list {
				report, err := syncScripts(cmd.Context(), cfg, a, dryRun)
				r := sieveResult{Account: a.Name, Error: errorText(err), Report: report}
				results = append(results, r)
				if err != nil || len(report.Refused) > 0 {
					bad++
				}
				if !asJSON {
					m.printScripts(&r)
				}
			}
			if asJSON {
				if err := m.a.printJSON(results); err != nil {
					return err
				}
			}
			if bad > 0 {
				return fmt.Errorf("the scripts of %d of %s are not equal", bad, count(len(list), "account"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all accounts")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, change nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (m *mailsyncCommand) printScripts(r *sieveResult) {
	name := safe(r.Account)
	for _, c := range r.Changes {
		m.a.printf("%s: %s\n", name, safe(c))
	}
	for _, c := range r.Conflicts {
		m.a.warnf("%s: changed at both sites, the other one is kept as %s\n", name, safe(c))
	}
	for _, c := range r.Refused {
		m.a.warnf("%s: refused at %s\n", name, safe(c))
	}
	if r.Error != "" {
		m.a.warnf("%s: %s\n", name, safe(r.Error))
	}
}

// syncScripts makes the scripts of one account equal.
func syncScripts(ctx context.Context, cfg config.Config, a accounts.Account, dryRun bool) (sieve.Report, error) {
	var clients [2]*sieve.Client
	defer func() {
		for _, c := range clients {
			if c != nil {
				_ = c.Close() // what matters was answered
			}
		}
	}()
	opt := sieve.Options{DryRun: dryRun}
	group, gctx := errgroup.WithContext(ctx)
	for i, name := range cfg.Sites {
		if name == cfg.Primary {
			opt.Prefer = imapsync.Side(i)
		}
		group.Go(func() error {
			site := cfg.Mailsync.Sites[name]
			login, err := cfg.Mailsync.AuthAt(name).For(a.At[name])
			if err != nil {
				return err
			}
			if clients[i], err = sieve.Dial(gctx, site.Sieve, site.Server, login); err != nil {
				return fmt.Errorf("site %s: %w", name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return sieve.Report{}, err
	}
	base := filepath.Join(cfg.MailsyncDir(), url.PathEscape(a.Name)+".sieve.json")
	return sieve.Sync(ctx, sieve.Pair{A: clients[imapsync.A], B: clients[imapsync.B]}, base, opt)
}
