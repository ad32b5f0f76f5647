package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"understudy/integration/lab"
	"understudy/integration/mailpair"
)

var folders = []string{"INBOX", "Archive", "Sent", "Lists/go", "Work"}

// tool brings one account of both servers together, once.
type tool struct {
	name string
	// command is what is run in dir; nil means the floor.
	command func(l *labPair, dir, user string) []string
}

func tools(only string) []tool {
	all := []tool{
		{"floor", nil},
		{"understudy", understudyCommand},
		{"mbsync", mbsyncCommand},
		{"interimap", interimapCommand},
		{"dsync", dsyncCommand},
	}
	var out []tool
	for _, t := range all {
		if only == "" || t.name == "floor" || strings.Contains(only, t.name) {
			out = append(out, t)
		}
	}
	return out
}

// sample is one run.
type sample struct {
	took  time.Duration
	bytes int64 // with side B
	maxKB int64 // largest resident size of the process
}

// run measures one run of a tool.
func (l *labPair) run(t tool, dir, user string) sample {
	before := l.relays[1].bytes.Load()
	start := time.Now()
	if t.command == nil {
		if err := mailpair.Floor(l.h.Context(), l.addr[0], l.addr[1], user, folders); err != nil {
			l.h.Fatalf("floor: %v", err)
		}
		return sample{time.Since(start), l.relays[1].bytes.Load() - before, 0}
	}
	args := t.command(l, dir, user)
	start = time.Now()
	cmd := exec.CommandContext(l.h.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		l.h.Fatalf("%v: %v", args, err)
	}
	ended := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- watch(cmd.Process.Pid, ended) }()
	err := cmd.Wait()
	took := time.Since(start)
	close(ended)
	s := sample{took: took, bytes: l.relays[1].bytes.Load() - before, maxKB: <-peak}
	if err != nil && t.name == "understudy" {
		l.h.Fatalf("%v: %v\n%s", args, err, out.String())
	} else if err != nil {
		l.h.Logf("%v: %v\n%.600s", args, err, out.String())
	}
	return s
}

func (l *labPair) write(dir, name, text string) string {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.h.Fatalf("%v", err)
	}
	return path
}

func hostPort(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(addr) // the lab made it
	return host, port
}

func understudyCommand(l *labPair, dir, user string) []string {
	return []string{lab.Binary(l.h), "-c", l.config(dir, user), "mailsync", "run", "--all", "--once"}
}

// config is understudy's, for the accounts named in users, one a line.
func (l *labPair) config(dir, users string) string {
	l.write(dir, "secret", "secret\n")
	l.write(dir, "accounts", users+"\n")
	return l.write(dir, "us.yaml", fmt.Sprintf(`site: a
primary: a
data_dir: %[1]s/data
mailsync:
  sites:
    a: {address: "imap://%[2]s"}
    b: {address: "imap://%[3]s"}
  auth: {mechanism: plain, master: master, password_file: %[1]s/secret}
  accounts: {file: %[1]s/accounts}
  guard: {off: true}
`, dir, l.addr[0], l.addr[1]))
}

func mbsyncCommand(l *labPair, dir, user string) []string {
	var b strings.Builder
	for i, side := range []string{"a", "b"} {
		host, port := hostPort(l.addr[i])
		fmt.Fprintf(&b, "IMAPStore %s\nHost %s\nPort %s\nUser %s\nPass x\nSSLType None\nAuthMechs LOGIN\n\n", side, host, port, user)
	}
	fmt.Fprintf(&b, "Channel c\nFar :a:\nNear :b:\nPatterns *\nCreate Both\nExpunge Both\nSync All\nCopyArrivalDate yes\nSyncState %s/state/\n", dir)
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		l.h.Fatalf("%v", err)
	}
	return []string{"mbsync", "-q", "-c", l.write(dir, "mbsyncrc", b.String()), "c"}
}

func interimapCommand(l *labPair, dir, user string) []string {
	var b strings.Builder
	fmt.Fprintf(&b, "database = %s/interimap.db\n", dir)
	for i, side := range []string{"local", "remote"} {
		host, port := hostPort(l.addr[i])
		fmt.Fprintf(&b, "\n[%s]\ntype = imap\nhost = %s\nport = %s\nusername = %s\npassword = x\nSTARTTLS = NO\ncompress = NO\n", side, host, port, user)
	}
	return []string{"interimap", "--quiet", "--config=" + l.write(dir, "interimaprc", b.String())}
}

// dsyncCommand talks through a pipe: neither the relay nor the delay sees it.
func dsyncCommand(l *labPair, _, user string) []string {
	conf := func(i int) string { return filepath.Join(l.servers[i].Dir, "dovecot.conf") }
	return []string{"doveadm", "-c", conf(0), "sync", "-u", user, "env", "-i", "PATH=" + os.Getenv("PATH"), "doveadm", "-c", conf(1), "dsync-server", "-u", user}
}

// watch is the largest VmHWM of a process in KiB, looked at until it ends. (What wait4
// says of a child includes the parent it was forked from.)
func watch(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, rest, ok := strings.Cut(string(text), "VmHWM:"); err == nil && ok {
			if n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64); err == nil {
				peak = max(peak, n)
			}
		}
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
	}
}
