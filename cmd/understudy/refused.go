package main

import (
	"github.com/spf13/cobra"

	"understudy/smtp/queue"
)

func newQueueRefusedCommand(q *queueCommand) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refused",
		Short: "Messages the next hop refused after they had been accepted",
		Long: `When a next hop refuses a message for good, it is neither bounced to a stranger
nor dropped: it is kept as refused, and an alarm is raised. These commands look
at such messages only.`,
		Example: `  understudy queue refused list
  understudy queue refused release --error "relay access denied"
  understudy queue refused bounce --all --yes`,
	}
	var (
		f      = filters{forced: queue.Refused}
		asJSON bool
	)
	list := &cobra.Command{
		Use:     "list [ID...]",
		Short:   "List refused messages with the next hop's words",
		Long:    "list shows refused messages, oldest first, with the next hop's words.\n" + filterHelp,
		Example: `  understudy queue refused list --domain example.com`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return q.list(cmd, &f, args, asJSON)
		},
	}
	addFilters(list, &f)
	list.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	release := newReleaseCommand(&change{
		q: q, f: filters{forced: queue.Refused}, action: queue.Release, done: "released",
	})
	release.Short = "Try refused messages again at once"
	release.Example = `  understudy queue refused release --all
  understudy queue refused release --error "relay access denied" --dry-run`
	cmd.AddCommand(list, release, newQueueDeleteCommand(q, queue.Refused), newQueueBounceCommand(q, queue.Refused))
	return cmd
}
