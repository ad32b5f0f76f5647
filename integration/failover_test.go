package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/dnsfailover"
	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/internal/admin"
)

// moving is two daemons with a failover between them, a Knot that holds the
// register and the records, and the lines that can be cut.
type moving struct {
	t     *testing.T
	knot  *servers.NameServer
	sites [2]*lab.Understudy
	sinks [2]*lab.Sink
	// link carries the peer link and the public probes between the sites, register
	// the requests to Knot.
	link     []*line
	register *line
	// sick makes the own probe of a site fail while it exists.
	sick [2]string
}

// line is a way that can be cut and healed.
type line struct {
	t          *testing.T
	addr, upto string
	at         *lab.Delay
}

func newLine(t *testing.T, upto string) *line {
	t.Helper()
	l := &line{t: t, upto: upto, at: lab.StartDelay(t, "", upto, 0)}
	l.addr = l.at.Addr
	return l
}

func (l *line) cut()  { l.at.Close() }
func (l *line) heal() { l.at = lab.StartDelay(l.t, l.addr, l.upto, 0) }

// fastTiming moves the role in seconds; what safety depends on is validated as
// in any configuration.
func fastTiming() lab.Settings {
	return lab.Settings{
		"failover.timing.poll": "500ms", "failover.timing.permit": "4s", "failover.timing.wait": "5s",
		"failover.timing.stop_allowance": "500ms", "failover.timing.request": "1s", "failover.timing.probe": "700ms",
		"failover.timing.good": 2, "failover.timing.between_moves": "0s", "failover.timing.backoff": "1s", "failover.steady": "0s",
		"peer.silence": "2s",
	}
}

func newMoving(t *testing.T, mode string, settings lab.Settings) *moving {
	t.Helper()
	m := &moving{t: t, knot: servers.Knot(t, servers.Zone{})}
	m.register = newLine(t, m.knot.Addr)
	m.knot.Edit("webmail", "A", "192.0.2.10")
	m.knot.Edit("@", "MX", "10 mx1.example.net.", "20 mx2.example.net.")
	zone := strings.TrimSuffix(m.knot.Zone, ".")
	var addr, pins [2]string
	for i, site := range []string{"a", "b"} {
		m.sinks[i] = lab.StartSink(t, lab.SinkConfig{})
		addr[i] = lab.FreeAddr(t)
		m.sick[i] = filepath.Join(lab.Dir(t), "sick")
		secret := filepath.Join(lab.Dir(t), "tsig")
		if err := os.WriteFile(secret, []byte(m.knot.Keys[i].Secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		set := lab.Settings{
			"site": site, "smtp.deliver.local": "smtp://" + m.sinks[i].Addr, "peer.listen": addr[i],
			"failover.mode": "manual", "failover.register.server": m.register.addr, "failover.register.zone": zone,
			"failover.register.tsig.name": m.knot.Keys[i].Name, "failover.register.tsig.secret_file": secret,
			"failover.records": []map[string]any{
				{"name": "webmail." + zone, "type": "A", "a": "192.0.2.10", "b": "198.51.100.10", "ttl": "60s"},
				{"name": zone, "type": "MX", "a": "mx1.example.net", "b": "mx2.example.net", "ttl": "300s"},
			},
		}
		for _, more := range []lab.Settings{fastTiming(), settings} {
			maps.Copy(set, more)
		}
		m.sites[i] = lab.NewUnderstudy(t, "smtp://127.0.0.1:9", set)
		out, _ := m.sites[i].CLI("peer", "init", "--json")
		var made struct{ Pin string }
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatalf("peer init: %v\n%s", err, out)
		}
		pins[i] = made.Pin
	}
	for i, d := range m.sites {
		other := 1 - i
		peerLine, public := newLine(t, addr[other]), newLine(t, m.sites[other].SMTP)
		m.link = append(m.link, peerLine, public)
		names := []string{"a", "b"}
		d.Set(lab.Settings{
			"peer.address": peerLine.addr, "peer.pins": pins[other], "failover.mode": mode,
			"smtp.deliver.to_peer": "smtp://" + public.addr,
			"failover.probes": []map[string]any{
				{"kind": "command", "site": names[i], "from": "self", "command": []string{"sh", "-c", "! test -e " + m.sick[i]}},
				{"kind": "smtp", "site": names[other], "from": "peer", "address": public.addr},
			},
		})
		d.Start()
	}
	return m
}

// ready writes the register and waits until a is active and b standby.
func (m *moving) ready() {
	m.t.Helper()
	lab.Wait(m.t, 20*time.Second, "both sites see that there is no register", func() error {
		for i := range m.sites {
			if s := m.status(i); !s.Link || !strings.Contains(s.Silent, "there is no register") {
				return fmt.Errorf("site %d: %+v", i, s.Snapshot)
			}
		}
		return nil
	})
	if r := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.Initialise}); r.Err() != nil {
		m.t.Fatal(r.Err())
	}
	m.roles("active", "standby", 20*time.Second)
	lab.Wait(m.t, 20*time.Second, "both say that they are ready", func() error {
		for i := range m.sites {
			if s := m.status(i); !s.Peer.Ready || !s.Self.Checked {
				return errors.New(s.Peer.NotReady)
			}
		}
		return nil
	})
}

