package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// RspamdConfig says what differs from a plain Rspamd.
type RspamdConfig struct {
	// Local holds files of local.d by name; they replace those that are written by
	// default.
	Local map[string]string
	// Lua is rspamd.local.lua.
	Lua string
	// DNS is the name server, host:port; empty is one that knows no name.
	DNS string
}

// RspamdServer is a real Rspamd on ports of its own.
type RspamdServer struct {
	// Normal, Controller and Proxy are host:port of the workers; the proxy speaks
	// milter.
	Normal, Controller, Proxy string
	// Dir is its scratch directory, with its log in it.
	Dir string
	*Process
}

// rspamdPatience is how long a start may take: the first one on a machine compiles
// thousands of expressions.
const rspamdPatience = 3 * time.Minute

// StartRspamd starts the rspamd of this machine, without Redis unless Local says
// so. What it compiles is kept for the next test. It ends with the test. The
// caller has made sure that rspamd is installed.
func StartRspamd(tb testing.TB, cfg RspamdConfig) *RspamdServer {
	tb.Helper()
	dir := Dir(tb)
	cache := filepath.Join(os.TempDir(), fmt.Sprintf("understudy-rspamd-cache-%d", os.Geteuid()))
	s := &RspamdServer{Normal: FreePort(tb), Controller: FreePort(tb), Proxy: FreePort(tb), Dir: dir}
	if cfg.DNS == "" {
		cfg.DNS = emptyDNS(tb)
	}
	files := map[string]string{
		"options.inc": fmt.Sprintf("dns { nameserver = [\"%s\"]; timeout = 1s; retransmits = 1; }\nlocal_addrs = [127.0.0.0/8];\ncontrol_socket = \"%s/rspamd.sock mode=0600\";\nhs_cache_dir = \"%s\";\n",
			cfg.DNS, dir, cache),
		"worker-normal.inc":     fmt.Sprintf("bind_socket = \"%s\"; count = 1;\n", s.Normal),
		"worker-controller.inc": fmt.Sprintf("bind_socket = \"%s\"; password = \"lab\"; secure_ip = [\"127.0.0.1\"];\n", s.Controller),
		"worker-proxy.inc":      fmt.Sprintf("bind_socket = \"%s\"; upstream \"local\" { default = yes; self_scan = yes; hosts = \"%s\"; }\n", s.Proxy, s.Normal),
		"worker-fuzzy.inc":      "enabled = false;\n",
		"logging.inc":           fmt.Sprintf("type = \"file\"; filename = \"%s/rspamd.log\"; level = \"info\";\n", dir),
		"fuzzy_check.conf":      "enabled = false;\n",
	}
	maps.Copy(files, cfg.Local)
	local := filepath.Join(dir, "local")
	must(tb, os.MkdirAll(filepath.Join(local, "local.d"), 0o755))
	must(tb, os.MkdirAll(cache, 0o755))
	for name, text := range files {
		must(tb, os.WriteFile(filepath.Join(local, "local.d", name), []byte(text), 0o644))
	}
	must(tb, os.WriteFile(filepath.Join(local, "rspamd.local.lua"), []byte(cfg.Lua), 0o644))

	args := []string{
		"-f", "-c", "/etc/rspamd/rspamd.conf", "--var=LOCAL_CONFDIR=" + local, "--var=DBDIR=" + dir, "--var=RUNDIR=" + dir, "--var=LOGDIR=" + dir,
	}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("_rspamd")
		must(tb, err)
		uid, err := strconv.Atoi(u.Uid)
		must(tb, err)
		for _, d := range []string{dir, cache} {
			must(tb, os.Chown(d, uid, -1))
		}
		args = append(args, "-u", "_rspamd", "-g", "_rspamd")
	}
	path, err := exec.LookPath("rspamd")
	must(tb, err)
	s.Process = StartProcess(tb, dir, path, args...)
	s.wait(tb)
	return s
}

// wait returns when all workers answer.
func (s *RspamdServer) wait(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), rspamdPatience)
	defer cancel()
	for _, addr := range []string{s.Normal, s.Controller, s.Proxy} {
		for ping(ctx, addr) != nil {
			select {
			case <-ctx.Done():
				log, _ := os.ReadFile(filepath.Join(s.Dir, "rspamd.log"))
				tb.Fatalf("rspamd does not come up: %s\n%s", s.Output(), log[max(0, len(log)-4000):])
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// ping asks a worker for a sign of life; the proxy's milter port only accepts.
func ping(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	_ = c.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/ping", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	var refused *net.OpError
	if err != nil {
		if errors.As(err, &refused) && refused.Op == "dial" {
			return err
		}
		return nil // it accepted, and speaks another language
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// Freeze stops all its processes in their tracks, or lets them go on: the kernel
// still accepts connections, nobody answers.
func (s *RspamdServer) Freeze(frozen bool) {
	if frozen {
		s.Signal(syscall.SIGSTOP)
	} else {
		s.Signal(syscall.SIGCONT)
	}
}

// emptyDNS starts a name server that answers every question with NXDOMAIN.
func emptyDNS(tb testing.TB) string {
	tb.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // closed by the test's end
	must(tb, err)
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeNameError)
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		_ = server.ActivateAndServe()
		close(done)
	}()
	tb.Cleanup(func() {
		_ = pc.Close()
		<-done
	})
	return pc.LocalAddr().String()
}
