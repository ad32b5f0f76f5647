package lab

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/integration/require"
)

// mailUID owns mailboxes: any number will do, no system user is made.
const mailUID = 5000

// PostfixConfig describes a private Postfix.
type PostfixConfig struct {
	// Addr is where smtpd listens; empty picks a free port.
	Addr string
	// Domain is delivered to one Maildir, whatever the local part.
	Domain string
	// Main adds to or replaces main.cf's parameters.
	Main map[string]string
	// Quiet writes no log, for measurements.
	Quiet bool
}

// Postfix is a private instance of the real Postfix: configuration, queue, data
// and mailboxes are in a scratch directory. It needs root.
type Postfix struct {
	Addr string
	// Dir holds etc, queue, data, mail and the log.
	Dir string

	host Host
}

// NewPostfix writes the configuration of an instance; Start starts it.
func NewPostfix(h Host, config PostfixConfig) *Postfix {
	h.Helper()
	p := &Postfix{Addr: config.Addr, Dir: Dir(h), host: h}
	if p.Addr == "" {
		p.Addr = FreeAddr(h)
	}
	owner := lookupUID(h, "postfix")
	mkdir(h, -1, filepath.Join(p.Dir, "etc"), filepath.Join(p.Dir, "queue"))
	mkdir(h, owner, filepath.Join(p.Dir, "data"))
	mkdir(h, mailUID, filepath.Join(p.Dir, "mail"))
	write(h, filepath.Join(p.Dir, "etc", "main.cf"), p.mainCF(config))
	write(h, filepath.Join(p.Dir, "etc", "master.cf"), p.masterCF())
	h.Cleanup(p.Stop)
	if !config.Quiet {
		showOnFailure(h, "Postfix's log", p.log())
	}
	return p
}

func lookupUID(h Host, name string) int {
	h.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		h.Fatalf("find user: %v", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		h.Fatalf("user id of %s: %v", name, err)
	}
	return uid
}

func (p *Postfix) log() string { return filepath.Join(p.Dir, "postfix.log") }

func (p *Postfix) mainCF(config PostfixConfig) string {
	main := map[string]string{
		"compatibility_level":                 "3.6",
		"queue_directory":                     filepath.Join(p.Dir, "queue"),
		"data_directory":                      filepath.Join(p.Dir, "data"),
		"mail_owner":                          "postfix",
		"setgid_group":                        "postdrop",
		"myhostname":                          "primary.lab.test",
		"mynetworks":                          "127.0.0.0/8",
		"inet_interfaces":                     "127.0.0.1",
		"inet_protocols":                      "ipv4",
		"mydestination":                       "",
		"local_recipient_maps":                "",
		"alias_maps":                          "",
		"alias_database":                      "",
		"virtual_mailbox_domains":             config.Domain,
		"virtual_mailbox_base":                filepath.Join(p.Dir, "mail"),
		"virtual_mailbox_maps":                "static:box/",
		"virtual_uid_maps":                    "static:" + strconv.Itoa(mailUID),
		"virtual_gid_maps":                    "static:" + strconv.Itoa(mailUID),
		"virtual_mailbox_limit":               "0",
		"mailbox_size_limit":                  "0",
		"message_size_limit":                  "104857600",
		"smtpd_peername_lookup":               "no",
		"smtpd_banner":                        "$myhostname ESMTP",
		"smtpd_tls_security_level":            "none",
		"smtp_tls_security_level":             "none",
		"smtp_dns_support_level":              "disabled",
		"disable_dns_lookups":                 "yes",
		"smtpd_client_connection_count_limit": "0",
		"smtpd_relay_restrictions":            "permit_mynetworks, reject",
		"smtpd_recipient_restrictions":        "permit_mynetworks, reject",
		"default_process_limit":               "260",
		"in_flow_delay":                       "0",
	}
	if config.Quiet {
		main["maillog_file"] = ""
	} else {
		main["maillog_file"] = p.log()
		main["maillog_file_prefixes"] = p.Dir
	}
	maps.Copy(main, config.Main)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&b, "%s = %s\n", key, main[key])
	}
	return b.String()
}

// masterCF lists the services of a plain Postfix without chroot (the "n"s).
func (p *Postfix) masterCF() string {
	return p.Addr + ` inet n - n - 260 smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`
}

// Start starts the instance and waits until it greets.
func (p *Postfix) Start() {
	p.host.Helper()
	p.run("postfix", "start")
	Wait(p.host, 20*time.Second, "Postfix greets", func() error {
		c, err := Dial(p.host.Context(), p.Addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// Stop ends the instance and its children. It may be called at any time.
func (p *Postfix) Stop() {
	master := p.Master()
	if master == 0 {
		return
	}
	path, err := require.Find("postfix")
	if err != nil {
		return
	}
	// The story's context may be over: this is a cleanup too.
	_ = exec.Command(path, "-c", filepath.Join(p.Dir, "etc"), "stop").Run() //nolint:noctx // bounded by postfix itself
	_ = poll(cleanupContext(), stopLimit, func() error {
		if alive(master) {
			return fmt.Errorf("process %d lives", master)
		}
		return nil
	})
}

// Master is the process id of the instance's master; 0 where it does not run.
func (p *Postfix) Master() int {
	text, err := os.ReadFile(filepath.Join(p.Dir, "queue", "pid", "master.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !alive(pid) {
		return 0
	}
	return pid
}

// Release puts everything on hold back into the queue and starts a flush.
func (p *Postfix) Release() {
	p.host.Helper()
	p.run("postsuper", "-H", "ALL")
	p.run("postqueue", "-f")
}

// Purge empties the queue.
func (p *Postfix) Purge() {
	p.host.Helper()
	p.run("postsuper", "-d", "ALL")
}

// Queued is the number of messages in the queue, on hold or not.
func (p *Postfix) Queued() int {
	p.host.Helper()
	return strings.Count(p.run("postqueue", "-j"), "\n")
}

// Delivered reads the bodies' sums of every message in the mailbox.
func (p *Postfix) Delivered() map[int][]Sum {
	p.host.Helper()
	return readMaildir(p.host, filepath.Join(p.Dir, "mail", "box"))
}

// run runs one of Postfix's commands on this instance and returns its output.
func (p *Postfix) run(name string, args ...string) string {
	p.host.Helper()
	path, err := require.Find(name)
	if err != nil {
		p.host.Fatalf("find %s: %v", name, err)
	}
	cmd := exec.CommandContext(p.host.Context(), path, append([]string{"-c", filepath.Join(p.Dir, "etc")}, args...)...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		p.host.Fatalf("%s %v: %v\n%s", name, args, err, complaint.String())
	}
	return string(out)
}

// readMaildir reads the sums of all messages of a Maildir by number; -1 stands
// for what the lab did not write.
func readMaildir(h Host, dir string) map[int][]Sum {
	h.Helper()
	all := map[int][]Sum{}
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !os.IsNotExist(err) {
			h.Fatalf("read mailbox: %v", err)
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(dir, sub, e.Name()))
			if err != nil {
				h.Fatalf("read mailbox: %v", err)
			}
			id, ok := identify(text)
			if !ok {
				id = -1
			}
			all[id] = append(all[id], sum(body(text)))
		}
	}
	return all
}
