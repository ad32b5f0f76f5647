package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// BinaryEnv names the file that Binary builds, so that one build serves a whole
// test binary.
const BinaryEnv = "LAB_BINARY"

// readyLimit is how long the daemon may take from start to READY=1.
const readyLimit = 30 * time.Second

// Binary returns the path of the understudy command, building it the first time.
func Binary(h Host) string {
	h.Helper()
	path := os.Getenv(BinaryEnv)
	if path == "" {
		path = filepath.Join(Dir(h), "understudy")
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		h.Fatalf("lock the build: %v", err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		h.Fatalf("lock the build: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.CommandContext(h.Context(), "go", "build", "-trimpath", "-o", path, "understudy/cmd/understudy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("build understudy: %v\n%s", err, out)
	}
	return path
}

// Settings are configuration keys with their values, in dotted form:
// "smtp.queue.retry_first": "1s".
type Settings map[string]any

// Understudy is the real binary, run as `understudy serve` with a configuration
// of its own.
type Understudy struct {
	// SMTP and Web are addresses; Admin is the path of the operators' socket.
	SMTP, Web, Admin string
	// Dir holds configuration, socket and log; DataDir the spool.
	Dir, DataDir string
	// Notify hears what the daemon tells the service manager.
	Notify *Notify
	// Watchdog is the interval that the service manager asks for; 0 is none.
	Watchdog time.Duration

	host     Host
	binary   string
	settings Settings
	process  *process
}

// NewUnderstudy writes the configuration of a backup for example.test whose
// next hop is toPeer; Start starts it. settings add to or replace keys.
func NewUnderstudy(h Host, toPeer string, settings Settings) *Understudy {
	h.Helper()
	dir := Dir(h)
	u := &Understudy{
		SMTP: FreeAddr(h), Web: FreeAddr(h), Admin: filepath.Join(dir, "admin.sock"),
		Dir: dir, DataDir: filepath.Join(dir, "data"),
		Notify: StartNotify(h, dir), host: h, binary: Binary(h),
	}
	write(h, u.recipients(), "@example.test\n")
	u.settings = Settings{
		"site": "b", "data_dir": u.DataDir, "domains": []string{"example.test"},
		"admin.socket": u.Admin, "admin.listen": u.Web,
		"smtp.listen": []string{u.SMTP}, "smtp.hostname": "backup.lab.test",
		"smtp.recipients.source": "file", "smtp.recipients.path": u.recipients(),
		"smtp.deliver.to_peer":     toPeer,
		"smtp.queue.reserve_bytes": "16MiB",
	}
	maps.Copy(u.settings, settings)
	if data, ok := u.settings["data_dir"].(string); ok {
		u.DataDir = data
	}
	u.writeConfig()
	showOnFailure(h, "understudy's log", u.Log())
	return u
}

// Log is the path of the daemon's output.
func (u *Understudy) Log() string { return filepath.Join(u.Dir, "log") }

// Config is the path of its configuration.
func (u *Understudy) Config() string { return filepath.Join(u.Dir, "understudy.yaml") }

func (u *Understudy) recipients() string { return filepath.Join(u.Dir, "recipients") }

// AddRecipient adds an address, or "@domain", to those that exist.
func (u *Understudy) AddRecipient(address string) {
	u.host.Helper()
	old, err := os.ReadFile(u.recipients())
	if err != nil {
		u.host.Fatalf("add recipient: %v", err)
	}
	write(u.host, u.recipients(), string(old)+address+"\n")
}

// PID is the daemon's process id.
func (u *Understudy) PID() int { return u.process.cmd.Process.Pid }

// Set changes keys in the configuration file; a running daemon takes notice at
// SIGHUP.
func (u *Understudy) Set(settings Settings) {
	u.host.Helper()
	maps.Copy(u.settings, settings)
	u.writeConfig()
}

func (u *Understudy) writeConfig() {
	u.host.Helper()
	tree := map[string]any{}
	for key, value := range u.settings {
		at := tree
		words := strings.Split(key, ".")
		for _, w := range words[:len(words)-1] {
			next, ok := at[w].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[w] = next
			}
			at = next
		}
		at[words[len(words)-1]] = value
	}
	text, err := yaml.Marshal(tree)
	if err != nil {
		u.host.Fatalf("write configuration: %v", err)
	}
	write(u.host, u.Config(), string(text))
}

// Start starts the daemon and waits until it says READY=1.
func (u *Understudy) Start() {
	u.host.Helper()
	u.Launch()
	u.WaitReady()
}

// WaitReady waits until a launched daemon says READY=1.
func (u *Understudy) WaitReady() {
	u.host.Helper()
	if !u.Notify.wait("READY=1", readyLimit, u.process.ended) {
		u.host.Fatalf("understudy did not get ready; its log ends:\n%s", tail(u.Log(), 20))
	}
}

// Launch starts the daemon and does not wait.
func (u *Understudy) Launch() {
	u.host.Helper()
	u.Notify.Forget()
	env := []string{"NOTIFY_SOCKET=" + u.Notify.Socket}
	if u.Watchdog > 0 {
		env = append(env, fmt.Sprintf("WATCHDOG_USEC=%d", u.Watchdog.Microseconds()))
	}
	u.process = start(u.host, u.Log(), env, u.binary, "serve", "-c", u.Config())
}

// Kill ends the daemon as a crash would.
func (u *Understudy) Kill() { u.process.kill() }

// Signal sends a signal to the daemon.
func (u *Understudy) Signal(s syscall.Signal) {
	u.host.Helper()
	if err := u.process.cmd.Process.Signal(s); err != nil {
		u.host.Fatalf("signal understudy: %v", err)
	}
}

// Stop sends SIGTERM and waits for the end, which must be a clean one.
func (u *Understudy) Stop() {
	u.host.Helper()
	if err := u.process.stop(); err != nil {
		u.host.Fatalf("stop understudy: %v; its log ends:\n%s", err, tail(u.Log(), 20))
	}
}

// Ended is closed when the daemon is gone.
func (u *Understudy) Ended() <-chan struct{} { return u.process.ended }

// CLI runs an understudy command against the daemon. Codes 0 and 1 are answers
// (1: not everything was done); anything else ends the story.
func (u *Understudy) CLI(args ...string) (stdout string, code int) {
	u.host.Helper()
	cmd := exec.CommandContext(u.host.Context(), u.binary, append([]string{"-c", u.Config()}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 1 {
			u.host.Fatalf("understudy %v: %v\n%s%s", args, err, out.String(), complaint.String())
		}
		code = 1
	}
	return out.String(), code
}

// Queued is one message as `queue list --json` shows it.
type Queued struct {
	ID        string `json:"id"`
	Sender    string `json:"sender"`
	SizeBytes int64  `json:"size_bytes"`
	State     string `json:"state"`
}

// Queue lists the queue.
func (u *Understudy) Queue() []Queued {
	u.host.Helper()
	out, _ := u.CLI("queue", "list", "--json")
	var list []Queued
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		u.host.Fatalf("read queue list: %v", err)
	}
	return list
}
