package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"understudy/dnsfailover"
	"understudy/integration/lab"
	"understudy/integration/require"
	"understudy/integration/servers"
)

// profile is a timing that operators may use, and what is promised for it.
type profile struct {
	settings lab.Settings
	p50, p99 time.Duration
}

// profiles are the default and the fast one. Only what would keep an automatic
// move from following another is shortened.
var profiles = map[string]profile{
	"default": {p50: 40 * time.Second, p99: 65 * time.Second, settings: lab.Settings{}},
	"fast": {p50: 23 * time.Second, p99: 40 * time.Second, settings: lab.Settings{
		"failover.timing.poll": "3s", "failover.timing.permit": "12s", "failover.timing.wait": "14s", "failover.timing.stop_allowance": "1s", "failover.timing.probe": "3s",
	}},
}

// insideEnv names the lab that a story runs in; LAB_PROFILE names the profile.
const insideEnv = "LAB_INSIDE"

const (
	wanA, wanB, wanDNS = "10.246.0.10", "10.246.0.20", "10.246.0.53"
	tookPrefix         = "records changed after "
)

var labs atomic.Int64

// TestFailoverDark: sites in network namespaces of their own, Knot in a third. A
// site's process is killed and its line is dead at the same moment: connections
// time out, none is refused. With LAB_PROFILE (default, fast) set, 30 times.
func TestFailoverDark(t *testing.T) {
	t.Parallel()
	p, count, each := "fast", 1, 1
	if s := os.Getenv("LAB_PROFILE"); s != "" {
		p, count, each = s, 6, 5
	}
	took := make([][]time.Duration, count)
	t.Run("runs", func(t *testing.T) {
		for i := range count {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				took[i] = inside(t, "Kills", p, fmt.Sprintf("LAB_KILLS=%d", each))
			})
		}
	})
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) != count*each {
		t.Fatalf("%d kills, want %d", len(all), count*each)
	}
	p50, p99 := all[(len(all)-1)/2], all[(len(all)*99+99)/100-1]
	t.Logf("%s profile, %d kills: records changed after p50 %s, p99 %s (the slowest); all: %v", p, len(all), p50, p99, all)
	want := profiles[p]
	if p99 > want.p99 || (len(all) > 1 && p50 > want.p50) {
		t.Errorf("promised are p50 %s and p99 %s", want.p50, want.p99)
	}
}

// TestFailoverCut: the sites cannot see each other; both see Knot.
func TestFailoverCut(t *testing.T) {
	t.Parallel()
	inside(t, "Cut", usual("fast"))
}

// TestFailoverRegisterGone: Knot is silent; the sites see each other.
func TestFailoverRegisterGone(t *testing.T) {
	t.Parallel()
	inside(t, "RegisterGone", usual("fast"))
}

func usual(p string) string {
	if s := os.Getenv("LAB_PROFILE"); s != "" {
		return s
	}
	return p
}

// inside runs TestFailoverInside/story in a lab of its own and returns the times
// that it reports.
func inside(t *testing.T, story, p string, env ...string) []time.Duration {
	t.Helper()
	require.Root(t)
	require.Kernel(t, require.NetworkNamespaces)
	require.Command(t, "ip", "bridge", "knotd")
	name := fmt.Sprintf("us%d-%d", os.Getpid(), labs.Add(1))
	network(t, name)
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", name+"-dns",
		os.Args[0], "-test.v", "-test.timeout", "60m", "-test.run", "^TestFailoverInside$/^"+story+"$")
	cmd.Env = append(os.Environ(), insideEnv+"="+name, "LAB_PROFILE="+p, "LAB_BUILT="+lab.Binary(t))
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFailoverInside/"+story) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	var took []time.Duration
	for _, m := range regexp.MustCompile(tookPrefix+`(\S+)`).FindAllStringSubmatch(string(out), -1) {
		d, err := time.ParseDuration(m[1])
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, d)
	}
	return took
}

