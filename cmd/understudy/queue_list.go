package main

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"understudy/smtp/queue"
)

func newQueueListCommand(q *queueCommand) *cobra.Command {
	var (
		f      filters
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list [ID...]",
		Short: "List waiting messages, oldest first",
		Long: `list shows a line for each message, and below it the last error or why it is
held. NEXT is the time until the next attempt. On a terminal lines are shortened
to its width, elsewhere never. --json prints an array with everything.
` + filterHelp,
		Example: `  understudy queue list
  understudy queue list --state held,refused
  understudy queue list --recipient '*@example.com' --larger-than 5MiB --json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return q.list(cmd, &f, args, asJSON)
		},
	}
	addFilters(cmd, &f)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

// list is "queue list" and "queue refused list".
func (q *queueCommand) list(cmd *cobra.Command, f *filters, args []string, asJSON bool) error {
	sel, err := f.selection(q.a, args)
	if err != nil {
		return err
	}
	sel = f.force(sel)
	src, explain, err := q.source(cmd)
	if err != nil {
		return err
	}
	defer src.Close()
	if asJSON {
		return explain(src.ListJSON(cmd.Context(), sel, q.a.jsonOut()))
	}
	missing := map[string]bool{}
	for _, id := range sel.IDs {
		missing[id] = true
	}
	t := newMessageTable(q.a)
	err = src.List(cmd.Context(), sel, func(m queue.Summary) error {
		delete(missing, m.ID)
		return t.add(&m)
	})
	if err := t.end(); err != nil {
		return err
	}
	if err != nil {
		return explain(err)
	}
	for _, id := range sel.IDs {
		if missing[id] {
			q.a.warnf("%s: not in the queue, or not selected by the filters\n", safe(id))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s not found", plural(len(missing), "message"))
	}
	return nil
}

// messageTable prints messages as they come, without knowing how many follow.
type messageTable struct {
	w     *bufio.Writer
	width int
	now   time.Time
	idW   int
	count int
	bytes int64
}

func newMessageTable(a *app) *messageTable {
	return &messageTable{w: bufio.NewWriterSize(a.Out, 64<<10), width: a.width(), now: time.Now()}
}

// minParties is how many columns sender and recipients need; where a terminal has
// fewer left they get a line of their own.
const minParties = 44

// add prints one message.
func (t *messageTable) add(m *queue.Summary) error {
	if t.count == 0 {
		t.idW = max(len("ID"), len(m.ID))
		if _, err := fmt.Fprintln(t.w, clip(pad("ID", t.idW)+"  AGE   SIZE STATE   NEXT SENDER -> RECIPIENTS", t.width)); err != nil {
			return err
		}
	}
	t.count++
	t.bytes += m.SizeBytes
	next := "-"
	if !m.NextAttempt.IsZero() {
		next = "now"
		if d := m.NextAttempt.Sub(t.now); d > 0 {
			next = humanAge(d)
		}
	}
	line := fmt.Sprintf("%s %4s %6s %-7s %4s", pad(safe(m.ID), t.idW),
		humanAge(t.now.Sub(m.Received)), humanBytes(m.SizeBytes), safe(string(m.State)), next)
	parties := partiesOf(m)
	switch left := t.width - len(line) - 1; {
	case t.width == 0: // for a script: whole, and on one line
		line += " " + parties
	case left >= minParties:
		line += " " + clip(parties, left)
	default:
		line += "\n    " + clip(parties, t.width-4)
	}
	if _, err := fmt.Fprintln(t.w, line); err != nil {
		return err
	}
	for _, why := range []string{m.Reason, m.LastError} {
		if why == "" {
			continue
		}
		line := "    (" + safe(why) + ")"
		if t.width > 0 {
			line = clip(line, t.width)
		}
		if _, err := fmt.Fprintln(t.w, line); err != nil {
			return err
		}
	}
	return nil
}

// partiesOf is "sender -> recipient (+2)", with the open recipients first.
func partiesOf(m *queue.Summary) string {
	first := ""
	for _, r := range m.Recipients {
		if first == "" || r.State != queue.RecipientDelivered {
			first = safe(r.Address)
		}
		if r.State != queue.RecipientDelivered {
			break
		}
	}
	more := ""
	if n := len(m.Recipients) - 1; n > 0 {
		more = fmt.Sprintf(" (+%d)", n)
	}
	return angle(m.Sender) + " -> " + first + more
}

// angle shows an envelope sender; the null sender as it is on the wire.
func angle(sender string) string {
	if sender == "" {
		return "<>"
	}
	return safe(sender)
}

// end prints the totals, on a line that readIDs passes over.
func (t *messageTable) end() error {
	if t.count == 0 {
		_, _ = io.WriteString(t.w, "-- no messages\n") // Flush reports it
	} else {
		_, _ = fmt.Fprintf(t.w, "-- %s, %s\n", plural(t.count, "message"), humanBytes(t.bytes))
	}
	return t.w.Flush()
}
