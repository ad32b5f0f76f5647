package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

func newQueueRulesCommand(q *queueCommand) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Hold new mail by sender or domain until further notice",
		Long: `A hold rule holds every new message that matches it; rules survive restarts.
Messages that are queued already are not touched: use queue hold for them.
Removing a rule releases nothing: use queue release.`,
		Example: `  understudy queue rules add --domain example.com --reason "migration tonight"
  understudy queue rules list
  understudy queue rules remove --domain example.com`,
	}
	cmd.AddCommand(
		q.rulesCommand("list", "List the hold rules", "understudy queue rules list --json", false,
			func(cmd *cobra.Command, c *admin.Client, _ queue.HoldRule) ([]queue.HoldRule, error) {
				return c.Rules(cmd.Context())
			}),
		q.rulesCommand("add", "Hold new mail that matches", `understudy queue rules add --sender '*@lists.example.org' --domain example.com`, true,
			func(cmd *cobra.Command, c *admin.Client, r queue.HoldRule) ([]queue.HoldRule, error) {
				return c.AddRule(cmd.Context(), r)
			}),
		q.rulesCommand("remove", "Let new mail through again", "understudy queue rules remove --domain example.com", true,
			func(cmd *cobra.Command, c *admin.Client, r queue.HoldRule) ([]queue.HoldRule, error) {
				return c.RemoveRule(cmd.Context(), r)
			}),
	)
	return cmd
}

// rulesCommand builds one of the three; each ends by printing the rules that
// apply then.
func (q *queueCommand) rulesCommand(use, short, example string, needs bool,
	do func(*cobra.Command, *admin.Client, queue.HoldRule) ([]queue.HoldRule, error),
) *cobra.Command {
	var (
		rule           queue.HoldRule
		asJSON, dryRun bool
	)
	cmd := &cobra.Command{
		Use: use, Short: short, Long: short + ".", Example: "  " + example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rule.Domain = strings.TrimPrefix(rule.Domain, "@")
			if needs && rule.Sender == "" && rule.Domain == "" {
				return usageError(errors.New("name --sender or --domain"))
			}
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var rules []queue.HoldRule
			if dryRun {
				rules, err = c.Rules(cmd.Context())
			} else {
				rules, err = do(cmd, c, rule)
			}
			if err != nil {
				return q.explain(c, err)
			}
			if dryRun {
				q.a.warnf("dry run: nothing was changed\n")
			}
			if asJSON {
				return q.a.printDaemonJSON(rules)
			}
			q.a.printRules(rules)
			return nil
		},
	}
	if needs {
		cmd.Flags().StringVar(&rule.Sender, "sender", "", "envelope sender, exact or `pattern`")
		cmd.Flags().StringVar(&rule.Domain, "domain", "", "a recipient's domain, exact or `pattern`")
		cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print the rules as they are")
	}
	if use == "add" {
		cmd.Flags().StringVar(&rule.Reason, "reason", "", "a `text` that is shown with held messages")
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) printRules(rules []queue.HoldRule) {
	if len(rules) == 0 {
		a.printf("no hold rules\n")
	}
	for _, r := range rules {
		var parts []string
		if r.Sender != "" {
			parts = append(parts, "sender "+safe(r.Sender))
		}
		if r.Domain != "" {
			parts = append(parts, "domain "+safe(r.Domain))
		}
		line := "hold " + strings.Join(parts, " and ")
		if r.Reason != "" {
			line += " (" + safe(r.Reason) + ")"
		}
		if !r.Since.IsZero() {
			line += ", since " + stamp(r.Since)
		}
		a.printf("%s\n", line)
	}
}
