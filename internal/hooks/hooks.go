package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Bounds of one call: a request is small, output is for a log, and a hook that
// does not end is ended.
const (
	maxRequestBytes = 16 << 10
	maxOutputBytes  = 64 << 10
	requestTimeout  = 10 * time.Second
	// DefaultTimeout is how long a hook may run where the request names no limit.
	DefaultTimeout = 30 * time.Second
	// MaxTimeout is the longest limit a request may name.
	MaxTimeout = 10 * time.Minute
	// killDelay is how long a hook that was told to end may take to do so.
	killDelay = 2 * time.Second
)

// ErrRefused is what Call and Run return for a hook that is not run: a name that
// is no plain file name, a file that is not there, or one that somebody other
// than its owner could have written.
var ErrRefused = errors.New("hook refused")

// Request names a hook and what it may know.
type Request struct {
	// Name is a file in the hooks directory: letters, digits, dot, dash, underscore.
	Name string `json:"name"`
	// Env reaches the hook as UNDERSTUDY_<KEY>; keys are upper-case letters and
	// underscores.
	Env map[string]string `json:"env,omitempty"`
	// Timeout ends the hook; 0 is DefaultTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Result is what a hook did.
type Result struct {
	// ExitCode is the hook's own; -1 where a signal ended it.
	ExitCode int `json:"exit_code"`
	// Output is its standard output and error, cut at 64 KiB.
	Output string `json:"output,omitempty"`
	// Refused says why the hook was not run; empty where it was.
	Refused string `json:"refused,omitempty"`
}

var (
	nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	envRE  = regexp.MustCompile(`^[A-Z][A-Z_]{0,63}$`)
)

// Run runs one hook of dir, which must belong to owner (0 in production) like
// the file itself, and neither may be writable by anybody else. An error that
// Is ErrRefused says why nothing was run.
func Run(ctx context.Context, dir string, owner uint32, req Request) (Result, error) {
	path, err := check(dir, owner, req)
	if err != nil {
		return Result{}, err
	}
	limit := req.Timeout
	if limit <= 0 {
		limit = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, min(limit, MaxTimeout))
	defer cancel()

	cmd := exec.CommandContext(ctx, path)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	for _, key := range slices.Sorted(maps.Keys(req.Env)) {
		cmd.Env = append(cmd.Env, "UNDERSTUDY_"+key+"="+req.Env[key])
	}
	// The whole group is ended: a hook may have started children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killDelay
	out := &bounded{max: maxOutputBytes}
	cmd.Stdout, cmd.Stderr = out, out

	err = cmd.Run()
	res := Result{Output: out.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		res.ExitCode = exit.ExitCode()
		if ctx.Err() != nil {
			res.Output += fmt.Sprintf("\nended after %s", limit)
		}
	default:
		return Result{}, fmt.Errorf("run hook %s: %w", req.Name, err)
	}
	return res, nil
}

// check returns the path of the hook, or why it must not run.
func check(dir string, owner uint32, req Request) (string, error) {
	if !nameRE.MatchString(req.Name) {
		return "", fmt.Errorf("%w: %q is no plain file name", ErrRefused, req.Name)
	}
	for key := range req.Env {
		if !envRE.MatchString(key) {
			return "", fmt.Errorf("%w: environment key %q", ErrRefused, key)
		}
	}
	if err := trusted(dir, owner, true); err != nil {
		return "", err
	}
	path := filepath.Join(dir, req.Name)
	if err := trusted(path, owner, false); err != nil {
		return "", err
	}
	return path, nil
}

// trusted says whether path belongs to owner and nobody else may write it.
// Symbolic links are not followed: what they point at was not looked at.
func trusted(path string, owner uint32, dir bool) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s does not exist", ErrRefused, path)
	}
	if err != nil {
		return fmt.Errorf("look at hook: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s has no owner", ErrRefused, path)
	case dir && !st.IsDir():
		return fmt.Errorf("%w: %s is no directory", ErrRefused, path)
	case !dir && !st.Mode().IsRegular():
		return fmt.Errorf("%w: %s is no regular file", ErrRefused, path)
	case !dir && st.Mode().Perm()&0o100 == 0:
		return fmt.Errorf("%w: %s is not executable", ErrRefused, path)
	case sys.Uid != owner:
		return fmt.Errorf("%w: %s belongs to uid %d, not to %d", ErrRefused, path, sys.Uid, owner)
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s is writable by others (%s)", ErrRefused, path, st.Mode().Perm())
	}
	return nil
}

// Serve answers one request read from conn; the service manager has accepted
// the connection (Accept=yes).
func Serve(ctx context.Context, conn io.ReadWriter, dir string, owner uint32) error {
	var req Request
	dec := json.NewDecoder(io.LimitReader(conn, maxRequestBytes))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return fmt.Errorf("read hook request: %w", err)
	}
	res, err := Run(ctx, dir, owner, req)
	if errors.Is(err, ErrRefused) {
		res.Refused = err.Error()
	} else if err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(res); err != nil {
		return fmt.Errorf("answer hook request: %w", err)
	}
	return nil
}

// Call asks the root unit behind socket to run a hook and waits for its end. It
// must not be retried blindly: the hook may have run though no answer came.
func Call(ctx context.Context, socket string, req Request) (Result, error) {
	limit := req.Timeout
	if limit <= 0 {
		limit = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit+requestTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return Result{}, fmt.Errorf("reach hook runner: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close() //nolint:errcheck // the answer has been read or the error returned
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return Result{}, fmt.Errorf("ask for hook %s: %w", req.Name, err)
	}
	var res Result
	if err := json.NewDecoder(io.LimitReader(conn, 8*maxOutputBytes)).Decode(&res); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Result{}, fmt.Errorf("wait for hook %s: %w", req.Name, err)
	}
	if res.Refused != "" {
		return res, fmt.Errorf("%w: %s", ErrRefused, strings.TrimPrefix(res.Refused, ErrRefused.Error()+": "))
	}
	return res, nil
}

// bounded keeps the first max bytes and swallows the rest.
type bounded struct {
	buf bytes.Buffer
	max int
}

// Write implements io.Writer; it never fails, so that a chatty hook goes on.
func (b *bounded) Write(p []byte) (int, error) {
	if room := b.max - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// String is what was kept.
func (b *bounded) String() string { return strings.ToValidUTF8(b.buf.String(), "?") }
