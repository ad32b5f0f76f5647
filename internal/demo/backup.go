package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

// How long the backup may take to come up, and to stop.
const (
	startLimit = 30 * time.Second
	stopLimit  = 15 * time.Second
	pollEvery  = 20 * time.Millisecond
)

// backup is the real program: this binary, running serve as a child process.
type backup struct {
	binary string
	dir    string

	client *admin.Client
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the child has ended
	how    error         // how it ended, once it has
	log    *tail
	addr   string // where it accepts mail
}

// newBackup writes the configuration and the recipients into dir.
func newBackup(binary, dir, primaryAddr string, people []string) (*backup, error) {
	b := &backup{binary: binary, dir: dir, client: admin.NewClient(filepath.Join(dir, "admin.sock"))}
	var list bytes.Buffer
	for _, p := range people {
		list.WriteString(p + "\n")
	}
	files := map[string]string{
		"recipients": list.String(),
		"understudy.yaml": fmt.Sprintf(`site: b
data_dir: %[1]s/data
domains: [demo.example]
admin: {socket: %[1]s/admin.sock}
smtp:
  listen: ["127.0.0.1:0"]
  hostname: mx2.demo.example
  recipients: {source: file, path: %[1]s/recipients}
  deliver: {to_peer: "smtp://%[2]s"}
  queue: {reserve_bytes: 64MiB}
`, dir, primaryAddr),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("prepare backup: %w", err)
		}
	}
	return b, nil
}

// start runs the child and waits until it accepts mail.
func (b *backup) start(ctx context.Context) error {
	b.log = &tail{}
	// Not CommandContext: the demo ends it by name, so that no way out leaves it.
	b.cmd = exec.Command(b.binary, "serve", "-c", filepath.Join(b.dir, "understudy.yaml")) //nolint:noctx // stop and kill end it
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	b.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	// If the demo itself is killed, its child must not stay.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start backup: %w", err)
	}
	b.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		b.how = cmd.Wait()
		close(ended)
	}(b.cmd, b.ended)

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if st, err := b.client.Status(ctx); err == nil && st.PID == b.cmd.Process.Pid {
			for _, l := range st.Listeners {
				if l.Name == "smtp" {
					b.addr = l.Address
					return nil
				}
			}
		}
		select {
		case <-b.ended:
			b.cmd = nil
			return fmt.Errorf("backup ended at once (%w): %s", errors.Join(b.how, errEnded), b.log)
		case <-ctx.Done():
			return fmt.Errorf("backup does not answer: %w: %s", context.Cause(ctx), b.log)
		case <-tick.C:
		}
	}
}

var errEnded = errors.New("process ended")

// kill ends the child the hard way: SIGKILL, as a power cut would.
func (b *backup) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill() // it may have ended already
	<-b.ended
	b.cmd = nil
}

// stop ends the child the polite way.
func (b *backup) stop() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-b.ended:
		b.cmd = nil
	case <-time.After(stopLimit):
		b.kill()
	}
}

// queued lists what it keeps.
func (b *backup) queued(ctx context.Context) ([]queue.Summary, error) {
	var out []queue.Summary
	err := b.client.List(ctx, admin.Selection{}, func(s queue.Summary) error {
		out = append(out, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the backup's queue: %w", err)
	}
	return out, nil
}

// flush delivers everything now and waits, like "understudy queue flush --wait".
func (b *backup) flush(ctx context.Context, limit time.Duration) (admin.FlushSummary, error) {
	var sum admin.FlushSummary
	err := b.client.Flush(ctx, admin.FlushRequest{Retry: true, Timeout: limit}, func(l admin.FlushLine) error {
		if l.End != nil {
			sum = *l.End
		}
		return nil
	})
	if err != nil {
		return sum, fmt.Errorf("flush the backup's queue: %w", err)
	}
	return sum, nil
}

// tail keeps the last lines a child wrote.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailBytes; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
