package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/integration/servers"
	"understudy/spamsync"
	"understudy/spamsync/corpus"
	"understudy/spamsync/learn"
	"understudy/spamsync/parity"
)

// rspamdServer is a real Rspamd with its own configuration.
type rspamdServer struct {
	// Normal, Controller and Milter are host:port.
	Normal, Controller, Milter string

	t     *testing.T
	site  string
	local string // LOCAL_CONFDIR
	db    string // DBDIR
	cmd   *exec.Cmd
}

// newRspamd writes the configuration of an Rspamd named site, which reads one Redis
// and writes to another. It does not start. Its compiled expressions are kept from
// run to run: compiling them takes longer than the test.
func newRspamd(t *testing.T, site, read, write, resolver string) *rspamdServer {
	t.Helper()
	require.Root(t)
	require.Command(t, "rspamd")
	r := &rspamdServer{
		t: t, site: site, Normal: lab.FreeAddr(t), Controller: lab.FreeAddr(t), Milter: lab.FreeAddr(t),
		local: filepath.Join(lab.Dir(t), "local"),
		db:    filepath.Join(os.TempDir(), "understudy-lab-rspamd", site),
	}
	owner, err := user.Lookup("_rspamd")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	for _, dir := range []string{filepath.Join(r.local, "local.d"), r.db} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir := r.local; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.OpenFile(r.db+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	entries, err := os.ReadDir(r.db)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".hs") { // all but compiled expressions is an earlier run's
			_ = os.RemoveAll(filepath.Join(r.db, e.Name()))
		}
	}
	if err := os.Chown(r.db, uid, gid); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(resolver)
	if err != nil {
		t.Fatal(err)
	}
	r.set("options.inc", fmt.Sprintf(`dns { nameserver = ["%s:%s"]; timeout = 5s; retransmits = 2; }
local_addrs = [127.0.0.0/8];
control_socket = "%s/rspamd.sock mode=0600";`, host, port, r.db))
	if read == write {
		r.set("redis.conf", fmt.Sprintf(`servers = "%s";`, write))
	} else { // twice: with one of each Rspamd 3.4 loads its scripts on one side only
		r.set("redis.conf", fmt.Sprintf(`read_servers = "%[1]s,%[1]s"; write_servers = "%[2]s";`, read, write))
	}
	r.set("classifier-bayes.conf", `backend = "redis"; autolearn = false; min_learns = 20;`)
	r.set("worker-normal.inc", fmt.Sprintf(`bind_socket = "%s"; count = 2;`, r.Normal))
	r.set("worker-controller.inc", fmt.Sprintf(`bind_socket = "%s"; secure_ip = ["127.0.0.1"];`, r.Controller))
	r.set("worker-proxy.inc", fmt.Sprintf(`bind_socket = "%s"; milter = yes; timeout = 60s; count = 2; upstream "local" { default = yes; self_scan = yes; }`, r.Milter))
	r.set("worker-fuzzy.inc", `enabled = false;`)
	r.set("logging.inc", fmt.Sprintf(`type = "file"; filename = "%s/rspamd.log"; level = "info";`, r.db))
	r.set("multimap.conf", fmt.Sprintf(`LAB_LIST { type = "from"; filter = "email:domain"; map = "%s"; symbol = "LAB_LIST"; score = 1.5; }`, r.mapFile()))
	r.put(r.mapFile(), "listed.example\n")
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(r.db, "rspamd.log"))
			t.Logf("log of rspamd %s:\n%s", site, text[max(0, len(text)-3000):])
		}
	})
	return r
}

// configdump is the command that prints its configuration.
func (r *rspamdServer) configdump() []string {
	return append(append([]string{"rspamadm"}, r.vars()...), "configdump", "-j", "-c", "/etc/rspamd/rspamd.conf")
}

// vars says where its directories are.
func (r *rspamdServer) vars() []string {
	vars := []string{"--var=LOCAL_CONFDIR=" + r.local}
	for _, v := range []string{"DBDIR", "RUNDIR", "LOGDIR"} {
		vars = append(vars, "--var="+v+"="+r.db)
	}
	return vars
}