func (m *moving) client(i int) *admin.Client { return admin.NewClient(m.sites[i].Admin) }

func (m *moving) status(i int) dnsfailover.Status {
	m.t.Helper()
	c := m.client(i)
	defer c.Close()
	s, err := c.FailoverStatus(m.t.Context())
	if err != nil {
		m.t.Fatalf("status of site %d: %v", i, err)
	}
	return s
}

func (m *moving) order(i int, q dnsfailover.OrderQuestion) dnsfailover.OrderResult {
	m.t.Helper()
	c := m.client(i)
	defer c.Close()
	r, err := c.FailoverOrder(m.t.Context(), q)
	if err != nil {
		m.t.Fatalf("order %s: %v", q.Command, err)
	}
	return r
}

func (m *moving) roles(a, b string, limit time.Duration) {
	m.t.Helper()
	lab.Wait(m.t, limit, "a is "+a+" and b is "+b, func() error {
		if x, y := m.status(0), m.status(1); x.Role != a || y.Role != b {
			return fmt.Errorf("a is %s, b is %s; a: %s, b: %s", x.Role, y.Role, x.Silent, y.WouldMove)
		}
		return nil
	})
}

// published waits until Knot answers with a value, and returns how long it took.
func (m *moving) published(webmail string, limit time.Duration) time.Duration {
	m.t.Helper()
	began := time.Now()
	lab.Wait(m.t, limit, "webmail is "+webmail, func() error {
		if got := m.knot.Values("webmail", "A"); !slices.Equal(got, []string{webmail}) {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
	return time.Since(began)
}

const atA, atB = "192.0.2.10", "198.51.100.10"

// stays wants the roles to be what they are for d, and the records too.
func (m *moving) stays(a, b string, d time.Duration) {
	m.t.Helper()
	end := time.Now().Add(d)
	lab.Wait(m.t, d+5*time.Second, "the time has passed", func() error {
		if x, y := m.status(0).Role, m.status(1).Role; x != a || y != b {
			m.t.Fatalf("a is %s and b is %s, want %s and %s", x, y, a, b)
		}
		if time.Now().Before(end) {
			return errors.New("not yet")
		}
		return nil
	})
}

// accepts sends a message to a site and wants 250.
func (m *moving) accepts(i int) {
	m.t.Helper()
	c, err := lab.Dial(m.t.Context(), m.sites[i].SMTP)
	if err != nil {
		m.t.Fatalf("site %d does not accept mail: %v", i, err)
	}
	defer c.Close()
	msg := lab.Message{From: "s@example.org", To: []string{"u@example.test"}, Text: []byte("Subject: x\r\n\r\nx\r\n")}
	if err := c.Send(msg); err != nil {
		m.t.Fatalf("site %d does not accept mail: %v", i, err)
	}
}

// outage is how long the cuts and outages of a story last.
func outage(t *testing.T) time.Duration {
	t.Helper()
	if s := os.Getenv("LAB_OUTAGE"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return 8 * time.Second
}

// TestFailoverKill: the active site is killed; the names move; it returns as
// standby and is given the role back by a switchover.
func TestFailoverKill(t *testing.T) {
	t.Parallel()
	m := newMoving(t, "automatic", nil)
	m.ready()
	runs := 1
	if s := os.Getenv("LAB_KILLS"); s != "" {
		runs, _ = strconv.Atoi(s)
	}
	var took []time.Duration
	for range runs {
		m.sites[0].Kill()
		took = append(took, m.published(atB, 40*time.Second))
		if got := m.knot.Values("@", "MX"); !slices.Contains(got, "10 mx2.example.net.") {
			t.Errorf("mx is %v", got)
		}
		lab.Wait(t, 5*time.Second, "b is active", func() error {
			if s := m.status(1); s.Role != "active" {
				return errors.New(s.Role)
			}
			return nil
		})
		m.accepts(1)
		m.sites[0].Start()
		m.roles("standby", "active", 20*time.Second)
		lab.Wait(t, 30*time.Second, "the switchover back is done", func() error {
			return m.order(1, dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "a"}).Err()
		})
		m.published(atA, 10*time.Second)
		m.roles("active", "standby", 10*time.Second)
	}
	slices.Sort(took)
	t.Logf("%d kills, records changed after p50 %s, max %s", runs, took[len(took)/2].Round(100*time.Millisecond), took[len(took)-1].Round(100*time.Millisecond))
	m.sinks[1].WaitCount(t, runs, 10*time.Second) // b delivered locally while it was active
}

// TestFailoverByItself: a planned switchover, a sick site, a drill.
func TestFailoverByItself(t *testing.T) {
	t.Parallel()
	m := newMoving(t, "automatic", nil)
	m.ready()
	r := m.order(1, dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}) // at the standby
	if r.Err() != nil || r.Took > 3*time.Second {
		t.Fatalf("switchover: %+v", r)
	}
	m.published(atB, 3*time.Second)
	m.roles("standby", "active", 10*time.Second)
	t.Logf("switchover: %s", r.Took.Round(time.Millisecond))

	if err := os.WriteFile(m.sick[1], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	took := m.published(atA, 10*time.Second)
	m.roles("active", "standby", 10*time.Second)
	t.Logf("a sick site handed over after %s", took.Round(100*time.Millisecond))
	if err := os.Remove(m.sick[1]); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 20*time.Second, "b is well again", func() error {
		if s := m.status(1); s.Self.Failed {
			return errors.New(s.Self.Reason)
		}
		return nil
	})
	c := m.client(0)
	defer c.Close()
	d, err := c.FailoverDrill(t.Context())
	if err != nil || d.Error != "" || len(d.Steps) != 4 {
		h, _ := c.FailoverHistory(t.Context())
		t.Fatalf("drill: %+v, %v\na %+v\nb %+v\n%+v", d, err, m.status(0).Snapshot, m.status(1).Snapshot, h.Entries)
	}
	t.Logf("drill: %v", d.Steps)
	m.roles("active", "standby", 10*time.Second)
}

// TestFailoverNoMove: a cut between the sites and an outage of the register move
// nothing and cost no service; both at once fence what cannot merge, and mail is
// accepted at both sites.
func TestFailoverNoMove(t *testing.T) {
	t.Parallel()
	m := newMoving(t, "automatic", lab.Settings{"failover.timing.backoff": "5m"}) // one claim, one objection
	m.ready()
	for _, l := range m.link {
		l.cut()
	}
	m.stays("active", "standby", outage(t)+7*time.Second)
	m.accepts(0)
	m.accepts(1)
	if s := m.status(1); !slices.Contains(alarmKeys(t, m, 1), "failover_objection") {
		t.Errorf("no alarm says that the link is cut: %+v", s.Snapshot)
	}
	m.register.cut() // both at once
	m.roles("fenced", "standby", 10*time.Second)
	m.accepts(0)
	m.accepts(1)
	for _, l := range m.link {
		l.heal()
	}
	m.roles("active", "standby", 20*time.Second) // by the peer's promise
	m.stays("active", "standby", outage(t))
	m.published(atA, time.Second)
	m.register.heal()
	m.stays("active", "standby", 3*time.Second)
	if r := m.status(0).Epoch; r != 1 {
		t.Errorf("epoch %d", r)
	}
}

func alarmKeys(t *testing.T, m *moving, i int) []string {
	t.Helper()
	c := m.client(i)
	defer c.Close()
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, a := range s.Alarms {
		keys = append(keys, a.Key)
	}
	return keys
}

// TestFailoverStopped: the active site's process stands still past its permit;
// when it goes on, it does not act as active for a moment.
func TestFailoverStopped(t *testing.T) {
	t.Parallel()
	m := newMoving(t, "automatic", nil)
	m.ready()
	m.sites[0].Signal(syscall.SIGSTOP)
	m.published(atB, 40*time.Second)
	m.sites[0].Signal(syscall.SIGCONT)
	for range 20 {
		c := m.client(0)
		s, err := c.Status(t.Context())
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		if s.Role == "active" {
			t.Fatalf("it acts as active after it has gone on: %+v", s)
		}
	}
	m.roles("standby", "active", 20*time.Second)
}

// TestFailoverDrills: what an operator may do wrong is refused or fenced, and the
// cause is named.
func TestFailoverDrills(t *testing.T) {
	t.Parallel()
	m := newMoving(t, "automatic", nil)
	m.ready()

	t.Log("restart of the active site: the role is kept")
	m.sites[0].Stop()
	m.sites[0].Start()
	m.roles("active", "standby", 15*time.Second)
	if e := m.status(0).Epoch; e != 1 {
		t.Fatalf("epoch %d after a restart", e)
	}

	t.Log("both sites restarted at once")
	m.sites[0].Stop()
	m.sites[1].Stop()
	m.sites[1].Start()
	m.sites[0].Start()
	m.roles("active", "standby", 20*time.Second)
	if e := m.status(0).Epoch; e != 1 {
		t.Fatalf("epoch %d after both restarted", e)
	}
	lab.Wait(t, 20*time.Second, "b is ready", func() error {
		if s := m.status(0); !s.Peer.Ready || !s.Link {
			return errors.New(s.Peer.NotReady)
		}
		return nil
	})

	t.Log("foreign edit of a record")
	m.knot.Edit("webmail", "A", "203.0.113.7")
	r := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"})
	if r.Err() == nil {
		lab.Wait(t, 10*time.Second, "it is noticed", func() error {
			if s := m.status(0); s.Foreign == "" {
				return errors.New("not yet")
			}
			return nil
		})
	} else if !strings.Contains(r.Err().Error(), "see history") && !strings.Contains(r.Err().Error(), "changed by somebody else") {
		t.Errorf("foreign edit: %v", r.Err())
	}
	m.stays("active", "standby", 2*time.Second)
	c := m.client(0)
	defer c.Close()
	if res, err := c.FailoverRecords(t.Context(), true); err != nil || len(res.Adopted) != 1 {
		t.Fatalf("adopt: %+v, %v", res, err)
	}
	if res, err := c.FailoverRecords(t.Context(), false); err != nil || len(res.Changed) == 0 {
		t.Fatalf("plan --yes: %+v, %v", res, err)
	}
	m.published(atA, time.Second)

	t.Log("stale configuration on one side")
	m.sites[1].Set(lab.Settings{"failover.steady": "1s"})
	m.sites[1].Stop()
	m.sites[1].Start()
	lab.Wait(t, 20*time.Second, "the switchover is refused and the key named", func() error {
		err := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}).Err()
		if err == nil {
			t.Fatal("a switchover with different configurations is done")
		}
		if !strings.Contains(err.Error(), "failover.steady") {
			return err
		}
		return nil
	})
	m.sites[1].Set(lab.Settings{"failover.steady": "0s"})
	m.sites[1].Stop()
	m.sites[1].Start()

	t.Log("wrong TSIG key at the standby: it is not ready, and an alarm names the key")
	secret := filepath.Join(lab.Dir(t), "tsig")
	if err := os.WriteFile(secret, []byte("d3JvbmcgZm9yIHN1cmUsIHdyb25nIGZvciBzdXJlISE=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.sites[1].Set(lab.Settings{"failover.register.tsig.secret_file": secret})
	m.sites[1].Stop()
	m.sites[1].Start()
	lab.Wait(t, 15*time.Second, "an alarm names the key", func() error {
		if keys := alarmKeys(t, m, 1); !slices.Contains(keys, "failover_key") {
			return fmt.Errorf("%v", keys)
		}
		return nil
	})
	if err := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}).Err(); err == nil {
		t.Error("a switchover to a site that cannot read the register is done")
	}
	if s := m.status(0); s.Role != "active" || s.Epoch != 1 {
		t.Errorf("a is %s in epoch %d", s.Role, s.Epoch)
	}

	t.Log("register deleted: nobody makes a new one, the active site goes on by promise or is fenced")
	m.knot.Edit("_understudy", "TXT")
	lab.Wait(t, 15*time.Second, "an alarm names it", func() error {
		if s := m.status(0); !strings.Contains(s.Silent, "there is no register") {
			return errors.New(s.Silent)
		}
		return nil
	})
	if got := m.knot.Values("_understudy", "TXT"); len(got) > 0 {
		t.Errorf("somebody wrote %v", got)
	}
	if err := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.Initialise, Restore: 1}).Err(); err == nil {
		t.Error("an epoch that was used is restored")
	}
	if err := m.order(0, dnsfailover.OrderQuestion{Command: dnsfailover.Initialise}).Err(); err != nil {
		t.Error(err)
	}
	lab.Wait(t, 15*time.Second, "a is active again", func() error {
		if s := m.status(0); s.Role != "active" || s.Epoch != 2 {
			return fmt.Errorf("%s in epoch %d", s.Role, s.Epoch)
		}
		return nil
	})
}
