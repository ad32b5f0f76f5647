package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"understudy/internal/config"
)

// app is one run of the command line: its streams, its environment and its
// global flags. Commands write through it and never to os.Stdout.
type app struct {
	// In, Out and Err are the standard streams.
	In       io.Reader
	Out, Err io.Writer
	// Environ is the environment as os.Environ gives it.
	Environ []string

	// configPath is the global flag -c/--config.
	configPath string
	// started says that a command's own code was reached: an error before that
	// is a usage error.
	started bool
}

// run executes the command line args (without the program's name) and returns
// the exit code. What went wrong is on a.Err.
func (a *app) run(ctx context.Context, args []string) int {
	out := &checkedWriter{w: a.Out}
	a.Out = out
	root := newRootCommand(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		err = usageError(err)
	}
	code := exitCode(err)
	if err != nil {
		a.report(cmd.CommandPath(), err)
	}
	// The reader's end of a pipe may close early ("| head"): not our fault.
	if out.err != nil && !errors.Is(out.err, syscall.EPIPE) {
		a.report(cmd.CommandPath(), fmt.Errorf("write output: %w", out.err))
		code = max(code, exitPartly)
	}
	return code
}

// report writes err to a.Err: the faults of a configuration one a line, and
// after a usage error where to read more.
func (a *app) report(command string, err error) {
	if ce, ok := errors.AsType[*config.Error](err); ok {
		for _, f := range ce.Faults {
			a.warnf("%s\n", f)
		}
		a.warnf("understudy: %s in the configuration\n", count(len(ce.Faults), "fault"))
		return
	}
	a.warnf("understudy: %v\n", err)
	if ee, ok := errors.AsType[*exitError](err); ok && ee.hint {
		a.warnf("Run %q for usage.\n", command+" --help")
	}
}

// count is "1 fault", "2 faults".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// printf writes to Out. A failed write is reported once, by run.
func (a *app) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Out, format, args...)
}

// warnf writes to Err; there is nobody left to tell when that fails.
func (a *app) warnf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Err, format, args...)
}

// printJSON writes v to Out as indented JSON and a newline.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode json: %w", err)
	}
	return nil
}

// checkedWriter remembers the first failed write, so that output lost to a full
// disk becomes an exit code without a check at every line.
type checkedWriter struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err != nil && c.err == nil {
		c.err = err
	}
	return n, err
}
