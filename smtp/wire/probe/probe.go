package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"
)

// Target is who is asked.
type Target struct {
	// Addr is "host:port".
	Addr string
	// From and To are addresses that the target takes mail from and for.
	From, To string
	// Unknown is a recipient that it refuses; probes that need one are skipped
	// where it is empty.
	Unknown string
	// Timeout bounds one probe; 0 means 30 s.
	Timeout time.Duration
}

// ErrSkipped is returned where the target lacks what a probe needs.
var ErrSkipped = errors.New("not applicable")

// Closed is what a step sees in the place of a reply when the connection ends.
const Closed = "closed"

// Step sends bytes and looks at one reply.
type Step struct {
	// Send is sent first; {FROM}, {TO}, {UNKNOWN}, {SIZE} and {SIZE+1} are replaced.
	Send string
	// FIN ends our direction of the connection afterwards.
	FIN bool
	// Want is a regular expression for the reply, or for Closed; empty reads nothing.
	Want string
	// Times repeats the step; 0 means once.
	Times int
	// Until, together with Times, ends the repetition at the first reply that it
	// matches; none at all is a failure. Want is not looked at.
	Until string
	// Pause waits before sending.
	Pause time.Duration
}

// Probe is one question.
type Probe struct {
	// Name says what a good server does.
	Name string
	// Early leaves the banner to the first step.
	Early bool
	// Needs is an EHLO keyword without which the probe makes no sense.
	Needs string
	// Slow marks a probe that takes seconds by design.
	Slow  bool
	Steps []Step
}

// Run asks. Nil: the server behaves. ErrSkipped: it cannot be asked. Anything else
// says what it did instead.
func (p Probe) Run(ctx context.Context, target Target) error {
	timeout := target.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", target.Addr)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = nc.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	t := &talk{nc: nc, r: bufio.NewReader(nc), target: target}
	if !p.Early {
		if err := t.hello(p.Needs); err != nil {
			return err
		}
	}
	for i, s := range p.Steps {
		if strings.Contains(s.Send, "{UNKNOWN}") && target.Unknown == "" {
			return fmt.Errorf("%w: no unknown recipient given", ErrSkipped)
		}
		if err := t.step(ctx, s); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

type talk struct {
	nc     net.Conn
	r      *bufio.Reader
	target Target
	size   string // as announced
}

func (t *talk) hello(needs string) error {
	if got := t.reply(); !strings.HasPrefix(got, "220") {
		return fmt.Errorf("banner is %q", got)
	}
	if _, err := io.WriteString(t.nc, "EHLO probe.example\r\n"); err != nil {
		return fmt.Errorf("send EHLO: %w", err)
	}
	got := t.reply()
	if !strings.HasPrefix(got, "250") {
		return fmt.Errorf("reply to EHLO is %q", got)
	}
	if m := regexp.MustCompile(`(?m)^250[ -]SIZE (\d+)`).FindStringSubmatch(got); m != nil {
		t.size = m[1]
	}
	if needs != "" && !regexp.MustCompile(`(?m)^250[ -]`+needs+`\b`).MatchString(got) {
		return fmt.Errorf("%w: %s is not offered", ErrSkipped, needs)
	}
	return nil
}

func (t *talk) step(ctx context.Context, s Step) error {
	send := strings.NewReplacer(
		"{FROM}", t.target.From, "{TO}", t.target.To, "{UNKNOWN}", t.target.Unknown,
		"{SIZE}", t.size, "{SIZE+1}", plusOne(t.size),
	).Replace(s.Send)
	for range max(1, s.Times) {
		if s.Pause > 0 {
			timer := time.NewTimer(s.Pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
		// A server that has closed already shows it in its reply.
		_, sendErr := io.WriteString(t.nc, send)
		if half, ok := t.nc.(*net.TCPConn); ok && s.FIN && sendErr == nil {
			sendErr = half.CloseWrite()
		}
		if s.Want == "" && s.Until == "" {
			continue
		}
		got := t.reply()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no answer to %.60q: %w", send, ctx.Err())
		case s.Until != "":
			if regexp.MustCompile(s.Until).MatchString(got) {
				return nil
			}
			if got == Closed {
				return fmt.Errorf("connection closed (%w) before a reply like %q", sendErr, s.Until)
			}
		case !regexp.MustCompile(s.Want).MatchString(got):
			return fmt.Errorf("%.60q was answered %.80q, want %q", send, got, s.Want)
		}
	}
	if s.Until != "" {
		return fmt.Errorf("%d times %.60q, and never a reply like %q", s.Times, send, s.Until)
	}
	return nil
}

func (t *talk) reply() string {
	var all strings.Builder
	for {
		line, err := t.r.ReadString('\n')
		if err != nil {
			return Closed
		}
		all.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// plusOne adds one to a decimal number.
func plusOne(s string) string {
	b := []byte(s)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != '9' {
			b[i]++
			return string(b)
		}
		b[i] = '0'
	}
	return "1" + string(b)
}
