package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

// flushCommand is "queue flush".
type flushCommand struct {
	change
	wait, retry, quiet bool
	timeout            time.Duration
}

func newQueueFlushCommand(q *queueCommand) *cobra.Command {
	c := &flushCommand{change: change{q: q, action: queue.Flush, done: "flushed", optional: true}}
	cmd := &cobra.Command{
		Use:   "flush [ID...]",
		Short: "Try waiting messages now, and with --wait report what comes of it",
		Long: `flush makes queued messages due now: all of them, or the selected ones. Held and
refused messages are left alone. Next hops that are paused or backing off are
tried at once too, unless --keep-paused.

With --wait it reports each message's outcome as it happens and a summary, and
exits with 0 only if every selected message was delivered. A message that is
deferred again has its outcome; with --retry it is tried every few seconds until
--timeout. The time-out ends the wait, not the delivery. Where the next hop turns
out to be unreachable the wait ends early. --json prints a line of JSON for each
step.
` + filterHelp,
		Example: `  understudy queue flush
  understudy queue flush --wait --timeout 10m
  understudy queue flush --domain example.com --wait --retry --timeout 1h --quiet`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !c.wait {
				if c.retry || c.timeout != 0 || c.quiet {
					return usageError(errors.New("--retry, --timeout and --quiet need --wait"))
				}
				return c.run(cmd, args)
			}
			if c.opt.DryRun {
				return c.run(cmd, args)
			}
			return c.follow(cmd, args)
		},
	}
	c.flags(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&c.wait, "wait", false, "wait for the outcome of every message")
	fl.DurationVar(&c.timeout, "timeout", 0, "wait at most this `long` (0: as long as it takes)")
	fl.BoolVar(&c.retry, "retry", false, "keep trying deferred messages until --timeout")
	fl.BoolVarP(&c.quiet, "quiet", "q", false, "report only messages that were not delivered")
	fl.BoolVar(&c.keep, "keep-paused", false, "leave paused next hops paused")
	return cmd
}

