package dnsfailover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"understudy/dnsfailover"
	"understudy/dnsfailover/arbitertest"
)

// bubbleClock is the bubble's time as a boot clock.
type bubbleClock struct{ start time.Time }

func (c bubbleClock) Now() dnsfailover.Instant {
	return dnsfailover.Instant(time.Since(c.start) + time.Hour)
}

// switchable is a prober that fails when told to; while silent it takes as long as
// it may, as with a site that answers nothing.
type switchable struct {
	fails  atomic.Pointer[string]
	silent atomic.Bool
}

func (s *switchable) set(reason string) {
	if reason == "" {
		s.fails.Store(nil)
		return
	}
	s.fails.Store(&reason)
}

func (s *switchable) Probe(ctx context.Context) error {
	if s.silent.Load() {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if r := s.fails.Load(); r != nil {
		return errors.New(*r)
	}
	return nil
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

// alarmList remembers what is raised.
type alarmList struct {
	mu     sync.Mutex
	raised map[string]string
}

func (a *alarmList) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.raised[key] = text
}

func (a *alarmList) Clear(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.raised, key)
}

func (a *alarmList) get(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.raised[key]
}

// pair is two sites, a register with records, another zone, and the link.
type pair struct {
	t     *testing.T
	cfg   dnsfailover.Config
	zone  *arbitertest.Zone
	other *arbitertest.Zone
	sites [2]*station
	clock bubbleClock
	cut   atomic.Bool
	gates atomic.Pointer[[]string]
	slow  atomic.Int64 // how long the other zone's host takes, in nanoseconds
}

type station struct {
	p      *pair
	i      int
	dir    string
	client *arbitertest.Client
	self   switchable
	public switchable
	alarms alarmList

	mu    sync.Mutex
	hooks []string
	ctrl  *dnsfailover.Controller
	stop  func()
}

var siteNames = [2]dnsfailover.Site{"a", "b"}

var (
	webA   = dnsfailover.RRKey{Name: "webmail.example.net.", Type: "A"}
	mxKey  = dnsfailover.RRKey{Name: "example.net.", Type: "MX"}
	farA   = dnsfailover.RRKey{Name: "imap.example.org.", Type: "A"}
	first  = []string{"192.0.2.10"}
	second = []string{"198.51.100.10"}
)

func newPair(t *testing.T, mode dnsfailover.Mode) *pair {
	t.Helper()
	p := &pair{t: t, zone: arbitertest.NewZone(), other: arbitertest.NewZone(), clock: bubbleClock{time.Now()}}
	p.cfg = dnsfailover.Config{
		Mode: mode, Timing: dnsfailover.DefaultTiming(), Steady: time.Minute,
		Records: []dnsfailover.Record{
			{Name: webA.Name, Type: "A", A: first, B: second, TTL: time.Minute},
			{Name: mxKey.Name, Type: "MX", A: []string{"mx1.example.net"}, B: []string{"mx2.example.net"}, TTL: 5 * time.Minute},
			{Name: farA.Name, Type: "A", A: first, B: second, TTL: time.Minute},
		},
		Hooks: dnsfailover.Hooks{
			OnPromote: []string{"promote"}, OnDemote: []string{"demote"}, OnFence: []string{"fence"}, Gates: []string{"gate"},
			Timeout: time.Second,
		},
	}
	p.zone.Put(dnsfailover.Register{Epoch: 7, Holder: "a", State: dnsfailover.Held, By: "a", Nonce: dnsfailover.NewNonce(), Config: "0badcafe"})
	p.zone.Edit(dnsfailover.RRSet{RRKey: webA, TTL: time.Minute, Values: first})
	p.zone.Edit(dnsfailover.RRSet{RRKey: mxKey, TTL: 5 * time.Minute, Values: []string{"10 mx1.example.net.", "20 mx2.example.net."}})
	p.other.Edit(dnsfailover.RRSet{RRKey: farA, TTL: time.Minute, Values: first})
	for i := range p.sites {
		p.sites[i] = &station{p: p, i: i, dir: t.TempDir(), client: p.zone.Client()}
		p.sites[i].alarms.raised = map[string]string{}
		p.sites[i].start()
	}
	t.Cleanup(func() {
		for _, s := range p.sites {
			s.kill()
		}
	})
	pass(2 * time.Minute) // probes are good, links are up
	return p
}