// network makes NAME-a, NAME-b and NAME-dns on one bridge, which has a namespace
// of its own; nothing appears in the machine's.
func network(t *testing.T, name string) {
	t.Helper()
	t.Cleanup(func() {
		for _, end := range []string{"a", "b", "dns", "net"} {
			_ = exec.Command("ip", "netns", "del", name+"-"+end).Run() //nolint:noctx // the story's context has ended
		}
	})
	ip(t, "netns add "+name+"-net")
	ip(t, "-n "+name+"-net link add br0 type bridge")
	ip(t, "-n "+name+"-net link set br0 up")
	for end, addr := range map[string]string{"a": wanA, "b": wanB, "dns": wanDNS} {
		ns := name + "-" + end
		ip(t, "netns add "+ns)
		ip(t, "-n "+ns+" link set lo up")
		ip(t, "-n "+name+"-net link add port-"+end+" type veth peer name eth0 netns "+ns)
		ip(t, "-n "+name+"-net link set port-"+end+" master br0 up")
		ip(t, "-n "+ns+" addr add "+addr+"/24 dev eth0")
		ip(t, "-n "+ns+" link set eth0 up")
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	run(t, "ip", strings.Fields(args)...)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// TestFailoverInside is the part of the stories above that runs in NAME-dns, next
// to Knot.
func TestFailoverInside(t *testing.T) {
	name := os.Getenv(insideEnv)
	if name == "" {
		return // the stories above start it, in a process of its own
	}
	p, ok := profiles[os.Getenv("LAB_PROFILE")]
	if !ok {
		t.Fatalf("LAB_PROFILE is %q, want default or fast", os.Getenv("LAB_PROFILE"))
	}
	wrapper := fmt.Sprintf("#!/bin/sh\nns=$(cat \"$(dirname \"$3\")/netns\" 2>/dev/null) && exec ip netns exec \"$ns\" %[1]s \"$@\"\nexec %[1]s \"$@\"\n", os.Getenv("LAB_BUILT"))
	if err := os.WriteFile(os.Getenv(lab.BinaryEnv), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Run("Kills", func(t *testing.T) { newDark(t, name, p).kills(rounds(t, 1)) })
	t.Run("Cut", func(t *testing.T) { newDark(t, name, p).cutApart(outage(t)) })
	t.Run("RegisterGone", func(t *testing.T) { newDark(t, name, p).registerGone(outage(t)) })
}

// dark is a failover between namespaces.
type dark struct {
	*moving
	name string
	p    profile
}

var darkSites = [2]string{"a", "b"}

func newDark(t *testing.T, name string, p profile) *dark {
	t.Helper()
	m := &dark{moving: &moving{t: t, knot: servers.Knot(t, servers.Zone{})}, name: name, p: p}
	m.knot.Edit("webmail", "A", atA)
	m.knot.Edit("@", "MX", "10 mx1.example.net.", "20 mx2.example.net.")
	register := lab.StartDelay(t, wanDNS+":53", m.knot.Addr, 0)
	zone := strings.TrimSuffix(m.knot.Zone, ".")
	addrs := [2]string{wanA, wanB}
	var pins [2]string
	for i, site := range darkSites {
		m.sinks[i] = lab.StartSink(t, lab.SinkConfig{Addr: fmt.Sprintf("%s:%d", wanDNS, 2500+i)})
		secret := filepath.Join(lab.Dir(t), "tsig")
		if err := os.WriteFile(secret, []byte(m.knot.Keys[i].Secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		set := lab.Settings{
			"site": site, "smtp.listen": []string{addrs[i] + ":25"}, "smtp.deliver.local": "smtp://" + m.sinks[i].Addr,
			"peer.listen": addrs[i] + ":4650", "peer.address": addrs[1-i] + ":4650",
			"failover.mode": "automatic", "failover.register.server": register.Addr, "failover.register.zone": zone,
			"failover.register.tsig.name": m.knot.Keys[i].Name, "failover.register.tsig.secret_file": secret,
			"failover.records": []map[string]any{
				{"name": "webmail." + zone, "type": "A", "a": atA, "b": atB, "ttl": "60s"},
				{"name": zone, "type": "MX", "a": "mx1.example.net", "b": "mx2.example.net", "ttl": "300s"},
			},
			"failover.probes": []map[string]any{
				{"kind": "smtp", "site": site, "from": "self", "address": addrs[i] + ":25"},
				{"kind": "smtp", "site": darkSites[1-i], "from": "peer", "address": addrs[1-i] + ":25"},
			},
			"failover.timing.between_moves": "0s", "failover.steady": "0s",
		}
		maps.Copy(set, p.settings)
		d := lab.NewUnderstudy(t, "smtp://"+addrs[1-i]+":25", set)
		d.SMTP = addrs[i] + ":25"
		m.sites[i] = d
		out, _ := d.CLI("peer", "init", "--json")
		var made struct{ Pin string }
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatalf("peer init: %v\n%s", err, out)
		}
		pins[i] = made.Pin
	}
	for i, d := range m.sites {
		d.Set(lab.Settings{"peer.pins": pins[1-i]})
		if err := os.WriteFile(filepath.Join(d.Dir, "netns"), []byte(name+"-"+darkSites[i]), 0o644); err != nil {
			t.Fatal(err)
		}
		d.Start()
	}
	m.until(30*time.Second, "both sites see that there is no register", func() error {
		for i := range m.sites {
			if s := m.status(i); !s.Link || !strings.Contains(s.Silent, "there is no register") {
				return fmt.Errorf("site %d: %+v", i, s.Snapshot)
			}
		}
		return nil
	})
	if r := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.Initialise}); r.Err() != nil {
		t.Fatal(r.Err())
	}
	m.settled(0)
	return m
}

// until asks ten times a second: many labs share a machine.
func (m *dark) until(limit time.Duration, what string, check func() error) {
	m.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			m.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
	}
}

// settled waits until a site is active and the other could take over.
func (m *dark) settled(active int) {
	m.t.Helper()
	m.until(90*time.Second, darkSites[active]+" is active, and the other site is ready", func() error {
		x, y := m.status(active), m.status(1-active)
		if x.Role != "active" || y.Role != "standby" || !x.Link || !y.Link || !x.Peer.Ready {
			return fmt.Errorf("%s and %s; %s", x.Role, y.Role, x.Peer.NotReady)
		}
		return nil
	})
}

func (m *dark) port(i int, state string) {
	ip(m.t, "-n "+m.name+"-net link set port-"+darkSites[i]+" "+state)
}

// kills kills the active site, waits until the names have moved, and brings it
// back as standby: then the other one has its turn.
func (m *dark) kills(n int) {
	m.t.Helper()
	addr := [2]string{atA, atB}
	for k := range n {
		active := k % 2
		m.settled(active)
		m.pause(rand.N(6 * time.Second)) // polls and probes are somewhere
		m.port(active, "down")
		m.sites[active].Kill()
		began := time.Now()
		m.until(2*time.Minute, "webmail is "+addr[1-active], func() error {
			if got := m.knot.Values("webmail", "A"); !slices.Equal(got, []string{addr[1-active]}) {
				return fmt.Errorf("it is %v; %+v", got, m.status(1-active).Snapshot)
			}
			return nil
		})
		m.t.Logf("%s%s", tookPrefix, time.Since(began).Round(10*time.Millisecond))
		if got, want := m.knot.Values("@", "MX"), fmt.Sprintf("10 mx%d.example.net.", 2-active); !slices.Contains(got, want) {
			m.t.Errorf("mx is %v", got)
		}
		m.until(5*time.Second, "the other site is active", func() error {
			if s := m.status(1 - active); s.Role != "active" {
				return errors.New(s.Role)
			}
			return nil
		})
		m.accepts(1 - active)
		m.port(active, "up")
		m.sites[active].Start()
	}
	if n > 1 {
		m.settled(n % 2)
	}
}

func (m *dark) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.t.Context().Done():
	}
}

