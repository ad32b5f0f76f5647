package recipients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// commandGrace is how long a command's pipes may stay open after it was killed.
const commandGrace = 2 * time.Second

// maxComplaintBytes bounds how much of a command's error output is reported.
const maxComplaintBytes = 2048

// command is a fetcher that runs a program and reads its output. Output counts
// only if the program ends with status 0.
type command struct {
	argv   []string
	format string
	max    int64
}

var _ fetcher = (*command)(nil)

func newCommand(sc SourceConfig) *command {
	argv := sc.Command
	if sc.Shell {
		argv = []string{"/bin/sh", "-c", sc.Command[0]}
	}
	return &command{argv: argv, format: sc.Format, max: sc.MaxBytes}
}

func (c *command) fetch(ctx context.Context, l *listing) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...) //nolint:gosec // the operator's own command
	// The whole process group ends with the query: ssh under a script, for example.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return err
	}
	cmd.WaitDelay = commandGrace
	complaint := &tail{}
	cmd.Stderr = complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return time.Time{}, fmt.Errorf("run command: %w", err)
	}
	asOf := time.Now()
	if err := cmd.Start(); err != nil {
		return time.Time{}, fmt.Errorf("run command: %w", err)
	}
	readErr := l.read(ctx, out, c.format, c.max)
	if readErr != nil {
		cancel()
	}
	waitErr := cmd.Wait()
	switch {
	case readErr != nil && !errors.Is(readErr, context.Canceled):
		return time.Time{}, readErr
	case ctx.Err() != nil:
		return time.Time{}, fmt.Errorf("run command: %w", context.Cause(ctx))
	case waitErr != nil:
		if s := complaint.String(); s != "" {
			return time.Time{}, fmt.Errorf("run command: %w: %s", waitErr, s)
		}
		return time.Time{}, fmt.Errorf("run command: %w", waitErr)
	}
	return asOf, nil
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - maxComplaintBytes; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	s := strings.ToValidUTF8(string(bytes.TrimSpace(t.b)), "?")
	return strings.ReplaceAll(s, "\n", "; ")
}
