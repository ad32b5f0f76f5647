package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
)

func newRecipientsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recipients",
		Short: "Ask who exists here, and approve what a source says",
		Long: `recipients asks the running daemon what it would answer to RCPT and why. Its
answers are the daemon's own: the same sources, the same age, the same rules.`,
		Example: `  understudy recipients check jane@example.com
  understudy recipients approve mailboxes`,
	}
	l := newAdminLink(a, cmd)
	cmd.AddCommand(newRecipientsCheckCommand(l), newRecipientsApproveCommand(l))
	return cmd
}

func newRecipientsCheckCommand(l *adminLink) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check ADDRESS",
		Short: "Say whether an address exists here, and why",
		Long: `check says what RCPT for ADDRESS would be answered now, and what each source of
recipients knows. It exits with 0 where the address is accepted, else with 1.`,
		Example: `  understudy recipients check jane+list@example.com --json`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := l.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := c.CheckRecipient(cmd.Context(), args[0])
			if err != nil {
				return l.explain(c, err)
			}
			if asJSON {
				err = l.a.printDaemonJSON(answer)
			} else {
				l.a.printAnswer(&answer)
			}
			if err == nil && answer.Disposition != "exists" && !answer.Audit {
				err = fmt.Errorf("%s is not accepted: %s", safe(answer.Address), safe(answer.Disposition))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printAnswer(r *admin.RecipientAnswer) {
	a.printf("%s: %s\n", safe(r.Address), safe(r.Disposition))
	a.field("Because", safe(r.Reason))
	a.field("Reply", safe(r.Reply))
	if r.Audit {
		a.field("Audit mode", "the answer is only logged, the address is accepted")
	}
	for i := range r.Sources {
		a.field("Source", sourceLine(&r.Sources[i]))
	}
}

// sourceLine is one source of recipients for people.
func sourceLine(s *admin.RecipientSource) string {
	line := safe(s.Name)
	if s.Answer != "" {
		line += " says " + safe(s.Answer)
	}
	if s.Detail != "" {
		line += " (" + safe(s.Detail) + ")"
	}
	if s.Entries > 0 {
		line += fmt.Sprintf(", %d entries", s.Entries)
	}
	if !s.Loaded.IsZero() {
		line += ", as of " + stamp(s.Loaded)
	}
	if s.Stale {
		line += ", STALE"
	}
	if s.Pending != "" {
		line += ", waits for approval: " + safe(s.Pending)
	}
	if s.Error != "" {
		line += ", error: " + safe(s.Error)
	}
	return line
}

func newRecipientsApproveCommand(l *adminLink) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "approve SOURCE",
		Short: "Believe a source that suddenly returned far fewer addresses",
		Long: `A source that suddenly returns far fewer addresses is not believed, because a
broken query must not make mailboxes unknown. approve says that it is right; the
waiting result is used from then on. status shows which source waits.`,
		Example: `  understudy recipients approve mailboxes`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := l.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if dryRun {
				return l.previewApproval(cmd, c, args[0])
			}
			if err := c.ApproveRecipients(cmd.Context(), args[0]); err != nil {
				return l.explain(c, err)
			}
			l.a.printf("approved %s\n", safe(args[0]))
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be approved")
	return cmd
}

// previewApproval prints what is known of the source.
func (l *adminLink) previewApproval(cmd *cobra.Command, c *admin.Client, source string) error {
	st, err := c.Status(cmd.Context())
	if err != nil {
		return l.explain(c, err)
	}
	for i := range st.Sources {
		s := &st.Sources[i]
		if s.Name != source {
			continue
		}
		l.a.printf("%s\n", sourceLine(s))
		if s.Pending == "" {
			return fmt.Errorf("source %s waits for no approval", safe(source))
		}
		l.a.printf("dry run: it would be approved, nothing was changed\n")
		return nil
	}
	return fmt.Errorf("no such source %s", safe(source))
}
