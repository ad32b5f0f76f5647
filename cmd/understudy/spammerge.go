package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/spamsync/replica/merge"
)

func newSpamMergeCommand(a *app, l *adminLink) *cobra.Command {
	var dryRun, yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "merge",
		Short: "Merge what the filters learned apart, or preview it",
		Long: `merge has the daemon carry to the home Redis what was written to this site's while
home was away, and follow home again. The daemon does that by itself when home is
back; this command does it now, previews it, or approves what the daemon does not
do without being asked (spam status names it): where nothing has the changes of the
split any more, where home was emptied, or where both never met.

--dry-run reads and counts, and writes nothing.`,
		Example: "  understudy spam merge --dry-run\n  understudy spam merge --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := l.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := c.MergeSpam(cmd.Context(), dryRun, yes)
			if err != nil {
				return l.explain(c, err)
			}
			if asJSON {
				return a.printDaemonJSON(answer)
			}
			a.printf("%s\n", safe(answer.Text))
			if answer.Report != nil {
				a.printMergeReport(answer.Report)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	f.BoolVar(&yes, "yes", false, "approve what spam status says it waits for")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printMergeReport(r *merge.Report) {
	a.printf("  %d commands (%d bytes) of site %s since %s, in %d transactions\n", r.Commands, r.Bytes, safe(r.Origin), safe(r.Fork.String()), r.Batches)
	n := r.Learns
	a.printf("  learned messages: %d added, %d were learned at both, %d differently (%d as here, %d as at home)\n",
		n.Applied, n.Double, n.HomeWon+n.FollowerWon, n.FollowerWon, n.HomeWon)
	kinds := make([]string, 0, len(r.Kinds))
	for k := range r.Kinds {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		a.printf("  %-12s %d commands, %d had no effect\n", safe(k), r.Kinds[k].Commands, r.Kinds[k].Kept)
	}
	for _, u := range r.Unknown {
		a.printf("  NOT MERGED: key %s (%s), %d commands\n", safe(u.Key), safe(u.Command), u.Commands)
	}
	for _, note := range r.Notes {
		a.printf("  %s\n", safe(note))
	}
}

// printSpamReplica shows the replication of the shared state.
func (a *app) printSpamReplica(r *admin.SpamReplica) {
	writes := "NOWHERE"
	if r.Writes != "" {
		writes = "to " + safe(r.Writes)
	}
	a.field("Shared state", fmt.Sprintf("%s since %s; home is site %s, writes go %s", safe(r.State), stamp(r.Since), safe(r.Home), writes))
	for _, s := range []struct {
		name string
		r    admin.SpamRedis
	}{{"Redis here", r.Local}, {"Redis there", r.Peer}} {
		text := safe(s.r.Address) + ": " + safe(s.r.Trouble)
		if s.r.Up {
			text = fmt.Sprintf("%s: %s, %d keys, offset %d", safe(s.r.Address), safe(s.r.Role), s.r.Keys, s.r.Offset)
			if s.r.Follows != "" {
				text += ", follows " + safe(s.r.Follows)
				if !s.r.LinkUp {
					text += " (link down)"
				}
			}
		}
		a.field(s.name, text)
	}
	if r.State == "following" {
		a.field("Lag", fmt.Sprintf("%d bytes, %.1f s; home writes %.0f bytes a second", r.LagBytes, r.LagSeconds, r.WriteBytesPerSecond))
	}
	if r.Fork != "" {
		a.field("Parted at", safe(r.Fork))
	}
	if r.Busy != "" {
		a.field("At work", safe(r.Busy))
	}
	if r.Failure != "" {
		a.field("Failed", safe(r.Failure))
	}
	journal := fmt.Sprintf("%d bytes, %s", r.Journal.Bytes, plural(r.Journal.Gaps, "gap"))
	if !r.Journal.Following {
		journal += ", NOT following: " + safe(r.Journal.Error)
	}
	a.field("Journal", journal)
	for _, c := range r.Conditions {
		a.field("NOTE", safe(c.Text))
	}
}
