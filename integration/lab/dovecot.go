package lab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"understudy/integration/require"
)

// Dovecot is a private instance of the real Dovecot with LMTP on TCP and on a
// unix socket, and one Maildir for each user, whoever that is. It needs root.
type Dovecot struct {
	// LMTP is host:port; Socket is a path.
	LMTP, Socket string
	// Dir holds the configuration, run-time files, mail and the log.
	Dir string

	host    Host
	process *process
}

// NewDovecot writes the configuration of an instance; Start starts it.
func NewDovecot(h Host) *Dovecot {
	h.Helper()
	d := &Dovecot{Dir: Dir(h), LMTP: FreeAddr(h), host: h}
	d.Socket = filepath.Join(d.Dir, "run", "lmtp")
	mkdir(h, -1, filepath.Join(d.Dir, "run"))
	mkdir(h, mailUID, filepath.Join(d.Dir, "mail"))
	address, port, err := net.SplitHostPort(d.LMTP)
	if err != nil {
		h.Fatalf("address of LMTP: %v", err)
	}
	write(h, d.conf(), fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/dovecot.log
protocols = lmtp
ssl = no
auth_username_format = %%n
first_valid_uid = 500
default_vsz_limit = 1G
mail_location = maildir:~/Maildir
postmaster_address = postmaster@lab.test
hostname = primary.lab.test
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s/mail/%%n allow_all_users=yes
}
service lmtp {
  process_limit = 20
  unix_listener lmtp {
    mode = 0666
  }
  inet_listener lmtp {
    address = %[3]s
    port = %[4]s
  }
}
`, d.Dir, mailUID, address, port))
	showOnFailure(h, "Dovecot's log", filepath.Join(d.Dir, "dovecot.log"))
	return d
}

func (d *Dovecot) conf() string { return filepath.Join(d.Dir, "dovecot.conf") }

// Start starts the instance and waits until it accepts connections.
func (d *Dovecot) Start() {
	d.host.Helper()
	path, err := require.Find("dovecot")
	if err != nil {
		d.host.Fatalf("find dovecot: %v", err)
	}
	// After a kill Dovecot would trust its old pid file.
	_ = os.Remove(filepath.Join(d.Dir, "run", "master.pid"))
	d.process = start(d.host, filepath.Join(d.Dir, "output"), nil, path, "-F", "-c", d.conf())
	Wait(d.host, 20*time.Second, "Dovecot accepts LMTP", func() error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(d.host.Context(), "tcp", d.LMTP)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// Stop ends the instance.
func (d *Dovecot) Stop() {
	d.host.Helper()
	if err := d.process.stop(); err != nil {
		d.host.Fatalf("stop Dovecot: %v", err)
	}
}

// Delivered reads the bodies' sums of every message in a user's mailbox.
func (d *Dovecot) Delivered(user string) map[int][]Sum {
	d.host.Helper()
	return readMaildir(d.host, filepath.Join(d.Dir, "mail", user, "Maildir"))
}
