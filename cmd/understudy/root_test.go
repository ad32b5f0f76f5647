package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"understudy/internal/config"
)

// TestEveryCommandExplainsItself holds what help, completion and the manual page
// are made of.
func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()
	a := &app{}
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short %q is no title", c.CommandPath(), c.Short)
		}
		if c.Args == nil && !c.HasSubCommands() && c.Name() != "help" {
			t.Errorf("%s: Args is not set: surplus arguments would pass unseen", c.CommandPath())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no usage", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRootCommand(a))
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{cause, 1},
		{usageError(cause), 2},
		{configError(cause), 2},
		{unreachableError(cause), 3},
		{fmt.Errorf("ask: %w", unreachableError(cause)), 3},
		{fmt.Errorf("load: %w", &config.Error{}), 2},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, got, c.want)
		}
		if c.err != nil && c.want != 2 && !errors.Is(c.err, cause) {
			t.Errorf("%v: the cause is hidden", c.err)
		}
	}
}

// brokenWriter fails as a full disk or a closed pipe does.
type brokenWriter struct{ err error }

// Write implements io.Writer.
func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }

func TestLostOutputIsNotSuccess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
		text string
	}{
		{syscall.ENOSPC, exitPartly, "understudy: write output: no space left on device\n"},
		{fmt.Errorf("write |1: %w", syscall.EPIPE), exitDone, ""}, // "| head" has seen enough
	} {
		var stderr bytes.Buffer
		a := &app{Out: brokenWriter{c.err}, Err: &stderr}
		if code := a.run(t.Context(), []string{"version"}); code != c.want || stderr.String() != c.text {
			t.Errorf("%v: exit %d, %q", c.err, code, stderr.String())
		}
	}
}
