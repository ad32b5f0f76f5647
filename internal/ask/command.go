package ask

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// commandGrace is how long a command's pipes may stay open after it was killed.
const commandGrace = 2 * time.Second

// maxComplaintBytes bounds how much of a command's error output is reported.
const maxComplaintBytes = 2048

// Command runs a program and hands its standard output to read. What was read
// counts only if Command returns nil: the program has then ended with status 0.
// An error of read ends the program; when ctx is done, it and its children are
// killed.
func Command(ctx context.Context, argv []string, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the operator's own command
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
		return fmt.Errorf("run command: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run command: %w", err)
	}
	readErr := read(out)
	if readErr != nil {
		cancel()
	}
	waitErr := cmd.Wait()
	switch {
	case readErr != nil && !errors.Is(readErr, context.Canceled):
		return readErr
	case ctx.Err() != nil:
		return fmt.Errorf("run command: %w", context.Cause(ctx))
	case waitErr != nil:
		if s := complaint.String(); s != "" {
			return fmt.Errorf("run command: %w: %s", waitErr, s)
		}
		return fmt.Errorf("run command: %w", waitErr)
	}
	return nil
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