func (r *rspamdServer) mapFile() string { return filepath.Join(r.local, "lab.map") }

// set writes a file of local.d.
func (r *rspamdServer) set(name, text string) {
	r.t.Helper()
	r.put(filepath.Join(r.local, "local.d", name), text+"\n")
}

func (r *rspamdServer) put(path, text string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rspamdServer) start() {
	r.t.Helper()
	path, err := require.Find("rspamd")
	if err != nil {
		r.t.Fatal(err)
	}
	args := append([]string{"-f", "-u", "_rspamd", "-g", "_rspamd", "-c", "/etc/rspamd/rspamd.conf"}, r.vars()...)
	out, err := os.OpenFile(filepath.Join(r.local, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	r.cmd = exec.Command(path, args...) //nolint:noctx // ended by stop in the cleanup
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.SysProcAttr = out, out, &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for _, url := range []string{"http://" + r.Normal + "/ping", "http://" + r.Controller + "/ping"} {
		lab.Wait(r.t, 2*time.Minute, "rspamd answers", func() error {
			resp, err := http.Get(url) //nolint:noctx // bounded by lab.Wait
			if err == nil {
				err = resp.Body.Close()
			}
			return err
		})
	}
}

func (r *rspamdServer) stop() {
	if r.cmd == nil {
		return
	}
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	_ = r.cmd.Wait()
	r.cmd = nil
}

// startResolver answers every question with NXDOMAIN, so that no verdict hangs on
// the Internet.
func startResolver(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // a test's listener
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		_ = w.WriteMsg(m)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-ended
	})
	return pc.LocalAddr().String()
}

// filterSites is two Rspamd over a Redis master and its replica, as in a pair of
// sites.
type filterSites struct {
	redisA, redisB *servers.KeyValue
	a, b           *rspamdServer
}

func startFilterSites(t *testing.T, settings ...func(*rspamdServer)) *filterSites {
	t.Helper()
	backlog := []string{"--repl-backlog-size", "64mb"}
	s := &filterSites{redisA: servers.Redis(t, backlog...)}
	host, port, err := net.SplitHostPort(s.redisA.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.redisB = servers.Redis(t, append(backlog, "--replicaof", host+" "+port)...)
	resolver := startResolver(t)
	s.a = newRspamd(t, "a", s.redisA.Addr, s.redisA.Addr, resolver)
	s.b = newRspamd(t, "b", s.redisB.Addr, s.redisA.Addr, resolver)
	for _, set := range settings {
		set(s.a)
		set(s.b)
	}
	s.a.start()
	s.b.start()
	return s
}

// train teaches A n generated messages.
func (s *filterSites) train(t *testing.T, seed uint64, n int) {
	t.Helper()
	teacher, err := learn.NewRspamd("http://"+s.a.Controller, "")
	if err != nil {
		t.Fatal(err)
	}
	defer teacher.Close()
	learned := 0
	for _, m := range corpus.Generate(seed, n) {
		class := spamsync.Ham
		if m.Spam {
			class = spamsync.Spam
		}
		outcome, err := teacher.Teach(t.Context(), class, m.Name, m.Message)
		if err != nil {
			t.Fatal(err)
		}
		if outcome == learn.Learned {
			learned++
		}
	}
	t.Logf("trained at a: %d of %d messages learned", learned, n)
}

// compare runs `understudy spam parity` at b.
func (s *filterSites) compare(t *testing.T, u *lab.Understudy, samples int) (parity.Report, int) {
	t.Helper()
	out, code := u.CLI("spam", "parity", "--json", "--seed", "77", "--samples", strconv.Itoa(samples))
	var r parity.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("exit %d: %v\n%s", code, err, out)
	}
	return r, code
}