// follow flushes and waits.
func (c *flushCommand) follow(cmd *cobra.Command, args []string) error {
	sel, err := c.f.selection(c.q.a, args)
	if err != nil {
		return err
	}
	if c.retry && c.timeout == 0 {
		return usageError(errors.New("--retry needs --timeout"))
	}
	if c.timeout < 0 {
		return usageError(errors.New("--timeout: must not be negative"))
	}
	client, err := c.q.online(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	req := admin.FlushRequest{Selection: sel, KeepPaused: c.keep, Retry: c.retry, Timeout: c.timeout}
	view := &flushView{a: c.q.a, quiet: c.quiet, json: c.asJSON}
	err = client.Flush(cmd.Context(), req, view.line)
	view.closeBar()
	if err != nil {
		return c.q.explain(client, err)
	}
	return view.verdict()
}

// flushView shows a flush: a bar on a terminal, lines elsewhere, JSON if wanted.
type flushView struct {
	a           *app
	quiet, json bool
	bar         *progressbar.ProgressBar
	end         admin.FlushSummary
	failed      []admin.FlushMessage
	lastWaiting string
}

// line shows one line of the daemon's report.
func (v *flushView) line(l admin.FlushLine) error {
	if l.Message != nil && l.Message.Final && l.Message.Outcome != admin.OutcomeDelivered {
		v.failed = append(v.failed, *l.Message)
	}
	if l.End != nil {
		v.end = *l.End
	}
	if v.json {
		return v.jsonLine(l)
	}
	switch {
	case l.Start != nil:
		v.start(l.Start)
	case l.Message != nil:
		v.message(l.Message)
	case l.Progress != nil:
		v.progress(l.Progress)
	}
	return nil
}

func (v *flushView) jsonLine(l admin.FlushLine) error {
	line, err := compactJSON(l)
	if err != nil {
		return err
	}
	_, err = v.a.jsonOut().Write(line)
	return err
}

func (v *flushView) start(s *admin.FlushStart) {
	for _, h := range s.Resumed {
		v.a.warnf("next hop %s was not up: trying it now\n", safe(h))
	}
	if s.Total == 0 {
		return
	}
	if f := terminalOf(v.a.Err); f != nil {
		v.bar = progressbar.NewOptions(s.Total,
			progressbar.OptionSetWriter(f),
			progressbar.OptionSetDescription("delivering"),
			progressbar.OptionShowCount(),
			progressbar.OptionShowIts(),
			progressbar.OptionSetItsString("msg"),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionFullWidth())
		return
	}
	v.a.printf("flushing %s, %s\n", plural(s.Total, "message"), humanBytes(s.Bytes))
}

func (v *flushView) message(m *admin.FlushMessage) {
	if v.bar != nil && m.Final {
		_ = v.bar.Add(1) // only a picture
	}
	if v.quiet && m.Outcome == admin.OutcomeDelivered {
		return
	}
	if v.bar != nil {
		if m.Outcome == admin.OutcomeDelivered {
			return // the bar counts it
		}
		_ = v.bar.Clear()
	}
	v.a.printf("%s\n", outcomeLine(m))
}

func (v *flushView) progress(p *admin.FlushProgress) {
	if p.Waiting == v.lastWaiting || p.Waiting == "" {
		return
	}
	v.lastWaiting = p.Waiting
	if v.bar != nil {
		_ = v.bar.Clear()
	}
	v.a.warnf("%d of %d done; %s\n", p.Done, p.Total, safe(p.Waiting))
}

func (v *flushView) closeBar() {
	if v.bar != nil {
		_ = v.bar.Exit() // only a picture
		v.a.warnf("\n")
	}
}

// verdict prints the summary and decides the exit code.
func (v *flushView) verdict() error {
	if !v.json {
		v.a.printf("%s\n", summaryLine(v.end))
	}
	if v.end.Delivered() {
		return nil
	}
	if v.json || terminalOf(v.a.Out) == nil { // else they were just shown
		for i := range v.failed {
			v.a.warnf("%s\n", outcomeLine(&v.failed[i]))
		}
	}
	return fmt.Errorf("%d of %s not delivered", v.end.Total-v.end.Outcomes[admin.OutcomeDelivered], plural(v.end.Total, "message"))
}

// summaryLine is "3 messages in 1.2 s: 2 delivered, 1 deferred".
func summaryLine(s admin.FlushSummary) string {
	if s.Total == 0 {
		return "nothing to flush"
	}
	var parts []string
	for _, o := range []admin.Outcome{
		admin.OutcomeDelivered, admin.OutcomeDeferred, admin.OutcomeRefused, admin.OutcomeHeld,
		admin.OutcomeDeleted, admin.OutcomeSkipped, admin.OutcomeWaiting,
	} {
		if n := s.Outcomes[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	text := fmt.Sprintf("%s in %.1f s: %s", plural(s.Total, "message"), s.Seconds, strings.Join(parts, ", "))
	if s.TimedOut {
		text += " (time-out)"
	}
	return text
}

// outcomeLine is one message's outcome with the next hop's words.
func outcomeLine(m *admin.FlushMessage) string {
	var text strings.Builder
	text.WriteString(safe(m.ID) + ": " + safe(string(m.Outcome)))
	if m.Text != "" {
		text.WriteString(": " + safe(m.Text))
	}
	seen := map[string]bool{}
	for _, r := range m.Recipients {
		words := safe(r.String())
		if r.Relay != "" {
			words += " (" + safe(r.Relay) + ")"
		}
		switch {
		case m.Outcome != admin.OutcomeDelivered && r.Outcome != admin.OutcomeDelivered:
			text.WriteString("; " + safe(r.Address) + ": " + words)
		case m.Outcome == admin.OutcomeDelivered && !seen[words]:
			text.WriteString(": " + words)
			seen[words] = true
		}
	}
	return text.String()
}
