package main

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp"
	"understudy/smtp/queue"
)

func newQueueWatchCommand(q *queueCommand) *cobra.Command {
	var (
		w      eventFilter
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "watch [ID...]",
		Short: "Follow live what happens to messages",
		Long: `watch prints a line for each message that comes in, is delivered, deferred,
refused, held or removed, until it is interrupted. --json prints a line of JSON
for each. Addresses and domains are exact or patterns with * and ?.`,
		Example: `  understudy queue watch
  understudy queue watch --domain example.com --kind deferred,refused`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.ids = append(w.ids, args...)
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			ready := func() {
				if !asJSON {
					q.a.warnf("watching; stop with Ctrl-C\n")
				}
			}
			out := q.a.jsonOut()
			err = c.Watch(cmd.Context(), ready, func(ev queue.Event) error {
				if ev.Dropped > 0 {
					q.a.warnf("%s missed: this reader is too slow\n", plural(ev.Dropped, "event"))
				}
				if !w.matches(&ev) {
					return nil
				}
				if asJSON {
					line, err := compactJSON(ev)
					if err == nil {
						_, err = out.Write(line)
					}
					return err
				}
				q.a.printf("%s\n", eventLine(&ev))
				return nil
			})
			if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
				return nil // the user has seen enough
			}
			return q.explain(c, err)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&w.ids, "id", nil, "queue `id`s, the same as arguments")
	fl.StringVar(&w.sender, "sender", "", "envelope sender, exact or `pattern`")
	fl.StringVar(&w.recipient, "recipient", "", "recipient, exact or `pattern`")
	fl.StringVar(&w.domain, "domain", "", "recipient's domain, exact or `pattern`")
	fl.StringSliceVar(&w.kinds, "kind", nil, "`kind`s of events: queued, delivered, deferred, refused, held, ...")
	fl.BoolVar(&asJSON, "json", false, "print a line of JSON for each event")
	return cmd
}

// eventFilter chooses events on this side.
type eventFilter struct {
	ids, kinds                []string
	sender, recipient, domain string
}

func (w *eventFilter) matches(ev *queue.Event) bool {
	return (len(w.ids) == 0 || slices.Contains(w.ids, ev.ID)) &&
		(len(w.kinds) == 0 || slices.Contains(w.kinds, string(ev.Kind))) &&
		likes(w.sender, ev.Sender) && likes(w.recipient, ev.Recipient) && likes(w.domain, smtp.Domain(ev.Recipient))
}

// likes is a match without case; an empty pattern likes everything.
func likes(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	pattern = strings.NewReplacer(`\`, `\\`, "[", `\[`).Replace(strings.ToLower(pattern))
	ok, err := path.Match(pattern, strings.ToLower(s))
	return err == nil && ok
}

// eventLine is one event for people.
func eventLine(ev *queue.Event) string {
	parts := []string{ev.Time.Local().Format(time.TimeOnly), pad(safe(string(ev.Kind)), 9), safe(ev.ID)}
	switch {
	case ev.Recipient != "":
		parts = append(parts, angle(ev.Sender), "->", safe(ev.Recipient))
	case ev.Kind == queue.EventQueued:
		parts = append(parts, "from", angle(ev.Sender), humanBytes(ev.SizeBytes))
	}
	words := (admin.FlushRecipient{Code: ev.Code, Enhanced: ev.Enhanced, Text: ev.Text}).String()
	if words != "" {
		parts = append(parts, "("+safe(words)+")")
	}
	if ev.Relay != "" {
		parts = append(parts, "by", safe(ev.Relay))
	}
	if ev.Delay > 0 {
		parts = append(parts, "after", humanAge(ev.Delay))
	}
	return strings.Join(parts, " ")
}
