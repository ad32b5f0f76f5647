package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

// change is one command that changes messages.
type change struct {
	q      *queueCommand
	f      filters
	action queue.Action
	// done is the past tense for the report: "held".
	done string
	// final actions cannot be undone: they ask.
	final bool
	// optional says that without a selection everything is meant.
	optional bool

	opt    queue.ApplyOptions
	keep   bool // next hops stay paused
	yes    bool
	asJSON bool
}

// flags gives cmd what all of them have.
func (c *change) flags(cmd *cobra.Command) {
	addFilters(cmd, &c.f)
	addAll(cmd, &c.f)
	cmd.Flags().BoolVar(&c.opt.DryRun, "dry-run", false, "only print what would be touched")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON")
	if c.final {
		cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	}
}

// run does it.
func (c *change) run(cmd *cobra.Command, args []string) error {
	sel, err := c.f.required(c.q.a, args)
	if c.optional && admin.SelectsAll(sel) {
		err = nil
	}
	if err != nil {
		return err
	}
	if c.action == queue.Flush && len(sel.IDs) == 0 && len(sel.States) == 0 {
		sel.States = []queue.State{queue.Queued} // others cannot be, and need no mention
	}
	client, err := c.q.online(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	req := admin.ApplyRequest{
		Action: c.action, Selection: sel, All: c.f.all || c.optional, KeepPaused: c.keep, ApplyOptions: c.opt,
	}
	if c.final && !c.opt.DryRun && !c.yes {
		if err := c.ask(cmd, client, req); err != nil {
			return err
		}
	}
	result, err := client.Apply(cmd.Context(), req)
	if err == nil && c.opt.DryRun && !c.asJSON {
		return c.preview(cmd, client, result)
	}
	return c.report(client, result, err)
}

// ask makes sure that something final is meant: one message named on a terminal
// needs no question, several need an answer, and where nobody can answer --yes is
// needed.
func (c *change) ask(cmd *cobra.Command, client *admin.Client, req admin.ApplyRequest) error {
	if !c.q.a.interactive() {
		return usageError(fmt.Errorf("%s cannot be undone and this is not a terminal: say --yes (or look first with --dry-run)", c.action))
	}
	req.DryRun = true
	would, err := client.Apply(cmd.Context(), req)
	if err != nil {
		return c.q.explain(client, err)
	}
	if would.Count <= 1 {
		return nil
	}
	if !c.q.a.confirm(fmt.Sprintf("%s %s for ever?", c.action, plural(would.Count, "message"))) {
		return errors.New("nothing was changed")
	}
	return nil
}

// preview lists what a dry run found.
func (c *change) preview(cmd *cobra.Command, client *admin.Client, would queue.Change) error {
	if would.Count > 0 {
		t := newMessageTable(c.q.a)
		err := client.List(cmd.Context(), admin.Selection{IDs: would.IDs}, func(m queue.Summary) error { return t.add(&m) })
		if err := errors.Join(err, t.end()); err != nil {
			return c.q.explain(client, err)
		}
	}
	c.q.a.printf("dry run: %s would be %s, nothing was changed\n", plural(would.Count, "message"), c.done)
	return c.skipped(would)
}

// report prints what was done, also where it ended in an error.
func (c *change) report(client *admin.Client, result queue.Change, err error) error {
	if c.asJSON && (err == nil || result.Count > 0) {
		if result.IDs == nil {
			result.IDs = []string{}
		}
		if e := c.q.a.printDaemonJSON(result); e != nil {
			return e
		}
	}
	if err != nil {
		if result.Count > 0 {
			c.q.a.warnf("%s before the error: %s\n", c.done, plural(result.Count, "message"))
		}
		return c.q.explain(client, err)
	}
	if !c.asJSON {
		if result.Count == 0 && len(result.Skipped) == 0 {
			c.q.a.printf("no message matches\n")
		} else {
			c.q.a.printf("%s %s\n", c.done, plural(result.Count, "message"))
		}
	}
	return c.skipped(result)
}

// skipped names on standard error what was not done.
func (c *change) skipped(result queue.Change) error {
	for _, id := range slices.Sorted(maps.Keys(result.Skipped)) {
		c.q.a.warnf("%s: %s\n", safe(id), safe(result.Skipped[id]))
	}
	if n := len(result.Skipped); n > 0 {
		return fmt.Errorf("%s not %s", plural(n, "message"), c.done)
	}
	return nil
}

func newQueueHoldCommand(q *queueCommand) *cobra.Command {
	c := &change{q: q, action: queue.Hold, done: "held"}
	cmd := &cobra.Command{
		Use:   "hold [ID...]",
		Short: "Keep messages from being delivered until they are released",
		Long:  "hold keeps messages until they are released. New mail is not affected; see queue rules.\n" + filterHelp,
		Example: `  understudy queue hold 0N3K2AB7C9D
  understudy queue hold --domain example.com --reason "migration tonight"`,
		Args: cobra.ArbitraryArgs,
		RunE: c.run,
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&c.opt.Reason, "reason", "", "a `text` that is shown with the messages")
	return cmd
}

func newQueueReleaseCommand(q *queueCommand) *cobra.Command {
	return newReleaseCommand(&change{q: q, action: queue.Release, done: "released"})
}

func newReleaseCommand(c *change) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release [ID...]",
		Short: "Let held or refused messages go: they are due at once",
		Long:  "release makes held and refused messages due at once; refused recipients are tried again.\n" + filterHelp,
		Example: `  understudy queue release --state held --sender '*@lists.example.org'
  understudy queue release --all --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: c.run,
	}
	c.flags(cmd)
	return cmd
}

func newQueueRequeueCommand(q *queueCommand) *cobra.Command {
	c := &change{q: q, action: queue.Requeue, done: "requeued"}
	cmd := &cobra.Command{
		Use:   "requeue [ID...]",
		Short: "Start messages over, to another next hop if wanted",
		Long: `requeue makes messages of any state due as if they had just come in: attempts
and back-off start over. With --to they go to that next hop from now on, whoever
is active; without it to the usual one again.
` + filterHelp,
		Example: `  understudy queue requeue --state refused --domain example.com
  understudy queue requeue --all --to smtp://mx3.example.net:25`,
		Args: cobra.ArbitraryArgs,
		RunE: c.run,
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&c.opt.To, "to", "", "the next `hop`: smtp://host:port, lmtp:///path/of/socket")
	return cmd
}

