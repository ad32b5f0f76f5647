package servers

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"understudy/integration/lab"
)

// Proxied is a server that learns its clients' addresses from a PROXY header.
type Proxied struct {
	*Server
	// Addr wants a PROXY v2 header first.
	Addr string
	logs string
}

// Log is what the server wrote about its clients.
func (p *Proxied) Log() string {
	p.tb.Helper()
	text, err := os.ReadFile(p.logs)
	if err != nil && !os.IsNotExist(err) {
		p.tb.Fatalf("read log: %v", err)
	}
	return string(text)
}

// dialable says that something listens.
func dialable(addr string) func() error {
	return func() error {
		c, err := net.Dial("tcp", addr) //nolint:noctx // of this machine
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// ProxiedSieve is a Dovecot as docs/tunnel.md configures it, with ManageSieve: its
// login service is that of IMAP, and its package goes together with Cyrus. Every
// user exists and needs no password; its greeting is greeting.
func ProxiedSieve(tb testing.TB, greeting string) *Proxied {
	tb.Helper()
	dir, addr := lab.Dir(tb), lab.FreeAddr(tb)
	uid, err := user.Lookup("nobody")
	if err != nil {
		tb.Skipf("no user nobody: %v", err)
	}
	host, port, _ := net.SplitHostPort(addr)
	put(tb, dir, map[string]string{"dovecot.conf": fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/mail.log
protocols = sieve
ssl = no
disable_plaintext_auth = no
auth_username_format = %%n
first_valid_uid = 1
mail_location = maildir:~/Maildir
login_greeting = %[5]s
login_log_format_elements = user=<%%u> rip=%%r
default_vsz_limit = 1G
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]s gid=%[2]s home=%[1]s/mail/%%n allow_all_users=yes
}
haproxy_trusted_networks = 127.0.0.0/8
service managesieve-login {
  inet_listener sieve {
    port = 0
  }
  inet_listener sieve_haproxy {
    address = %[3]s
    port = %[4]s
    haproxy = yes
  }
}
`, dir, uid.Uid, host, port, greeting)})
	for _, d := range []string{"run", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o777); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "mail"), 0o777); err != nil {
		tb.Fatal(err)
	}
	p := &Proxied{Addr: addr, logs: filepath.Join(dir, "mail.log")}
	p.Server = newServer(tb, dir, find(tb, "dovecot"), "-F", "-c", filepath.Join(dir, "dovecot.conf"))
	p.ready = dialable(addr)
	p.Start()
	return p
}

// ProxiedWeb is an nginx as docs/tunnel.md configures it, answering with text.
func ProxiedWeb(tb testing.TB, text string) *Proxied {
	tb.Helper()
	dir, addr := lab.Dir(tb), lab.FreeAddr(tb)
	put(tb, dir, map[string]string{"nginx.conf": strings.NewReplacer("DIR", dir, "ADDR", addr, "TEXT", text).Replace(`pid DIR/nginx.pid;
error_log DIR/error.log;
daemon off;
user root;
events { worker_connections 256; }
http {
  access_log DIR/access.log;
  client_body_temp_path DIR/tmp; proxy_temp_path DIR/tmp; fastcgi_temp_path DIR/tmp; uwsgi_temp_path DIR/tmp; scgi_temp_path DIR/tmp;
  server {
    listen ADDR proxy_protocol;
    set_real_ip_from 127.0.0.0/8;
    real_ip_header proxy_protocol;
    location / { return 200 "TEXT $remote_addr\n"; }
  }
}
`)})
	p := &Proxied{Addr: addr, logs: filepath.Join(dir, "access.log")}
	p.Server = newServer(tb, dir, find(tb, "nginx"), "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	p.ready = dialable(addr)
	p.Start()
	return p
}
