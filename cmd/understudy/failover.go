package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/dnsfailover"
	"understudy/internal/admin"
)

// withDaemon runs do with a client of the daemon, and explains its error.
func (l *adminLink) withDaemon(cmd *cobra.Command, do func(context.Context, *admin.Client) error) error {
	c, err := l.client(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := do(cmd.Context(), c); err != nil {
		return l.explain(c, err)
	}
	return nil
}

// order gives the daemon a command and says what came of it.
func (l *adminLink) order(cmd *cobra.Command, q dnsfailover.OrderQuestion, done string) error {
	return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
		res, err := c.FailoverOrder(ctx, q)
		if err != nil {
			return err
		}
		if len(res.Refused) > 0 {
			return errors.New("refused:\n  " + safe(strings.Join(res.Refused, "\n  ")))
		}
		if res.Took > 0 {
			done = fmt.Sprintf("%s is active in epoch %d; it took %s", res.Active, res.Epoch, res.Took.Round(time.Millisecond))
		}
		l.a.printf("%s\n", safe(done))
		return nil
	})
}

func newFailoverCommand(a *app) *cobra.Command {
	var to, domain string
	var force, yes bool
	cmd := &cobra.Command{
		Use:   "failover --to SITE --force --domain DOMAIN",
		Short: "Take the active role though the other site may be alive",
		Long: `failover takes the active role for the site it is given at, though nobody knows
that the other site is dead. Where the register can be reached it claims, waits as
long as any permit of the other site lasts, and takes the role; a site that is alive
objects, and then switchover is the way. Where the register cannot be reached the
role is taken after the same wait, the forced epoch is kept on disk, and written into
the register when it returns. Make sure first that the other site is off: two
active sites are what all the rest is there to prevent.`,
		Example: `  understudy failover --to b --force --domain example.com`,
		Args:    cobra.NoArgs,
	}
	l := newAdminLink(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" || !force {
			return usageError(errors.New("failover needs --to SITE and --force; a planned change is switchover"))
		}
		if domain == "" {
			return usageError(errors.New("type one of the mail domains with --domain, so that this is no accident"))
		}
		return l.order(cmd, dnsfailover.OrderQuestion{Command: dnsfailover.ForceFailover, To: dnsfailover.Site(to), Domain: domain},
			"ordered; watch: understudy failover status")
	}
	cmd.Flags().StringVar(&to, "to", "", "the `site` that takes the role; give the command there")
	cmd.Flags().BoolVar(&force, "force", false, "yes, without knowing that the other site is dead")
	cmd.Flags().StringVar(&domain, "domain", "", "one of the mail `domain`s, typed")
	cmd.AddCommand(newFailoverStatusCommand(a, l), newAcknowledgeCommand(a, l), newInitRegisterCommand(a, l, &yes))
	return cmd
}

func newFailoverStatusCommand(a *app, l *adminLink) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who is active, by which right, and what keeps the role from moving",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return l.withDaemon(cmd, func(ctx context.Context, c *admin.Client) error {
			st, err := c.FailoverStatus(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printDaemonJSON(st)
			}
			a.printFailover(&st)
			return nil
		})
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printFailover is one screen about both sites.
func (a *app) printFailover(st *dnsfailover.Status) {
	a.field("Site", fmt.Sprintf("%s: %s, mode %s, epoch %d", st.Site, st.Role, st.Mode, st.Epoch))
	if st.PermitLeft > 0 {
		a.field("Permit", "for "+st.PermitLeft.Round(100*time.Millisecond).String())
	}
	a.field("Register", safe(orElse(st.Register, "not read yet")))
	if st.Silent != "" {
		a.field("SILENT", safe(st.Silent))
	}
	a.field("Probes here", probeText(st.Self))
	peer := "never heard"
	if st.Heard {
		peer = fmt.Sprintf("%s, epoch %d", st.Peer.Role, st.Peer.Epoch)
		if !st.Peer.Ready {
			peer += ", not ready: " + st.Peer.NotReady
		}
	}
	if !st.Link {
		peer = "link is DOWN; last: " + peer
	}
	a.field("Site "+string(st.PeerSite), safe(peer))
	a.field("Probes there", probeText(st.Other))
	for _, line := range []struct{ name, text string }{
		{"Handing over", st.HandingOver}, {"Would move", st.WouldMove}, {"FOREIGN", st.Foreign},
	} {
		if line.text != "" {
			a.field(line.name, safe(line.text))
		}
	}
	if st.Claiming {
		a.field("Claiming", "takes the role in "+st.TakeIn.Round(time.Second).String())
	}
	if st.Forced > 0 {
		a.field("FORCED", fmt.Sprintf("epoch %d, which the register does not know", st.Forced))
	}
	if st.Paused {
		a.field("PAUSED", "no site moves the role by itself")
	}
	if st.Maintenance {
		a.field("MAINTENANCE", "this site does not claim the role")
	}
	if st.QuietFor > 0 {
		a.field("Quiet", "no automatic move for "+st.QuietFor.Round(time.Second).String()+"; see failover acknowledge")
	}
	a.printSteps(st.Records)
	if st.PlanError != "" {
		a.field("Records", "not all read: "+safe(st.PlanError))
	}
}

func probeText(p dnsfailover.ProbeStatus) string {
	switch {
	case !p.Checked:
		return "none"
	case p.Failed:
		return fmt.Sprintf("FAILED (%d in a row): %s", p.Bad, safe(p.Reason))
	case p.Bad > 0:
		return fmt.Sprintf("%d failed in a row: %s", p.Bad, safe(p.Reason))
	}
	return "good for " + p.GoodFor.Round(time.Second).String()
}

// printSteps shows records as they are and as they should be.
func (a *app) printSteps(steps []dnsfailover.Step) {
	for _, s := range steps {
		text := strings.Join(s.Present, ", ")
		switch {
		case s.Foreign:
			text += "  (FOREIGN: nobody here wrote it; wanted: " + strings.Join(s.Wanted, ", ") + ")"
		case s.Change != nil:
			text = strings.TrimSpace(orElse(text, "nothing") + "  ->  " + strings.Join(s.Wanted, ", "))
		}
		a.field(s.String(), safe(text))
		for _, w := range s.Warnings {
			a.field("", "warning: "+safe(w))
		}
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func newAcknowledgeCommand(_ *app, l *adminLink) *cobra.Command {
	return &cobra.Command{
		Use:   "acknowledge",
		Short: "Allow the next automatic move at once; otherwise there is one an hour",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return l.order(cmd, dnsfailover.OrderQuestion{Command: dnsfailover.Acknowledge}, "acknowledged")
		},
	}
}

func newInitRegisterCommand(_ *app, l *adminLink, yes *bool) *cobra.Command {
	var epoch uint64
	var holder string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write the register where there is none: at the first installation, or after its loss",
		Long: `init writes the register. It is refused while there is one. Without --restore-epoch
the epoch is one above all that both sites remember; a number given must be too.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*yes {
			return usageError(errors.New("this makes the sites agree on who is active: say --yes"))
		}
		return l.order(cmd, dnsfailover.OrderQuestion{Command: dnsfailover.Initialise, To: dnsfailover.Site(holder), Restore: epoch},
			"the register is being written; see: understudy failover status")
	}
	cmd.Flags().Uint64Var(&epoch, "restore-epoch", 0, "the epoch to write")
	cmd.Flags().StringVar(&holder, "holder", "", "the `site` that is active (default: the last one known, else primary)")
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "do it")
	return cmd
}
