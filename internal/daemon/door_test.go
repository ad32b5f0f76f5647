package daemon

import (
	"errors"
	"net"
	"testing"
	"time"

	"understudy/dnsfailover"
)

type quietAlarms struct{ raised map[string]string }

func (q *quietAlarms) Raise(key, text string) { q.raised[key] = text }
func (q *quietAlarms) Clear(key string)       { delete(q.raised, key) }

func sickSite() dnsfailover.Snapshot {
	return dnsfailover.Snapshot{
		Role: "active", Mode: dnsfailover.Automatic, Link: true, Heard: true,
		Self: dnsfailover.ProbeStatus{Failed: true, Reason: "imap"},
	}
}

// TestSickActiveShutsItsDoors: who is sick and active refuses clients, and takes
// them at the same address as soon as it is one of both no more.
func TestSickActiveShutsItsDoors(t *testing.T) {
	t.Parallel()
	alarms := &quietAlarms{raised: map[string]string{}}
	ds := &doors{alarms: alarms}
	l, err := ds.Listen(t.Context(), net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			_, _ = nc.Write([]byte("x"))
			_ = nc.Close()
		}
	}()
	served := func() bool {
		var dialer net.Dialer
		nc, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			return false
		}
		defer nc.Close() //nolint:errcheck // only looked
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		n, _ := nc.Read(make([]byte, 1))
		return n == 1
	}
	now := time.Unix(1e9, 0)
	healthy := sickSite()
	healthy.Self.Failed = false
	standby := sickSite()
	standby.Role = "standby"
	for _, step := range []struct {
		name  string
		s     dnsfailover.Snapshot
		after time.Duration
		open  bool
	}{
		{"healthy", healthy, 0, true},
		{"sick", sickSite(), time.Second, false},
		{"still sick", sickSite(), time.Second, false},
		{"standby", standby, time.Second, true},
		{"healthy again", healthy, 2 * shutDoors, true},
		{"sick again", sickSite(), time.Second, false},
		{"sick for long: probes must be able to succeed", sickSite(), shutDoors, true},
		{"open for a while", sickSite(), shutDoors / 2, true},
		{"and shut again", sickSite(), shutDoors, false},
		{"healthy at last", healthy, time.Second, true},
	} {
		now = now.Add(step.after)
		ds.look(step.s, now)
		if got := served(); got != step.open || ds.isShut() == step.open {
			t.Errorf("%s: served %t, said to be shut %t", step.name, got, ds.isShut())
		}
		if (alarms.raised["listeners"] == "") != step.open {
			t.Errorf("%s: alarm %q", step.name, alarms.raised["listeners"])
		}
	}
	ds.look(sickSite(), now.Add(2*shutDoors))
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting ended with %v", err)
	}
}

// TestTakenAddressIsTriedAgain: what somebody else took is an alarm, not the end.
func TestTakenAddressIsTriedAgain(t *testing.T) {
	t.Parallel()
	alarms := &quietAlarms{raised: map[string]string{}}
	ds := &doors{alarms: alarms}
	l, err := ds.Listen(t.Context(), net.ListenConfig{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	ds.look(sickSite(), time.Now())
	var lc net.ListenConfig
	thief, err := lc.Listen(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ds.look(dnsfailover.Snapshot{Role: "active"}, time.Now())
	if alarms.raised["listeners"] == "" {
		t.Error("no alarm")
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	ds.look(dnsfailover.Snapshot{Role: "active"}, time.Now())
	if text := alarms.raised["listeners"]; text != "" {
		t.Error(text)
	}
}

// TestWhoMustTakeMail: only the site's own verdict, while the other one is well
// and nobody forbade to move, shuts anything.
func TestWhoMustTakeMail(t *testing.T) {
	t.Parallel()
	if !sick(sickSite()) {
		t.Fatal("a sick active site is not sick")
	}
	for name, change := range map[string]func(*dnsfailover.Snapshot){
		"standby": func(s *dnsfailover.Snapshot) { s.Role = "standby" }, "fenced": func(s *dnsfailover.Snapshot) { s.Role = "fenced" },
		"well": func(s *dnsfailover.Snapshot) { s.Self.Failed = false }, "manual": func(s *dnsfailover.Snapshot) { s.Mode = dnsfailover.Manual },
		"observing": func(s *dnsfailover.Snapshot) { s.Mode = dnsfailover.Observe }, "paused": func(s *dnsfailover.Snapshot) { s.Paused = true },
		"alone": func(s *dnsfailover.Snapshot) { s.Link = false }, "never heard": func(s *dnsfailover.Snapshot) { s.Heard = false },
		"both sick": func(s *dnsfailover.Snapshot) { s.Peer.Sick = true },
	} {
		s := sickSite()
		if change(&s); sick(s) {
			t.Errorf("%s: shut", name)
		}
	}
}
