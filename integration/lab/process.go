package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit is how long a process may take to end after SIGTERM.
const stopLimit = 30 * time.Second

// process is a daemon that was started here.
type process struct {
	cmd *exec.Cmd
	// ended is closed when the process is gone and has been waited for.
	ended chan struct{}
	err   error
}

// start runs a command in a process group of its own, with its output appended
// to the file log. It is killed at the end of the story.
func start(h Host, log string, env []string, name string, args ...string) *process {
	h.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.Fatalf("open log: %v", err)
	}
	defer func() { _ = out.Close() }()
	// The process outlives h.Context by intention: cleanups stop it in order.
	cmd := exec.Command(name, args...) //nolint:noctx // ended by kill in the cleanup below
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	// Should the story itself be killed, the daemon goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.Fatalf("start %s: %v", name, err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	h.Cleanup(p.kill)
	return p
}

// kill ends the process and its children at once, as a power cut would.
func (p *process) kill() {
	select {
	case <-p.ended:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// stop asks the process to end. Ending by that very signal is fine (Dovecot
// does); an error is any other end. After stopLimit it is killed.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-p.ended:
		if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
			if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
				return nil
			}
		}
		return p.err
	case <-timer.C:
		p.kill()
		return errors.New("did not end after SIGTERM")
	}
}

// tail returns the last lines of a log file, for a story that failed.
func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// LogsEnv names a directory in which whole logs of failed stories are kept.
const LogsEnv = "LAB_LOGS"

// showOnFailure prints the end of a log when the story failed.
func showOnFailure(h Host, what, path string) {
	h.Cleanup(func() {
		if !h.Failed() {
			return
		}
		h.Logf("the end of %s:\n%s", what, tail(path, 40))
		if keep := os.Getenv(LogsEnv); keep != "" {
			copied := filepath.Join(keep, filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path))
			if text, err := os.ReadFile(path); err == nil && os.WriteFile(copied, text, 0o644) == nil {
				h.Logf("the whole of it is in %s", copied)
			}
		}
	})
}

// alive says whether a process runs; a zombie that waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// The state follows the command's name, which is in parentheses (proc(5)).
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// cleanupContext is for work that must happen after the story's own context ended.
func cleanupContext() context.Context { return context.Background() }
