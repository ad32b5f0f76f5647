package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"understudy/internal/admin"
	"understudy/spamsync/learn"
	"understudy/spamsync/mailfiles"
)

// learnAtOnce is how many messages are on their way to the daemon at a time.
const learnAtOnce = 4

// maxMailBytes bounds a message that is read for the daemon.
const maxMailBytes = 64 << 20

func newSpamCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spam",
		Short: "Judge, teach and compare the spam filters",
	}
	l := newAdminLink(a, cmd)
	cmd.AddCommand(newSpamStatusCommand(a, l), newSpamLearnCommand(a, l), newSpamCheckCommand(a, l), newSpamParityCommand(a),
		newSpamMergeCommand(a, l), newSpamRspamdConfigCommand(a))
	return cmd
}

func newSpamStatusCommand(a *app, l *adminLink) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what judges mail, what waits to be learned, and the last comparison",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := l.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := c.SpamStatus(cmd.Context())
			if err != nil {
				return l.explain(c, err)
			}
			if asJSON {
				return a.printDaemonJSON(st)
			}
			a.printSpamStatus(&st)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printSpamStatus(st *admin.SpamStatus) {
	a.field("Engine", safe(st.Engine)+", on failure "+safe(st.OnFailure))
	if st.Learn == nil {
		a.field("Learning", "nothing learns here")
	} else {
		text := fmt.Sprintf("%s to learn, %d learned ones are remembered", plural(st.Learn.Waiting, "message"), st.Learn.Remembered)
		if !st.Learn.Oldest.IsZero() {
			text += ", the oldest from " + stamp(st.Learn.Oldest)
		}
		a.field("Learning", text)
		if st.Learn.Reason != "" {
			a.field("PAUSED", "since "+stamp(st.Learn.Paused)+": "+safe(st.Learn.Reason))
		}
	}
	if st.Greylist > 0 {
		a.field("Greylist", plural(st.Greylist, "record")+" kept here until the shared state takes them")
	}
	if st.Replica != nil {
		a.printSpamReplica(st.Replica)
	}
	if st.Parity == nil {
		a.field("Parity", "not compared yet")
	} else {
		a.field("Parity", safe(st.Parity.Summary)+", at "+stamp(st.Parity.At))
	}
}

func newSpamLearnCommand(a *app, l *adminLink) *cobra.Command {
	var spam, ham, asJSON bool
	cmd := &cobra.Command{
		Use:   "learn (--spam | --ham) FILE|DIR...",
		Short: "Teach messages to the filter",
		Long: `learn gives messages to the running daemon, which teaches them to the engine. A
FILE is one message or an mbox, a DIR a Maildir or a directory of messages, - is
standard input. The daemon keeps them on disk until the engine has learned them;
what it learned before it does not learn again. Taught as the other class, the
newest counts.`,
		Example: `  understudy spam learn --spam /var/vmail/example.com/joe/.Junk
  understudy spam learn --ham archive.mbox`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if spam == ham {
				return usageError(errors.New("say either --spam or --ham"))
			}
			class := "ham"
			if spam {
				class = "spam"
			}
			c, err := l.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			t := &teaching{a: a, c: c, class: class, counts: map[learn.Added]int{}}
			err = t.run(cmd.Context(), args)
			if err != nil {
				err = l.explain(c, err)
			}
			return t.report(asJSON, err)
		},
	}
	cmd.Flags().BoolVar(&spam, "spam", false, "they are spam")
	cmd.Flags().BoolVar(&ham, "ham", false, "they are no spam")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// teaching is one run of learn.
type teaching struct {
	a     *app
	c     *admin.Client
	class string

	mu     sync.Mutex
	counts map[learn.Added]int
	failed int
}

