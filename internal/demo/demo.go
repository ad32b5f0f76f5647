package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Options says how the demo runs.
type Options struct {
	// Binary is the understudy binary that plays the backup.
	Binary string
	// Out is where the timeline is written.
	Out io.Writer
	// Messages is how many messages each act sends; 0 is 25.
	Messages int
}

// ErrBroken is returned when a promise was not kept.
var ErrBroken = errors.New("the demo found a broken promise")

// flushLimit bounds the hand-over at the end.
const flushLimit = 60 * time.Second

// story is one run of the demo.
type story struct {
	opts    Options
	began   time.Time
	primary primary
	backup  *backup
	sent    []mail
	// doubtful are messages whose 250 was lost in the crash: the sender sent them
	// again, so two copies are right.
	doubtful map[int]bool
	proofs   []proof
}

// proof is one line of the summary.
type proof struct {
	what string
	ok   bool
	seen string
}

// Run plays the story. It returns ErrBroken if a promise was not kept, and any
// other error if the demo itself could not go on.
func Run(ctx context.Context, opts Options) error {
	if opts.Messages <= 0 {
		opts.Messages = 25
	}
	dir, err := os.MkdirTemp("", "understudy-demo-")
	if err != nil {
		return fmt.Errorf("prepare demo: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary directory harms nobody
	s := &story{opts: opts, began: time.Now(), doubtful: map[int]bool{}}
	defer s.primary.kill()
	defer func() {
		if s.backup != nil {
			s.backup.stop()
		}
	}()
	s.print("understudy demo: two mail servers on this machine, one of them about to die.\n\n")
	for _, act := range []func(context.Context, string) error{
		s.bothUp, s.primaryDies, s.backupCrashes, s.primaryReturns, s.audit,
	} {
		if err := act(ctx, dir); err != nil {
			return err
		}
	}
	return s.summary()
}

// bothUp is act one: a quiet day.
func (s *story) bothUp(ctx context.Context, dir string) error {
	s.act("A quiet day")
	if err := s.primary.start(ctx); err != nil {
		return err
	}
	s.say("primary", "is up on %s (a stand-in: a small SMTP server in this process)", s.primary.addr)
	var err error
	s.backup, err = newBackup(s.opts.Binary, dir, s.primary.addr, []string{"alice@demo.example", "bob@demo.example"})
	if err != nil {
		return err
	}
	if err := s.backup.start(ctx); err != nil {
		return err
	}
	s.say("backup", "is up on %s (the real thing: understudy serve, process %d)", s.backup.addr, s.backup.cmd.Process.Pid)

	took, err := s.deliver(ctx, s.batch())
	if err != nil {
		return err
	}
	s.say("senders", "sent %d messages; the primary took %d, the backup %d", took[0]+took[1], took[0], took[1])

	// A sender that ignores preferences, as spammers do, uses the backup anyway.
	direct := write(len(s.sent), 5, recipient)
	for _, m := range direct {
		if err := sendTo(ctx, s.backup.addr, m); err != nil {
			return fmt.Errorf("send to the backup: %w", err)
		}
	}
	s.sent = append(s.sent, direct...)
	if err := s.waitEmpty(ctx); err != nil {
		return err
	}
	s.say("backup", "passed on %d messages of senders that came to it first", len(direct))
	return nil
}

// primaryDies is act two: mail is accepted and kept, strangers are turned away.
func (s *story) primaryDies(ctx context.Context, _ string) error {
	s.act("The primary dies")
	s.primary.kill()
	s.say("primary", "is dead: connections are refused")
	took, err := s.deliver(ctx, s.batch())
	if err != nil {
		return err
	}
	s.say("senders", "sent %d messages; the backup took %d", took[0]+took[1], took[1])
	kept, err := s.backup.queued(ctx)
	if err != nil {
		return err
	}
	s.prove("mail is accepted and kept while the primary is dead", len(kept) == took[1], "%d in the queue", len(kept))
	for _, m := range kept[:min(3, len(kept))] {
		s.say("backup", "keeps %s for %s, %d bytes, %s", m.ID, m.Recipients[0].Address, m.SizeBytes, m.State)
	}
	if len(kept) > 3 {
		s.say("backup", "... and %d more", len(kept)-3)
	}
	for what, to := range map[string]string{
		"an unknown recipient is refused in the session": "nobody@demo.example",
		"other people's domains are refused":             "someone@elsewhere.example",
	} {
		err := sendTo(ctx, s.backup.addr, mail{to: to, text: []byte("Subject: x\r\n\r\nx\r\n")})
		s.prove(what, errors.Is(err, errRefused), "%v", err)
	}
	return nil
}

// backupCrashes is act three: SIGKILL while mail is coming in.
func (s *story) backupCrashes(ctx context.Context, _ string) error {
	s.act("The backup crashes too")
	batch := s.batch()
	half := len(batch) / 2
	before, err := s.backup.queued(ctx)
	if err != nil {
		return err
	}
	if _, err := s.deliver(ctx, batch[:half]); err != nil {
		return err
	}
	// One message is in flight when the power goes.
	inFlight := batch[half]
	cut := make(chan error, 1)
	go func() { cut <- sendTo(ctx, s.backup.addr, inFlight) }()
	s.backup.kill()
	s.say("backup", "was killed with SIGKILL after %d more messages, one of them in mid-air", half)
	if err := <-cut; err != nil {
		s.say("sender", "of the message in mid-air got no 250 and keeps it (%s)", firstLine(err))
		s.doubtful[inFlight.serial] = true
	} else {
		s.sent = append(s.sent, inFlight)
	}
	if err := s.backup.start(ctx); err != nil {
		return err
	}
	kept, err := s.backup.queued(ctx)
	if err != nil {
		return err
	}
	s.prove("everything answered 250 survives kill -9", len(kept) >= len(before)+half, "%d in the queue after the restart, %d had been answered 250", len(kept), len(before)+half)
	rest := batch[half+1:]
	if s.doubtful[inFlight.serial] {
		rest = batch[half:] // senders try again
	}
	took, err := s.deliver(ctx, rest)
	if err != nil {
		return err
	}
	s.say("senders", "sent the other %d, the interrupted one again", took[0]+took[1])
	return nil
}

// primaryReturns is act four: flush.
func (s *story) primaryReturns(ctx context.Context, _ string) error {
	s.act("The primary is back")
	kept, err := s.backup.queued(ctx)
	if err != nil {
		return err
	}
	if err := s.primary.start(ctx); err != nil {
		return err
	}
	s.say("primary", "is up again on %s", s.primary.addr)
	began := time.Now()
	sum, err := s.backup.flush(ctx, flushLimit)
	if err != nil {
		return err
	}
	s.say("backup", "understudy queue flush --wait: %v of %d in %s", sum.Outcomes, sum.Total, time.Since(began).Round(time.Millisecond))
	left, err := s.backup.queued(ctx)
	if err != nil {
		return err
	}
	s.prove("the queue empties when the primary is back", len(left) == 0, "%d of %d left", len(left), len(kept))
	return nil
}

// audit is the last act: every message is looked for, byte by byte.
func (s *story) audit(context.Context, string) error {
	s.act("Counting")
	missing, twice := 0, 0
	shapes := map[string]int{}
	for _, m := range s.sent {
		switch n := s.primary.copies(m.text); {
		case n == 0:
			missing++
			s.say("audit", "message %d (%s, sha256 %.12s) is missing or altered", m.serial, m.shape, sum(m.text))
		case n > 1 && !s.doubtful[m.serial]:
			twice++
			s.say("audit", "message %d is there %d times", m.serial, n)
		default:
			shapes[m.shape]++
		}
	}
	for shape, n := range shapes {
		s.say("audit", "%3d intact: %s", n, shape)
	}
	s.prove("no message was lost or altered", missing == 0, "%d sent, %d missing", len(s.sent), missing)
	s.prove("no message arrived twice", twice == 0, "%d twice", twice)
	return nil
}

// batch makes the messages of one act.
func (s *story) batch() []mail { return write(len(s.sent), s.opts.Messages, recipient) }

func recipient(i int) string {
	if i%2 == 0 {
		return "alice@demo.example"
	}
	return "bob+demo@demo.example"
}

// deliver sends each message as a sender would and counts who took it.
func (s *story) deliver(ctx context.Context, batch []mail) (took [2]int, err error) {
	for _, m := range batch {
		who, err := send(ctx, []string{s.primary.addr, s.backup.addr}, m)
		if err != nil {
			return took, fmt.Errorf("send message %d: %w", m.serial, err)
		}
		took[who]++
		s.sent = append(s.sent, m)
	}
	return took, nil
}

// waitEmpty waits until the backup has passed everything on.
func (s *story) waitEmpty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		kept, err := s.backup.queued(ctx)
		if err != nil {
			return err
		}
		if len(kept) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("backup still keeps %d messages: %w", len(kept), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (s *story) print(format string, args ...any) { _, _ = fmt.Fprintf(s.opts.Out, format, args...) }

// act begins a part of the timeline.
func (s *story) act(title string) { s.print("\n%s\n", title) }

// say writes one line of the timeline.
func (s *story) say(who, format string, args ...any) {
	s.print("  %6.2fs  %-8s %s\n", time.Since(s.began).Seconds(), who, fmt.Sprintf(format, args...))
}

// prove records whether a promise was kept.
func (s *story) prove(what string, ok bool, format string, args ...any) {
	s.proofs = append(s.proofs, proof{what: what, ok: ok, seen: fmt.Sprintf(format, args...)})
}

// summary is the table at the end.
func (s *story) summary() error {
	s.act("What was shown")
	broken := 0
	for _, p := range s.proofs {
		mark := "ok  "
		if !p.ok {
			mark = "FAIL"
			broken++
		}
		s.print("  %s  %-52s %s\n", mark, p.what, p.seen)
	}
	s.print("\nStand-ins: the primary and the senders. Real: the backup, its spool, its queue commands.\n")
	if broken > 0 {
		return fmt.Errorf("%w: %d of %d", ErrBroken, broken, len(s.proofs))
	}
	return nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
