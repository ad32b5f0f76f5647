package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"understudy/dnsfailover"
	"understudy/internal/admin"
)

func newSwitchoverCommand(a *app) *cobra.Command {
	var to, domain string
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "switchover --to SITE [--yes]",
		Short: "Hand the active role over to the other site, as planned",
		Long: `switchover shows what it would change, and does it with --yes: the active site
stops what only it does, and hands over the role and the records in one step. It is
refused, each reason named, unless the other site is ready, its probes have been good,
nothing is backlogged and both configurations agree. --force with --domain leaves out
those reasons, never what keeps two sites from being active.`,
		Example: `  understudy switchover --to b
  understudy switchover --to b --yes`,
		Args: cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case to == "":
			return usageError(errors.New("say where: --to SITE"))
		case force && domain == "":
			return usageError(errors.New("with --force, type one of the mail domains with --domain"))
		case !yes:
			return l.showPlan(cmd, to, false)
		}
		return l.order(cmd, dnsfailover.OrderQuestion{
			Command: dnsfailover.SwitchOver, To: dnsfailover.Site(to), Force: force, Domain: domain,
		}, "done")
	}
	cmd.Flags().StringVar(&to, "to", "", "the `site` that becomes active")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it, not only show it")
	cmd.Flags().BoolVar(&force, "force", false, "although the other site is behind or was not good for long")
	cmd.Flags().StringVar(&domain, "domain", "", "with --force, one of the mail `domain`s, typed")
	return cmd
}

func newPlanCommand(a *app) *cobra.Command {
	var to string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "plan [--to SITE] [--yes]",
		Short: "Show what the managed records are and what they should be",
		Long: `plan reads the managed records at their authority and shows what making a site's
values public changes: the active site's, or with --to another's. With --yes the active
site makes its own values public, as after the first installation or a new record.
What nobody here wrote is never changed: see adopt.`,
		Args: cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !yes {
			return l.showPlan(cmd, to, asJSON)
		}
		if to != "" {
			return usageError(errors.New("--to with --yes is switchover"))
		}
		return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
			res, err := c.FailoverRecords(ctx, false)
			if err != nil {
				return err
			}
			for _, ch := range res.Changed {
				a.printf("%s\n", safe(ch.String()))
			}
			a.printf("%s changed\n", plural(len(res.Changed), "record"))
			return nil
		})
	}
	cmd.Flags().StringVar(&to, "to", "", "the `site` to plan for")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "make the active site's values public")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// showPlan prints a plan. Records that forbid it are an error.
func (l *adminLink) showPlan(cmd *cobra.Command, to string, asJSON bool) error {
	return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
		p, err := c.FailoverPlan(ctx, to)
		if err != nil {
			return err
		}
		if asJSON {
			return l.a.printDaemonJSON(p)
		}
		l.a.field("Active", fmt.Sprintf("%s (now epoch %d)", p.Active, p.Epoch))
		l.a.printSteps(p.Steps)
		changes, foreign := dnsfailover.Changes(p.Steps)
		if p.Error != "" {
			return errors.New("not everything could be read: " + safe(p.Error))
		}
		if len(foreign) > 0 {
			return fmt.Errorf("%s nobody here wrote: nothing moves by itself until adopt", plural(len(foreign), "record"))
		}
		l.a.printf("%s; nothing was changed (--yes does it)\n", plural(len(changes), "change"))
		return nil
	})
}

func newPauseCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Keep both sites from moving the role by themselves, until resume",
		Args:  cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return l.order(cmd, dnsfailover.OrderQuestion{Command: dnsfailover.Pause}, "paused")
	}
	return cmd
}

func newResumeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Allow automatic moves again",
		Args:  cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return l.order(cmd, dnsfailover.OrderQuestion{Command: dnsfailover.Resume}, "resumed")
	}
	return cmd
}

func newMaintenanceCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:       "maintenance on|off",
		Short:     "Take this site out: an active one hands over first, and it does not claim until off",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off"},
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := dnsfailover.OrderQuestion{Command: dnsfailover.MaintenanceOff}
		if args[0] == "on" {
			q.Command = dnsfailover.MaintenanceOn
		}
		return l.order(cmd, q, "maintenance is "+args[0])
	}
	return cmd
}

func newHistoryCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what both sites did and decided about who is active",
		Args:  cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
			h, err := c.FailoverHistory(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printDaemonJSON(h)
			}
			for _, e := range h.Entries {
				a.printf("%s  %s  %s: %s\n", stamp(e.At), safe(string(e.Site)), safe(e.Kind), safe(e.Text))
			}
			a.printf("register: %s\n", safe(h.Register))
			if h.Missing != "" {
				return errors.New(safe(h.Missing))
			}
			return nil
		})
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newDrillCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drill --yes",
		Short: "Switch over to the other site and back, and time it",
		Args:  cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !yes {
			return usageError(errors.New("a drill moves the role twice: say --yes"))
		}
		return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
			d, err := c.FailoverDrill(ctx)
			if err != nil {
				return err
			}
			for _, s := range d.Steps {
				a.printf("%-28s %s\n", safe(s.Name), s.Took.Round(1e6))
			}
			if d.Error != "" {
				return errors.New(safe(d.Error))
			}
			return nil
		})
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it")
	return cmd
}

func newAdoptCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "adopt [--yes]",
		Short: "Allow records that somebody else changed to be replaced again",
		Long: `adopt shows the managed records that hold what nobody here wrote, and with --yes
declares their present values to be ours to replace. Nothing is changed by it: plan
shows what would be. Automatic moves are possible again.`,
		Args: cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !yes {
			return l.showPlan(cmd, "", false)
		}
		return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
			res, err := c.FailoverRecords(ctx, true)
			if err != nil {
				return err
			}
			a.printf("%s adopted\n", plural(len(res.Adopted), "record"))
			return nil
		})
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it")
	return cmd
}