// Call implements dnsfailover.Peer: the peer's handlers, over the link.
func (s *station) Call(ctx context.Context, method string, in, out any) error {
	peer := s.p.sites[1-s.i]
	peer.mu.Lock()
	c := peer.ctrl
	peer.mu.Unlock()
	if s.p.cut.Load() || c == nil {
		return errors.New("the link is down")
	}
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	res, err := dnsfailover.Serve(ctx, c, method, raw)
	if err != nil || out == nil {
		return err
	}
	if raw, err = json.Marshal(res); err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

func (s *station) start() {
	s.p.t.Helper()
	c, err := dnsfailover.NewController(s.p.cfg, dnsfailover.Deps{
		Site: siteNames[s.i], Sites: siteNames, Primary: "a", Hash: "0badcafe", Dir: s.dir,
		Arbiter: s.client, RegisterZone: "example.net.",
		Zones: []dnsfailover.Zone{{Name: "example.org.", Publisher: slowly{s.p.other.Client(), &s.p.slow}}},
		Self:  &s.self, Public: &s.public, Peer: s, Clock: s.p.clock, Alarms: &s.alarms,
		Hook: func(_ context.Context, name string, env map[string]string, _ time.Duration) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.hooks = append(s.hooks, name+" "+env["EPOCH"])
			return nil
		},
		Gates: func(context.Context) []string {
			if g := s.p.gates.Load(); g != nil {
				return *g
			}
			return nil
		},
	})
	if err != nil {
		s.p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	s.mu.Lock()
	s.ctrl = c
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.p.t.Error(err)
		}
	}
	s.mu.Unlock()
	s.p.sites[1-s.i].up(true)
	s.up(true)
}

// up tells the controller that the link is up or down.
func (s *station) up(up bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	c := s.ctrl
	s.mu.Unlock()
	peer := s.p.sites[1-s.i]
	if peer == nil || c == nil {
		return
	}
	peer.mu.Lock()
	alive := peer.ctrl != nil
	peer.mu.Unlock()
	c.LinkChanged(context.Background(), up && alive && !s.p.cut.Load())
}

// kill ends the daemon; its peer sees its probes fail.
func (s *station) kill() {
	s.mu.Lock()
	stop := s.stop
	s.ctrl, s.stop = nil, nil
	s.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	peer := s.p.sites[1-s.i]
	peer.up(false)
}

func (p *pair) cutLink(cut bool) {
	p.cut.Store(cut)
	for _, s := range p.sites {
		s.up(!cut)
		reason := ""
		if cut {
			reason = "no route"
		}
		s.public.set(reason)
	}
}

func (s *station) ran() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hooks)
}

func (p *pair) role(i int) dnsfailover.Role { return p.sites[i].ctrl.Feed().Load().Role }

func (p *pair) roles(a, b dnsfailover.Role) {
	p.t.Helper()
	synctest.Wait()
	if p.role(0) != a || p.role(1) != b {
		p.t.Fatalf("roles are %s and %s, want %s and %s\n%s", p.role(0), p.role(1), a, b, p.story())
	}
}

func (p *pair) story() string {
	var b strings.Builder
	for _, s := range p.sites {
		if s.ctrl == nil {
			continue
		}
		list, _ := s.ctrl.HearHistory(context.Background(), struct{}{})
		for _, e := range list {
			fmt.Fprintf(&b, "%s %s %s %s\n", e.At.Format("15:04:05"), e.Site, e.Kind, e.Text)
		}
	}
	return b.String()
}

func (p *pair) publishes(values []string) {
	p.t.Helper()
	synctest.Wait()
	if got := p.zone.Values(webA); !slices.Equal(got, values) {
		p.t.Errorf("webmail is %v, want %v", got, values)
	}
	if got := p.other.Values(farA); !slices.Equal(got, values) {
		p.t.Errorf("imap in the other zone is %v, want %v", got, values)
	}
}

func TestControllerFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.roles(dnsfailover.Active, dnsfailover.Standby)
		if got := p.sites[0].ran(); !slices.Equal(got, []string{"promote 7"}) {
			t.Errorf("a ran %v", got)
		}
		p.sites[0].kill()
		p.sites[1].public.set("no answer")
		pass(65 * time.Second)
		synctest.Wait()
		if r := p.role(1); r != dnsfailover.Active {
			t.Fatalf("b is %s\n%s", r, p.story())
		}
		p.publishes(second)
		if got := p.zone.Values(mxKey); !slices.Equal(got, []string{"10 mx2.example.net.", "20 mx1.example.net."}) {
			t.Errorf("mx is %v", got)
		}
		if got := p.sites[1].ran(); !slices.Equal(got, []string{"promote 8"}) {
			t.Errorf("b ran %v", got)
		}
		p.sites[0].start()
		p.sites[1].public.set("")
		pass(time.Minute)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		if got := p.sites[0].ran(); !slices.Equal(got, []string{"promote 7", "demote 8"}) {
			t.Errorf("a ran %v", got)
		}
		// One automatic move an hour.
		p.sites[1].kill()
		p.sites[0].public.set("no answer")
		pass(5 * time.Minute)
		if r := p.role(0); r != dnsfailover.Standby {
			t.Fatalf("a is %s within the hour", r)
		}
		p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.Acknowledge})
		pass(time.Minute)
		if r := p.role(0); r != dnsfailover.Active {
			t.Fatalf("a is %s after the acknowledgement\n%s", r, p.story())
		}
	})
}