// run teaches everything; an error ends it, a message that is refused does not.
func (t *teaching) run(ctx context.Context, paths []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(learnAtOnce)
	give := func(m mailfiles.Mail) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		group.Go(func() error { return t.one(ctx, m) })
		return nil
	}
	var walked error
	for _, p := range paths {
		if p == "-" {
			raw, err := io.ReadAll(io.LimitReader(t.a.In, maxMailBytes))
			if err == nil {
				err = give(mailfiles.Mail{Name: "standard input", Raw: raw})
			}
			walked = err
		} else {
			walked = mailfiles.Walk(p, maxMailBytes, give)
		}
		if walked != nil {
			break
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return walked
}

func (t *teaching) one(ctx context.Context, m mailfiles.Mail) error {
	added, err := t.c.Learn(ctx, t.class, bytes.NewReader(m.Raw))
	var e *admin.Error
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.counts[added]++
	case errors.As(err, &e) && (e.Code == admin.CodeTooLarge || e.Code == admin.CodeBadRequest):
		t.failed++
		t.a.warnf("%s: %s\n", safe(m.Name), safe(e.Text))
	default:
		return err
	}
	return nil
}

// report says what was done, also before an error.
func (t *teaching) report(asJSON bool, err error) error {
	n := t.counts
	if asJSON && (err == nil || len(n) > 0) {
		out := map[string]int{
			"queued": n[learn.Queued], "waiting_before": n[learn.Waits], "learned_before": n[learn.Taught], "refused": t.failed,
		}
		if e := t.a.printJSON(out); e != nil {
			return e
		}
	} else if err == nil {
		t.a.printf("%s to be learned as %s, %d waited already, %d learned before\n",
			plural(n[learn.Queued], "message"), t.class, n[learn.Waits], n[learn.Taught])
	}
	switch {
	case err != nil:
		return err
	case t.failed > 0:
		return fmt.Errorf("%s not taken", plural(t.failed, "message"))
	}
	return nil
}

func newSpamCheckCommand(a *app, l *adminLink) *cobra.Command {
	var (
		client string
		asJSON bool
		q      admin.SpamQuestion
	)
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Have the daemon's engine judge a message, with its reasons",
		Long: `check has the daemon's engine judge the message in FILE (- is standard input) and
prints action, score and every symbol with what it means. Rspamd and the builtin
engine remember nothing of it; of other engines the output says so.`,
		Example: "  understudy spam check --client 192.0.2.25 --helo mail.example.net --from a@example.net --rcpt joe@example.com m.eml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if client != "" {
				addr, err := netip.ParseAddr(client)
				if err != nil {
					return usageError(fmt.Errorf("--client: %q is no IP address", client))
				}
				q.Client = addr
			}
			raw, err := readMail(a.In, args[0])
			if err != nil {
				return err
			}
			c, err := l.client(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := c.CheckSpam(cmd.Context(), q, bytes.NewReader(raw))
			if err != nil {
				return l.explain(c, err)
			}
			if asJSON {
				return a.printDaemonJSON(answer)
			}
			a.printSpamAnswer(&answer)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&client, "client", "", "the sending client's `address`")
	f.StringVar(&q.HELO, "helo", "", "the `name` it gave")
	f.StringVar(&q.ReverseName, "rdns", "", "the `name` its address resolves to")
	f.StringVar(&q.Sender, "from", "", "envelope `sender`")
	f.StringSliceVar(&q.Recipients, "rcpt", nil, "envelope `recipient`; may be repeated")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func readMail(in io.Reader, path string) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open message: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxMailBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read message: %w", err)
	case len(raw) > maxMailBytes:
		return nil, fmt.Errorf("message is longer than %d bytes", maxMailBytes)
	case len(bytes.TrimSpace(raw)) == 0:
		return nil, errors.New("message is empty")
	}
	return raw, nil
}

func (a *app) printSpamAnswer(s *admin.SpamAnswer) {
	a.printf("%s: %s, score %.2f of %.2f\n", safe(s.Engine), safe(s.Action), s.Score, s.Required)
	if s.Text != "" {
		a.printf("the sender is told: %s\n", safe(s.Text))
	}
	width := 0
	for _, y := range s.Symbols {
		width = max(width, len(y.Name))
	}
	for _, y := range s.Symbols {
		a.printf("%8.2f  %s\n", y.Score, strings.TrimRight(fmt.Sprintf("%-*s  %s", width, safe(y.Name), safe(y.Why)), " "))
	}
	if s.Remembered {
		a.warnf("this engine has judged it as if it were real mail: it may remember it\n")
	}
}