// serves wants a to be active without a break for d, and mail to be accepted at
// both sites all the time.
func (m *dark) serves(d time.Duration) {
	m.t.Helper()
	looks, mails := 0, 0
	for began := time.Now(); time.Since(began) < d; m.pause(200 * time.Millisecond) {
		if a, b := m.status(0), m.status(1); a.Role != "active" || b.Role != "standby" || a.Epoch != 1 {
			m.t.Fatalf("after %s: a is %s in epoch %d, b is %s: %s; %s", time.Since(began), a.Role, a.Epoch, b.Role, a.Silent, b.WouldMove)
		}
		if looks++; looks%10 == 1 {
			m.accepts(0)
			m.accepts(1)
			mails += 2
		}
	}
	m.t.Logf("%s: active at every one of %d looks, %d mails accepted", d, looks, mails)
}

// cutApart ends the sight of the sites of each other; both see Knot.
func (m *dark) cutApart(d time.Duration) {
	m.t.Helper()
	isolate := func(state string) {
		for _, site := range darkSites {
			run(m.t, "ip", "netns", "exec", m.name+"-net", "bridge", "link", "set", "dev", "port-"+site, "isolated", state)
		}
	}
	isolate("on")
	m.serves(d + 30*time.Second) // the first claim and its objection
	if a, b := m.status(0), m.status(1); a.Link || b.Link {
		m.t.Errorf("the link is not cut: %t, %t", a.Link, b.Link)
	}
	if keys := alarmKeys(m.t, m.moving, 1); !slices.Contains(keys, "failover_objection") {
		m.t.Errorf("no alarm says that the link is cut: %v", keys)
	}
	isolate("off")
	m.settled(0)
	m.stayed()
}

// registerGone freezes Knot.
func (m *dark) registerGone(d time.Duration) {
	m.t.Helper()
	m.knot.Freeze()
	m.serves(d + 30*time.Second) // longer than a permit
	if s := m.status(0); s.Silent == "" {
		m.t.Errorf("the register is not silent: %+v", s.Snapshot)
	}
	m.knot.Thaw()
	m.settled(0)
	m.stayed()
}

// stayed wants the first epoch and the records of a.
func (m *dark) stayed() {
	m.t.Helper()
	if s := m.status(0); s.Epoch != 1 {
		m.t.Errorf("epoch %d", s.Epoch)
	}
	if got := m.knot.Values("webmail", "A"); !slices.Equal(got, []string{atA}) {
		m.t.Errorf("webmail is %v", got)
	}
}
