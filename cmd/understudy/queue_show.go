package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

func newQueueShowCommand(q *queueCommand) *cobra.Command {
	var body, asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show everything about one message",
		Long: `show prints the envelope, where each recipient stands and the attempts so far.

With --body it prints the message itself instead. The daemon allows that only
where queue.allow_body_access is set, and logs each access with your user name.
On a terminal control characters are escaped; elsewhere the bytes come as stored.`,
		Example: `  understudy queue show 0N3K2AB7C9D
  understudy queue show 0N3K2AB7C9D --body > message.eml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, explain, err := q.source(cmd)
			if err != nil {
				return err
			}
			defer src.Close()
			if body {
				r, err := src.Body(cmd.Context(), args[0])
				if err != nil {
					return explain(notHere(err, args[0]))
				}
				return explain(errors.Join(q.a.copyBody(r), r.Close()))
			}
			d, err := src.Show(cmd.Context(), args[0])
			if err != nil {
				return explain(notHere(err, args[0]))
			}
			if asJSON {
				return q.a.printDaemonJSON(d)
			}
			q.a.printDetail(&d)
			return nil
		},
	}
	cmd.Flags().BoolVar(&body, "body", false, "print the message itself")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("body", "json")
	return cmd
}

// notHere names the id where a spool read offline did not.
func notHere(err error, id string) error {
	if errors.Is(err, queue.ErrNotFound) {
		return fmt.Errorf("no message %q in the spool", id)
	}
	return err
}

// printDaemonJSON is printJSON for what came from outside.
func (a *app) printDaemonJSON(v any) error {
	safeApp := *a
	safeApp.Out = a.jsonOut()
	return safeApp.printJSON(v)
}

// copyBody prints a message: as it is, or made safe for a terminal.
func (a *app) copyBody(r io.Reader) error {
	if terminalOf(a.Out) == nil {
		if _, err := io.Copy(a.Out, r); err != nil {
			return fmt.Errorf("read message: %w", err)
		}
		return nil
	}
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			text := string(bytes.TrimRight(line, "\r\n"))
			a.printf("%s\n", safeLine(text))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read message: %w", err)
		}
	}
}

// safeLine is safe, with tabs left in.
func safeLine(s string) string {
	parts := strings.Split(s, "\t")
	for i := range parts {
		parts[i] = safe(parts[i])
	}
	return strings.Join(parts, "\t")
}

// stamp is a moment, and how far away it is.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	if d < 0 {
		return fmt.Sprintf("%s (in %s)", t.Local().Format(time.DateTime), humanAge(-d))
	}
	return fmt.Sprintf("%s (%s ago)", t.Local().Format(time.DateTime), humanAge(d))
}

// field prints one line of a description; empty values are left out.
func (a *app) field(name, value string) {
	if value != "" {
		a.printf("%-13s %s\n", name+":", value)
	}
}

func (a *app) printDetail(d *queue.Detail) {
	a.field("Message", safe(d.ID))
	a.field("State", stateText(&d.Summary))
	a.field("Received", stamp(d.Received))
	a.field("Sender", angle(d.Sender))
	a.field("Size", fmt.Sprintf("%s (%d bytes)", humanBytes(d.SizeBytes), d.SizeBytes))
	if e := d.Envelope; e != nil {
		a.printClient(e.Client.Addr.String(), e.Client.ReverseName, e.Client.HELO, e.Client.Protocol, e.Client.TLS)
		var flags []string
		for _, f := range []struct {
			on   bool
			text string
		}{{e.Body != "", e.Body}, {e.SMTPUTF8, "SMTPUTF8"}, {e.RequireTLS, "REQUIRETLS"}} {
			if f.on {
				flags = append(flags, safe(f.text))
			}
		}
		a.field("Needs", strings.Join(flags, ", "))
		if v := e.Verdict; v != nil {
			a.field("Filter", fmt.Sprintf("%s: %.1f of %.1f", safe(v.Engine), v.Score, v.Required))
		}
	}
	a.field("Next hop", safe(d.NextHop))
	a.field("Attempts", fmt.Sprint(d.Attempts))
	if !d.NextAttempt.IsZero() {
		a.field("Next attempt", stamp(d.NextAttempt))
	}
	a.field("Last error", safe(d.LastError))
	a.printf("\nRecipients:\n")
	for _, r := range d.Recipients {
		a.printf("  %s: %s\n", safe(r.Address), safe(string(r.State)))
		if words := (admin.FlushRecipient{Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}).String(); words != "" {
			a.printf("      %s\n      %s, said %s\n", safe(words), stamp(r.At), saidBy(r.Relay))
		}
	}
	a.printHistory(d.History)
}

func (a *app) printClient(addr, reverse, helo, protocol, tls string) {
	text := safe(addr)
	if reverse != "" {
		text = safe(reverse) + " [" + text + "]"
	}
	if helo != "" {
		text += ", HELO " + safe(helo)
	}
	if protocol != "" {
		text += ", " + safe(protocol)
	}
	if tls != "" {
		text += ", " + safe(tls)
	}
	a.field("Client", text)
}

func (a *app) printHistory(history []queue.Attempt) {
	if len(history) == 0 {
		return
	}
	a.printf("\nAttempts, oldest first (the last %d are kept):\n", max(16, len(history)))
	for _, h := range history {
		words := (admin.FlushRecipient{Code: h.Code, Enhanced: h.Enhanced, Text: h.Text}).String()
		a.printf("  %s %s %s by %s\n", h.At.Local().Format(time.DateTime), safe(h.Recipient), safe(h.Status), saidBy(h.Relay))
		if words != "" {
			a.printf("      %s\n", safe(words))
		}
	}
}

func saidBy(relay string) string {
	if relay == "" || relay == "none" {
		return "nobody (no connection)"
	}
	return safe(relay)
}

// stateText is the state with its reason.
func stateText(m *queue.Summary) string {
	if m.Reason != "" {
		return safe(string(m.State)) + ", " + safe(m.Reason)
	}
	return safe(string(m.State))
}

func newQueueWhyCommand(q *queueCommand) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why ID",
		Short: "Say why a message is still here, in the peer's words",
		Long: `why says in a few sentences why a message has not been delivered yet: its
state, what the next hop answered to each attempt, whether that hop can be
reached now, and when the next attempt is due.`,
		Example: `  understudy queue why 0N3K2AB7C9D`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := q.online(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			d, err := c.Show(cmd.Context(), args[0])
			var e *admin.Error
			if errors.As(err, &e) && e.Code == admin.CodeNotFound {
				return fmt.Errorf("message %s is not in the queue: it was delivered, deleted or never here; the log knows more (journalctl -u understudy -g %s)",
					safe(args[0]), safe(args[0]))
			}
			if err != nil {
				return q.explain(c, err)
			}
			hops, err := c.Hops(cmd.Context())
			if errors.As(err, &e) && e.Code == admin.CodeNotConfigured {
				err = nil
			}
			if err != nil {
				return q.explain(c, err)
			}
			hops = hopsOf(hops, d.NextHop)
			if asJSON {
				return q.a.printDaemonJSON(struct {
					queue.Detail
					Hops []admin.Hop `json:"hops"`
				}{d, hops})
			}
			q.a.printWhy(&d, hops)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// hopsOf finds a message's next hops; several are named by preference.
func hopsOf(hops []admin.Hop, names string) []admin.Hop {
	out := []admin.Hop{}
	for name := range strings.SplitSeq(names, ", ") {
		for _, h := range hops {
			if h.Name == name {
				out = append(out, h)
			}
		}
	}
	return out
}

func (a *app) printWhy(d *queue.Detail, hops []admin.Hop) {
	a.printf("%s from %s, received %s, is %s.\n", safe(d.ID), angle(d.Sender), stamp(d.Received), safe(string(d.State)))
	switch d.State {
	case queue.Held:
		why := "by an operator"
		if d.Reason != "" {
			why = safe(d.Reason)
		}
		a.printf("It is held (%s) and stays until: understudy queue release %s\n", why, safe(d.ID))
	case queue.Refused:
		a.printf("The next hop refused every open recipient for good. Nothing more is tried until an operator decides:\n  understudy queue requeue|bounce|delete %s\n", safe(d.ID))
	case queue.Active:
		a.printf("It is being delivered at this moment.\n")
	case queue.Queued:
		switch {
		case d.Attempts == 0 && !d.NextAttempt.After(time.Now()):
			a.printf("It is due and waits for its turn; nothing was tried yet.\n")
		case !d.NextAttempt.After(time.Now()):
			a.printf("It is due and waits for its turn.\n")
		default:
			a.printf("The next attempt is at %s; at once with: understudy queue flush %s\n", stamp(d.NextAttempt), safe(d.ID))
		}
	}
	for i := range hops {
		a.printf("Its next hop %s\n", hopLine(&hops[i]))
	}
	for _, r := range d.Recipients {
		words := (admin.FlushRecipient{Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}).String()
		switch {
		case r.State == queue.RecipientDelivered:
			a.printf("  %s: delivered\n", safe(r.Address))
		case words == "":
			a.printf("  %s: not tried yet\n", safe(r.Address))
		default:
			a.printf("  %s: %s\n      said %s, %s\n", safe(r.Address), safe(words), saidBy(r.Relay), stamp(r.At))
		}
	}
	a.printHistory(d.History)
}