func TestControllerSwitchover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Manual)
		order := dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"}
		p.gates.Store(&[]string{"a: 12 messages wait"})
		if err := p.sites[0].ctrl.Order(t.Context(), order).Err(); err == nil || !strings.Contains(err.Error(), "12 messages wait") {
			t.Errorf("with a backlog: %v", err)
		}
		p.gates.Store(nil)
		if err := p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "a"}).Err(); err == nil {
			t.Error("a switchover to the active site is accepted")
		}
		r := p.sites[1].ctrl.Order(t.Context(), order) // given at the standby
		if r.Err() != nil || r.Took > 3*time.Second || r.Epoch != 8 {
			t.Fatalf("switchover: %+v\n%s", r, p.story())
		}
		pass(time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		p.publishes(second)
		if got := p.sites[0].ran(); !slices.Equal(got, []string{"promote 7", "demote 7", "demote 8"}) {
			t.Errorf("a ran %v", got)
		}
		if got := p.sites[1].ran(); !slices.Equal(got, []string{"gate 7", "gate 7", "promote 8"}) {
			t.Errorf("b ran %v", got)
		}
		steps, err := p.sites[1].ctrl.Drill(t.Context())
		if err != nil || len(steps) != 4 {
			t.Fatalf("drill: %v, %v\n%s", steps, err, p.story())
		}
		pass(time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		t.Logf("drill: %v", steps)
	})
}

func TestControllerSick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.sites[0].self.set("imap: no greeting")
		pass(10 * time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		p.publishes(second)
		if !strings.Contains(p.story(), "its own probes fail (imap: no greeting)") {
			t.Errorf("the history does not name the reason:\n%s", p.story())
		}
	})
}

func TestControllerNoMove(t *testing.T) {
	for name, accident := range map[string]func(p *pair){
		"cut between the sites": func(p *pair) { p.cutLink(true) },
		"register outage":       func(p *pair) { p.zone.Down(dnsfailover.ErrUnreachable) },
		"wrong key at a":        func(p *pair) { p.sites[0].client.Fail(dnsfailover.ErrBadKey) },
		"clock of a is wrong":   func(p *pair) { p.sites[0].client.Fail(dnsfailover.ErrBadTime) },
		"register deleted":      func(p *pair) { p.zone.Put(dnsfailover.Register{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, dnsfailover.Automatic)
				accident(p)
				for range 600 {
					pass(time.Second)
					p.roles(dnsfailover.Active, dnsfailover.Standby)
				}
				p.publishes(first)
			})
		})
	}
}

func TestControllerRestartKeepsRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		for range 3 {
			p.sites[0].kill()
			p.sites[1].public.set("no answer")
			pass(12 * time.Second)
			p.sites[1].public.set("")
			p.sites[0].start()
			pass(time.Minute)
			p.roles(dnsfailover.Active, dnsfailover.Standby)
		}
		// What was done for this epoch is not done again.
		if got := p.sites[0].ran(); !slices.Equal(got, []string{"promote 7"}) {
			t.Errorf("a ran %v", got)
		}
		// Both at once.
		p.sites[0].kill()
		p.sites[1].kill()
		pass(time.Minute)
		p.sites[1].start()
		p.sites[0].start()
		pass(time.Minute)
		p.roles(dnsfailover.Active, dnsfailover.Standby)
		// Alone, without a register, it does not act, and ends what it did before.
		p.sites[0].kill()
		p.sites[1].kill()
		p.zone.Down(dnsfailover.ErrUnreachable)
		p.sites[0].start()
		pass(time.Minute)
		if r := p.role(0); r != dnsfailover.Fenced {
			t.Errorf("a is %s", r)
		}
		if got := p.sites[0].ran(); !slices.Equal(got, []string{"promote 7", "fence 0"}) {
			t.Errorf("a ran %v", got)
		}
	})
}

func TestControllerObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Observe)
		p.roles(dnsfailover.Active, dnsfailover.Standby)
		writes := p.zone.Writes()
		p.sites[0].kill()
		p.sites[1].public.set("smtp: no banner")
		pass(5 * time.Minute)
		if r := p.role(1); r != dnsfailover.Standby {
			t.Errorf("b is %s", r)
		}
		if p.zone.Writes() != writes || len(p.sites[1].ran()) > 0 {
			t.Errorf("observe wrote %d times and ran %v", p.zone.Writes()-writes, p.sites[1].ran())
		}
		if s := p.story(); !strings.Contains(s, "would have moved because the link to a is silent and its public probes fail (smtp: no banner)") {
			t.Errorf("the history does not say it:\n%s", s)
		}
	})
}

func TestControllerForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.zone.Edit(dnsfailover.RRSet{RRKey: webA, TTL: time.Minute, Values: []string{"203.0.113.7"}})
		pass(time.Minute)
		synctest.Wait()
		if text := p.sites[1].alarms.get("failover_foreign_record"); !strings.Contains(text, "webmail.example.net. A holds 203.0.113.7") {
			t.Errorf("alarm: %q", text)
		}
		r := p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.SwitchOver, To: "b"})
		if r.Err() == nil || !strings.Contains(r.Err().Error(), "changed by somebody else") {
			t.Errorf("switchover: %v", r.Err())
		}
		p.sites[0].kill()
		p.sites[1].public.set("no answer")
		pass(3 * time.Minute)
		if r := p.role(1); r != dnsfailover.Standby {
			t.Fatalf("b is %s over a foreign record", r)
		}
		if got, err := p.sites[1].ctrl.Adopt(t.Context()); err != nil || len(got) != 1 {
			t.Fatalf("adopt: %v, %v", got, err)
		}
		pass(time.Minute)
		if r := p.role(1); r != dnsfailover.Active {
			t.Fatalf("b is %s after adopt\n%s", r, p.story())
		}
		p.publishes(second)
	})
}

func TestControllerFencesAndForces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.zone.Down(dnsfailover.ErrUnreachable)
		p.cutLink(true)
		pass(30 * time.Second)
		p.roles(dnsfailover.Fenced, dnsfailover.Standby)
		if got := p.sites[0].ran(); !slices.Equal(got, []string{"promote 7", "fence 7"}) {
			t.Errorf("a ran %v", got)
		}
		if err := p.sites[1].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.ForceFailover}).Err(); err != nil {
			t.Fatal(err)
		}
		pass(22 * time.Second)
		p.roles(dnsfailover.Fenced, dnsfailover.Standby) // it waits as a claim would
		pass(8 * time.Second)
		p.roles(dnsfailover.Fenced, dnsfailover.Active)
		// The forced epoch outlives a restart, and the link tells the other site.
		p.sites[1].kill()
		p.sites[1].start()
		p.cutLink(false)
		pass(10 * time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		p.zone.Down(nil)
		pass(30 * time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		if r := p.zone.Register(); r.Epoch != 8 || r.Holder != "b" {
			t.Errorf("the register is %s", r)
		}
		p.publishes(second)
	})
}

func TestControllerInit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.zone.Put(dnsfailover.Register{})
		pass(20 * time.Second)
		synctest.Wait()
		if text := p.sites[0].alarms.get("failover_register"); !strings.Contains(text, "there is no register") {
			t.Errorf("alarm: %q", text)
		}
		for _, bad := range []dnsfailover.OrderQuestion{{Restore: 7}, {To: "b", Restore: 9}} {
			bad.Command = dnsfailover.Initialise
			if p.sites[1].ctrl.Order(t.Context(), bad).Err() == nil {
				t.Errorf("accepted: %+v", bad)
			}
		}
		if err := p.sites[1].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.Initialise, Restore: 9}).Err(); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		p.roles(dnsfailover.Active, dnsfailover.Standby)
		if r := p.zone.Register(); r.Epoch != 9 || r.Holder != "a" {
			t.Errorf("the register is %s", r)
		}
	})
}

func TestControllerMaintenanceAndPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, dnsfailover.Automatic)
		p.sites[1].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.Pause})
		pass(10 * time.Second)
		synctest.Wait()
		if !p.zone.Register().Paused || !p.sites[0].ctrl.Snapshot().Paused {
			t.Fatal("pause does not reach the other site")
		}
		p.sites[0].kill()
		p.sites[1].public.set("no answer")
		pass(3 * time.Minute)
		if r := p.role(1); r != dnsfailover.Standby {
			t.Fatalf("b is %s while paused", r)
		}
		p.sites[0].start()
		p.sites[1].public.set("")
		p.sites[1].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.Resume})
		pass(2 * time.Minute)
		if r := p.sites[0].ctrl.Order(t.Context(), dnsfailover.OrderQuestion{Command: dnsfailover.MaintenanceOn}); r.Err() != nil {
			t.Fatalf("maintenance on: %v\n%s", r.Err(), p.story())
		}
		pass(5 * time.Second)
		p.roles(dnsfailover.Standby, dnsfailover.Active)
		p.sites[0].kill()
		p.sites[0].start() // maintenance outlives it
		p.sites[1].kill()
		p.sites[0].public.set("no answer")
		pass(3 * time.Minute)
		if r := p.role(0); r != dnsfailover.Standby {
			t.Fatalf("a is %s in maintenance", r)
		}
	})
}