func newQueueDeleteCommand(q *queueCommand, forced queue.State) *cobra.Command {
	c := &change{q: q, f: filters{forced: forced}, action: queue.Delete, done: "deleted", final: true}
	cmd := &cobra.Command{
		Use:   "delete [ID...]",
		Short: "Delete messages for ever; their senders are not told",
		Long: `delete removes messages for ever; their senders are not told. On a terminal it
asks before it deletes more than one; elsewhere it wants --yes.
` + filterHelp,
		Example: `  understudy queue delete 0N3K2AB7C9D
  understudy queue delete --sender spammer@example.org --dry-run
  understudy queue delete --sender spammer@example.org --yes`,
		Args: cobra.ArbitraryArgs,
		RunE: c.run,
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&c.opt.Reason, "reason", "", "a `text` for the log")
	return cmd
}

func newQueueBounceCommand(q *queueCommand, forced queue.State) *cobra.Command {
	c := &change{q: q, f: filters{forced: forced}, action: queue.Bounce, done: "bounced", final: true}
	cmd := &cobra.Command{
		Use:   "bounce [ID...]",
		Short: "Return messages to their senders where that is safe",
		Long: `bounce writes a delivery status notification to the sender and removes the
message. It does so only for mail whose sender is authenticated (aligned SPF or
DKIM); other messages are skipped, because a bounce would go to a stranger.
` + filterHelp,
		Example: `  understudy queue bounce 0N3K2AB7C9D
  understudy queue refused bounce --older-than 7d --yes`,
		Args: cobra.ArbitraryArgs,
		RunE: c.run,
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&c.opt.Reason, "reason", "", "a `text` for the log")
	return cmd
}
