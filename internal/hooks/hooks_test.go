package hooks

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func hookDir(t *testing.T) (dir string, owner uint32) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, uint32(os.Getuid())
}

func write(t *testing.T, dir, name, script string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // past the umask
		t.Fatal(err)
	}
}

func TestRunReturnsOutputAndStatus(t *testing.T) {
	t.Parallel()
	dir, owner := hookDir(t)
	write(t, dir, "say", `echo "site $UNDERSTUDY_SITE"; echo oops >&2; exit 3`, 0o755)
	res, err := Run(t.Context(), dir, owner, Request{Name: "say", Env: map[string]string{"SITE": "b; rm -rf /"}})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 3 || res.Output != "site b; rm -rf /\noops\n" {
		t.Errorf("result %+v", res)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	dir, owner := hookDir(t)
	write(t, dir, "good", "true", 0o755)
	write(t, dir, "group-writable", "true", 0o775)
	write(t, dir, "world-writable", "true", 0o757)
	write(t, dir, "not-executable", "true", 0o644)
	if err := os.Symlink("/bin/true", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		owner uint32
		env   map[string]string
		why   string
	}{
		{"../good", owner, nil, "no plain file name"},
		{"/bin/true", owner, nil, "no plain file name"},
		{"", owner, nil, "no plain file name"},
		{".hidden", owner, nil, "no plain file name"},
		{"absent", owner, nil, "does not exist"},
		{"group-writable", owner, nil, "writable by others"},
		{"world-writable", owner, nil, "writable by others"},
		{"not-executable", owner, nil, "not executable"},
		{"link", owner, nil, "no regular file"},
		{"good", owner + 1, nil, "belongs to uid"},
		{"good", owner, map[string]string{"LD_PRELOAD=x": "y"}, "environment key"},
	} {
		_, err := Run(t.Context(), dir, tc.owner, Request{Name: tc.name, Env: tc.env})
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%q: %v, want refused because %s", tc.name, err, tc.why)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), dir, owner, Request{Name: "good"}); !errors.Is(err, ErrRefused) {
		t.Errorf("a directory that others may write: %v", err)
	}
}

func TestRunEndsAHookThatHangs(t *testing.T) {
	t.Parallel()
	dir, owner := hookDir(t)
	write(t, dir, "hang", "sleep 600 & sleep 600", 0o755)
	began := time.Now()
	res, err := Run(t.Context(), dir, owner, Request{Name: "hang", Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != -1 || !strings.Contains(res.Output, "ended after 100ms") {
		t.Errorf("result %+v", res)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	dir, owner := hookDir(t)
	write(t, dir, "chatty", "head -c 1000000 /dev/zero | tr '\\0' x", 0o755)
	res, err := Run(t.Context(), dir, owner, Request{Name: "chatty"})
	if err != nil || res.ExitCode != 0 || len(res.Output) != maxOutputBytes {
		t.Errorf("%d bytes of output, exit %d, %v", len(res.Output), res.ExitCode, err)
	}
}

func TestCallThroughASocket(t *testing.T) {
	t.Parallel()
	dir, owner := hookDir(t)
	write(t, dir, "say", "echo hello", 0o755)
	socket := filepath.Join(t.TempDir(), "h.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if err := Serve(context.WithoutCancel(t.Context()), conn, dir, owner); err != nil {
				t.Error(err)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })

	res, err := Call(t.Context(), socket, Request{Name: "say"})
	if err != nil || res.Output != "hello\n" {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := Call(t.Context(), socket, Request{Name: "absent"}); !errors.Is(err, ErrRefused) {
		t.Errorf("absent hook: %v", err)
	}
}
