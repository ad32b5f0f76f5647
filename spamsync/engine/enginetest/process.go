package enginetest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Process is a server in the foreground, with a log of what it printed.
type Process struct {
	cmd *exec.Cmd
	log string
}

// StartProcess starts a program in a process group of its own; it ends with the
// test. Its output goes to a file in dir.
func StartProcess(tb testing.TB, dir, path string, args ...string) *Process {
	tb.Helper()
	p := &Process{log: filepath.Join(dir, "output")}
	out, err := os.Create(p.log)
	must(tb, err)
	defer func() { _ = out.Close() }()
	p.cmd = exec.CommandContext(context.Background(), path, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(tb, p.cmd.Start())
	tb.Cleanup(p.Stop)
	return p
}

// Output is what the program printed so far.
func (p *Process) Output() string {
	raw, _ := os.ReadFile(p.log)
	return string(raw)
}

// WaitFor returns when something listens on address (host:port).
func (p *Process) WaitFor(tb testing.TB, address string, patience time.Duration) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("%s does not come up: %s", p.cmd.Path, p.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Signal sends sig to all its processes.
func (p *Process) Signal(sig syscall.Signal) {
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// Stop ends it and its children; a second call does nothing.
func (p *Process) Stop() {
	if p.cmd == nil {
		return
	}
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(-pid, syscall.SIGCONT)
	_ = syscall.Kill(pid, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL) // children that are still busy
	<-done
	p.cmd = nil
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Dir makes a temporary directory with a short path that users other than the
// test's may read: servers give up root, and sockets live in it.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "us") //nolint:usetesting // those are deep and private
	must(tb, err)
	must(tb, os.Chmod(dir, 0o755))
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// FreePort returns an address on loopback that nobody listens on now.
func FreePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	must(tb, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
