package servers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// startLimit is how long a server may take to answer.
const startLimit = 20 * time.Second

// Server is one server. It is used by one goroutine at a time.
type Server struct {
	// Dir holds its data, its sockets and its log.
	Dir string

	tb     testing.TB
	name   string
	args   []string
	attr   *syscall.SysProcAttr
	ready  func() error
	before func() // what a start needs done; nil is nothing

	cmd   *exec.Cmd     // nil while it is down
	ended chan struct{} // closed when cmd is gone and has been waited for
}

func newServer(tb testing.TB, dir, name string, args ...string) *Server {
	tb.Helper()
	s := &Server{Dir: dir, tb: tb, name: name, args: args, attr: &syscall.SysProcAttr{Setpgid: true}}
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			text, _ := os.ReadFile(s.log()) // what there is
			tb.Logf("log of %s:\n%s", filepath.Base(name), text[max(0, len(text)-2000):])
		}
	})
	return s
}

func (s *Server) log() string { return filepath.Join(s.Dir, filepath.Base(s.name)+".log") }

// Start starts the server and waits until it answers.
func (s *Server) Start() {
	s.tb.Helper()
	if s.before != nil {
		s.before()
	}
	out, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.tb.Fatalf("open log: %v", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(s.name, s.args...) //nolint:noctx // ended by Kill in the cleanup
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.Dir, out, out, s.attr
	if err := cmd.Start(); err != nil {
		s.tb.Fatalf("start %s: %v", s.name, err)
	}
	s.cmd, s.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // ends by a signal
		close(ended)
	}(s.ended)
	lab.Wait(s.tb, startLimit, "start of "+filepath.Base(s.name), func() error {
		select {
		case <-s.ended:
			s.tb.Fatalf("%s has ended at once", s.name)
		default:
		}
		return s.ready()
	})
}

// Kill ends the server at once, as a power cut would; one that is down stays so.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.ended
	s.cmd = nil
}

// Freeze lets the server hang: connections stay, nothing is answered.
func (s *Server) Freeze() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	// The signal is under way when kill returns; a thread may still answer.
	lab.Wait(s.tb, startLimit, "freeze of "+filepath.Base(s.name), s.stopped)
}

// stopped is nil when every thread of the server has stopped.
func (s *Server) stopped() error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// The state follows the name, which is in brackets and may hold anything.
		if i := bytes.LastIndexByte(text, ')'); i < 0 || !bytes.HasPrefix(text[i+1:], []byte(" T")) {
			return fmt.Errorf("%s: %s", path, text)
		}
	}
	return nil
}

// Thaw ends Freeze.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := syscall.Kill(-s.cmd.Process.Pid, sig); err != nil {
		s.tb.Fatalf("signal %s: %v", s.name, err)
	}
}

// run runs a tool of the server to its end.
func run(tb testing.TB, dir string, attr *syscall.SysProcAttr, name string, args ...string) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, attr
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", filepath.Base(name), err, out)
	}
}

// find returns the path of a program that require.Command has found.
func find(tb testing.TB, name string) string {
	tb.Helper()
	path, err := require.Find(name)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}
