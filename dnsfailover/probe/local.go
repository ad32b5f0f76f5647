package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// redisProbe sends PING. Redis refuses even that while it loads, or where it may
// not write because its disk fails.
type redisProbe struct{ c Config }

func (p redisProbe) try(ctx context.Context) error {
	c, err := dial(ctx, p.c.Address)
	if err != nil {
		return err
	}
	defer c.close()
	if p.c.PasswordFile != "" {
		secret, err := password(p.c)
		if err != nil {
			return err
		}
		words := []string{"AUTH", secret}
		if p.c.User != "" {
			words = []string{"AUTH", p.c.User, secret}
		}
		if err := c.redis("+OK", words...); err != nil {
			return err
		}
	}
	return c.redis("+PONG", "PING")
}

func (c *conn) redis(want string, words ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := c.Write([]byte(b.String())); err != nil {
		return at(words[0], err)
	}
	text, err := c.line()
	if err == nil && text != want {
		err = fmt.Errorf("%.200s", text)
	}
	return at(words[0], err)
}

// diskProbe writes a file and syncs it. A disk that hangs cannot be interrupted:
// one try waits for it, and later ones say since when.
type diskProbe struct {
	c Config

	mu    sync.Mutex
	since time.Time // when the try that still hangs began
}

func (p *diskProbe) try(ctx context.Context) error {
	p.mu.Lock()
	if !p.since.IsZero() {
		since := p.since
		p.mu.Unlock()
		return at("write", fmt.Errorf("the disk has not answered for %s", time.Since(since).Round(time.Second)))
	}
	p.since = time.Now()
	p.mu.Unlock()
	done := make(chan error, 1)
	go func() { // ends when the disk answers; never more than one
		err := p.write()
		p.mu.Lock()
		p.since = time.Time{}
		p.mu.Unlock()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return at("write", ctx.Err())
	}
}

func (p *diskProbe) write() error {
	var st unix.Statfs_t
	if err := unix.Statfs(p.c.Path, &st); err != nil {
		return at("statfs", err)
	}
	for _, f := range []struct {
		what        string
		free, total uint64
	}{{"space", st.Bavail, st.Blocks}, {"inodes", st.Ffree, st.Files}} {
		if share := 100 * float64(f.free) / float64(max(f.total, 1)); f.total > 0 && share < float64(p.c.MinFree) {
			return fmt.Errorf("%.1f %% of its %s are free, less than %d %%", share, f.what, p.c.MinFree)
		}
	}
	f, err := os.CreateTemp(p.c.Path, ".understudy-probe-")
	if err != nil {
		return at("create", err)
	}
	_, err = f.Write(make([]byte, 4096))
	if err == nil {
		err = f.Sync()
	}
	return at("write", errors.Join(err, f.Close(), os.Remove(f.Name())))
}

// commandProbe runs a program.
type commandProbe struct{ c Config }

// maxOutputBytes of a program is kept.
const maxOutputBytes = 64 << 10

func (p commandProbe) try(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.c.Command[0], p.c.Command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with its children
	cmd.WaitDelay = time.Second
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := out.b.Bytes()
	switch {
	case err != nil:
		first, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
		return at("run", fmt.Errorf("%w: %.200s", err, first))
	case !bytes.Contains(text, []byte(p.c.Expect)):
		return fmt.Errorf("%q is not in its output", p.c.Expect)
	}
	return nil
}

// limited keeps the beginning and takes the rest.
type limited struct{ b bytes.Buffer }

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), maxOutputBytes-l.b.Len())])
	return len(p), nil
}
