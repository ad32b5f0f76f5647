package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"understudy/imapsync"
)

func newMailsyncVerifyCommand(m *mailsyncCommand) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify ACCOUNT...",
		Short: "Compare both sites message by message, without changing anything",
		Long: `verify reads every folder at both sites and compares messages by content, size and
flags, and the subscriptions. It trusts neither the base nor the servers' change
counters. Mail that arrives meanwhile shows as a difference. Exit code 1: they differ.`,
		Example: `  understudy mailsync verify alice@example.com`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := m.load()
			if err != nil {
				return err
			}
			list, err := m.pick(cmd.Context(), cfg, args)
			if err != nil {
				return err
			}
			o := m.opener(cfg, m.a.Err, slogWarn)
			type result struct {
				Account string `json:"account"`
				imapsync.Comparison
			}
			var results []result
			different := 0
			for _, a := range list {
				left, right := o.Store(a, imapsync.A), o.Store(a, imapsync.B)
				c, err := imapsync.Compare(cmd.Context(), imapsync.Sides{A: left, B: right}, o.Sync)
				_, _ = left.Close(), right.Close() // only looked
				if err != nil {
					return fmt.Errorf("%s: %w", safe(a.Name), err)
				}
				results = append(results, result{a.Name, c})
				if len(c.Differences) > 0 {
					different++
				}
				if asJSON {
					continue
				}
				for _, d := range c.Differences {
					m.a.printf("%s: %s\n", safe(a.Name), safe(d.String()))
				}
				m.a.printf("%s: %s in %s compared, %s\n", safe(a.Name), plural(c.Messages, "message"), plural(c.Folders, "folder"), plural(len(c.Differences), "difference"))
			}
			if asJSON {
				if err := m.a.printJSON(results); err != nil {
					return err
				}
			}
			if different > 0 {
				return fmt.Errorf("%d of %s differ", different, count(len(list), "account"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