// TestParity: two real Rspamd over a Redis master and its replica, trained at A
// only, judge alike, and whatever is changed at B is found and named.
func TestParity(t *testing.T) {
	s := startFilterSites(t)
	s.train(t, 5, 160)
	u := lab.NewUnderstudy(t, "smtp://127.0.0.1:1", lab.Settings{
		"spam.engine": "rspamd", "spam.url": "http://" + s.b.Normal,
		"spam.redis.address": s.redisB.Addr, "spam.redis.peer": s.redisA.Addr, "spam.redis.timeout": "5s",
		"spam.parity.controller": "http://" + s.b.Controller,
		"spam.parity.peer_url":   "http://" + s.a.Normal, "spam.parity.peer_controller": "http://" + s.a.Controller,
		"spam.parity.configdump": s.b.configdump(), "spam.parity.peer_configdump": s.a.configdump(),
	})

	r, code := s.compare(t, u, 200)
	if r.Settings < 1500 || len(r.Skipped) != 0 {
		t.Errorf("%d settings compared, skipped: %q", r.Settings, r.Skipped)
	}
	if code != 0 || r.Broken() || r.Probe.Messages != 200 || r.Probe.Different != 0 || len(r.Differences) != 0 {
		t.Errorf("exit %d: %s\n%v\n%+v", code, r.Summary(), r.Differences, r.Probe.Named)
	}
	if !r.WriteChecked || r.Written != 0 {
		t.Errorf("%d bytes written, checked: %v", r.Written, r.WriteChecked)
	}
	t.Logf("200 messages: %d equal, %d unequal within the noise (b against b %d, a against a %d, scores up to %.2f), 0 different, 0 bytes written, %.1fs",
		r.Probe.Messages-r.Probe.Unequal, r.Probe.Unequal, r.Probe.NoiseHere, r.Probe.NoisePeer, r.Probe.ScoreNoise, r.Seconds)
	s.wantBayes(t)

	for _, c := range []struct {
		name   string
		change func()
		undo   func()
		// one of these is named, among the fingerprint's differences or the messages' symbols.
		aspect, text string
	}{
		{
			"one score", func() { s.b.set("hfilter_group.conf", `symbols = { "HFILTER_HOSTNAME_UNKNOWN" { weight = 3.25; } }`) },
			func() { s.b.set("hfilter_group.conf", "") }, "symbol", "HFILTER_HOSTNAME_UNKNOWN",
		},
		{
			"one map", func() { s.b.put(s.b.mapFile(), "listed.example\nother.example\n") },
			func() { s.b.put(s.b.mapFile(), "listed.example\n") }, "map", "lab.map",
		},
		{
			"one module", func() { s.b.set("mime_types.conf", "enabled = false;") },
			func() { s.b.set("mime_types.conf", "") }, "symbol", "MIME_GOOD",
		},
		{
			"one option that no symbol shows", func() { s.b.set("dmarc.conf", "send_reports = true;") },
			func() { s.b.set("dmarc.conf", "") }, "setting", "dmarc.send_reports: here true, peer",
		},
	} {
		s.b.stop()
		c.change()
		s.b.start()
		r, code := s.compare(t, u, 20)
		var named []string
		for _, d := range r.Differences {
			named = append(named, d.String())
		}
		for _, y := range r.Probe.Symbols {
			named = append(named, parity.Difference{Aspect: "symbol", Name: y.Name, Here: y.Here, Peer: y.Peer}.String())
		}
		if code != 1 || !slices.ContainsFunc(named, func(s string) bool { return strings.HasPrefix(s, c.aspect+" "+c.text) }) {
			t.Errorf("%s: exit %d, named %q", c.name, code, named)
		}
		t.Logf("%s changed at b: named %q", c.name, named)
		c.undo()
	}
}

// wantBayes looks that what was learned at A counts at B.
func (s *filterSites) wantBayes(t *testing.T) {
	t.Helper()
	judge := parity.NewRspamd("http://"+s.b.Normal, 30*time.Second)
	defer judge.Close()
	bayes := 0
	for _, m := range parity.Generated(78, 20) {
		j, err := judge.Judge(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := j.Symbols["BAYES_SPAM"]; ok {
			bayes++
		} else if _, ok := j.Symbols["BAYES_HAM"]; ok {
			bayes++
		}
	}
	if bayes < 10 {
		t.Errorf("only %d of 20 messages have a Bayes symbol at b", bayes)
	}
}
