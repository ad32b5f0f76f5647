package main

import (
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
)

func newQueueSearchCommand(q *queueCommand) *cobra.Command {
	var (
		f            filters
		subject      string
		body, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "search [ID...]",
		Short: "Find waiting mail for somebody who needs it now",
		Long: `search looks into mail that waits during an outage, for the one-time code that
somebody needs now. It prints the header lines of matching messages, newest
first, and with --body their readable text. --recipient may be the part before
the @ alone.

The daemon allows it only where queue.allow_body_access is set, and logs each
search with your user name.
` + filterHelp,
		Example: `  understudy queue search --recipient jane --younger-than 30m --body
  understudy queue search --recipient jane@example.com --subject "code"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := f.selection(q.a, args)
			if err != nil {
				return err
			}
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			out := q.a.jsonOut()
			end, err := c.Search(cmd.Context(), admin.SearchRequest{Selection: sel, Subject: subject, Text: body},
				func(h admin.SearchHit) error {
					if asJSON {
						line, err := compactJSON(h)
						if err == nil {
							_, err = out.Write(line)
						}
						return err
					}
					q.a.printHit(&h)
					return nil
				})
			if err != nil {
				return q.explain(c, err)
			}
			if !asJSON {
				q.a.printf("%d of %s match\n", end.Matches, plural(end.Opened, "message"))
			}
			return nil
		},
	}
	addFilters(cmd, &f)
	cmd.Flags().StringVar(&subject, "subject", "", "the subject contains this `text`")
	cmd.Flags().BoolVar(&body, "body", false, "print the readable text too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each match")
	return cmd
}

func (a *app) printHit(h *admin.SearchHit) {
	a.field("Message", safe(h.ID))
	a.field("Received", stamp(h.Received))
	a.field("Envelope", partiesOf(&h.Summary))
	a.field("From", safe(h.From))
	a.field("To", safe(h.To))
	a.field("Date", safe(h.Date))
	a.field("Subject", safe(h.Subject))
	a.field("Problem", safe(h.Problem))
	if h.Text != "" {
		a.printf("\n")
		for line := range strings.SplitSeq(h.Text, "\n") {
			a.printf("    %s\n", safeLine(strings.TrimRight(line, "\r")))
		}
		if h.Truncated {
			a.printf("    (cut here; the whole message: understudy queue show %s --body)\n", safe(h.ID))
		}
	}
	a.printf("\n")
}
