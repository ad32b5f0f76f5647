package admin

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenUnix(t *testing.T) {
	t.Parallel()
	cfg := Config{Socket: socketPath(t), Mode: "0640"}
	a, err := listenUnix(cfg)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(cfg.Socket)
	if err != nil || info.Mode().Perm() != 0o640 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("socket: %v, %v", info, err)
	}
	if _, err := listenUnix(cfg); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "process") {
		t.Errorf("second daemon: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(cfg.Socket); !os.IsNotExist(err) {
		t.Errorf("after close: %v", err)
	}
}

func TestListenUnixReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	cfg := Config{Socket: socketPath(t), Mode: "0660"}
	// A daemon that was killed leaves its socket, and may leave a half-made one.
	for _, p := range []string{cfg.Socket, cfg.Socket + ".new"} {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		_ = ln.Close()
	}
	s, err := listenUnix(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}

func TestListenUnixSparesALiveDaemonWithoutLock(t *testing.T) {
	t.Parallel()
	cfg := Config{Socket: socketPath(t), Mode: "0660"}
	ln, err := net.Listen("unix", cfg.Socket) //nolint:noctx // in a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if _, err := listenUnix(cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}

func TestListenUnixSparesFiles(t *testing.T) {
	t.Parallel()
	cfg := Config{Socket: socketPath(t), Mode: "0660"}
	if err := os.WriteFile(cfg.Socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(cfg); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("got %v", err)
	}
	if data, _ := os.ReadFile(cfg.Socket); string(data) != "precious" {
		t.Errorf("the file is now %q", data)
	}
}

func TestCloseSparesASuccessor(t *testing.T) {
	t.Parallel()
	cfg := Config{Socket: socketPath(t), Mode: "0660"}
	a, err := listenUnix(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody replaced the socket by force, lock file and all.
	_ = os.Remove(cfg.Socket + ".lock")
	_ = os.Remove(cfg.Socket)
	b, err := listenUnix(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	_ = a.Close()
	if _, err := os.Lstat(cfg.Socket); err != nil {
		t.Errorf("the old daemon removed the new one's socket: %v", err)
	}
}

func TestSocketOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("giving files away needs root")
	}
	cfg := Config{Socket: socketPath(t), Mode: "0660", Owner: "nobody", Group: "12345"}
	s, err := listenUnix(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var st unix.Stat_t
	if err := unix.Stat(cfg.Socket, &st); err != nil || st.Uid == 0 || st.Gid != 12345 {
		t.Errorf("uid %d, gid %d, %v", st.Uid, st.Gid, err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	good := Config{Socket: "/run/understudy/admin.sock", Mode: "0660", Listen: "127.0.0.1:7026"}
	tests := []struct {
		name string
		edit func(*Config)
		want []string
	}{
		{"good", func(*Config) {}, nil},
		{"no listener", func(c *Config) { c.Listen = "" }, nil},
		{"all wrong", func(c *Config) {
			*c = Config{Socket: "x", Mode: "rw", Owner: "no such user", Group: "no such group", Listen: "7026", AllowedHosts: []string{"http://x/"}}
		}, []string{"admin.socket:", "admin.mode:", "admin.owner:", "admin.group:", "admin.listen:", "admin.allowed_hosts:"}},
		{"no socket", func(c *Config) { c.Socket = "" }, []string{"admin.socket: must not be empty"}},
		{"long socket", func(c *Config) { c.Socket = "/" + strings.Repeat("x", 200) }, []string{"admin.socket: path of 201 bytes"}},
		{"open to all", func(c *Config) { c.Mode = "0666" }, []string{"admin.mode:"}},
		{"bad port", func(c *Config) { c.Listen = "127.0.0.1:http-alt" }, []string{"admin.listen: port"}},
		{"port 0", func(c *Config) { c.Listen = ":0" }, []string{"admin.listen: port 0"}},
	}
	for _, tt := range tests {
		c := good
		tt.edit(&c)
		err := c.Validate()
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: lacks %q: %v", tt.name, w, err)
			}
		}
	}
}
