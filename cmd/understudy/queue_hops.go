package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
)

func newQueueHopsCommand(q *queueCommand) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hops",
		Short: "See the next hops, and resume a paused one",
		Long: `A next hop that cannot be reached is probed until it answers. One that refuses
everything by policy is paused with an alarm, so that it does not burn the queue.`,
		Example: `  understudy queue hops list
  understudy queue hops resume smtp://mx1.example.net:25`,
	}
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "List the next hops and their state", Args: cobra.NoArgs,
		Long:    "list shows every next hop that has been used, and whether it can be reached.",
		Example: "  understudy queue hops list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			hops, err := c.Hops(cmd.Context())
			if err != nil {
				return q.explain(c, err)
			}
			if asJSON {
				return q.a.printDaemonJSON(hops)
			}
			if len(hops) == 0 {
				q.a.printf("no next hop has been used yet\n")
			}
			for i := range hops {
				q.a.printf("%s\n", hopLine(&hops[i]))
			}
			return nil
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	var dryRun bool
	resume := &cobra.Command{
		Use: "resume NAME", Short: "Try a paused next hop again at once", Args: cobra.ExactArgs(1),
		Long:    "resume ends the pause or the back-off of a next hop; NAME is as in the list.",
		Example: "  understudy queue hops resume smtp://mx1.example.net:25",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var hops []admin.Hop
			if dryRun {
				hops, err = c.Hops(cmd.Context())
			} else {
				hops, err = c.ResumeHop(cmd.Context(), args[0])
			}
			if err != nil {
				return q.explain(c, err)
			}
			for i := range hops {
				if hops[i].Name != args[0] {
					continue
				}
				if dryRun {
					q.a.printf("dry run: would be tried at once: ")
				}
				q.a.printf("%s\n", hopLine(&hops[i]))
				return nil
			}
			return fmt.Errorf("no such next hop %s", safe(args[0]))
		},
	}
	resume.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be resumed")
	cmd.AddCommand(list, resume)
	return cmd
}

// hopLine is one next hop for people.
func hopLine(h *admin.Hop) string {
	line := safe(h.Name) + ": " + safe(string(h.State))
	if !h.Since.IsZero() {
		line += " since " + stamp(h.Since)
	}
	if h.Reason != "" {
		line += ": " + safe(h.Reason)
	}
	if h.Connections > 0 {
		line += ", " + plural(h.Connections, "connection")
	}
	if !h.NextProbe.IsZero() && h.State != admin.HopUp {
		line += ", next probe " + stamp(h.NextProbe)
	}
	return line
}
