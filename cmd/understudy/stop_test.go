package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"understudy/dnsfailover"
	"understudy/internal/admin"
)

// stopping is a daemon that notes what it is asked.
type stopping struct {
	role    dnsfailover.Role
	refused []string
	story   []string
}

func (s *stopping) Status(context.Context) (admin.StatusReport, error) {
	return admin.StatusReport{PID: 4711}, nil
}

func (s *stopping) FailoverStatus(context.Context) (dnsfailover.Status, error) {
	return dnsfailover.Status{PeerSite: "b", Snapshot: dnsfailover.Snapshot{Role: s.role.String()}}, nil
}

func (s *stopping) FailoverOrder(_ context.Context, q dnsfailover.OrderQuestion) (dnsfailover.OrderResult, error) {
	s.story = append(s.story, fmt.Sprint(q.Command, " ", q.To, " ", q.Force))
	return dnsfailover.OrderResult{Refused: s.refused, Active: q.To, Epoch: 8}, nil
}

func (s *stopping) kill(pid int, sig syscall.Signal) error {
	if sig == 0 {
		return syscall.ESRCH
	}
	s.story = append(s.story, fmt.Sprint(pid, " ", int(sig)))
	return nil
}

// TestStopHandsOverFirst: a refused hand-over stops nothing.
func TestStopHandsOverFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		d        stopping
		handOver bool
		want     string
		err      string
	}{
		{"plain", stopping{role: dnsfailover.Active}, false, "4711 15", ""},
		{"active", stopping{role: dnsfailover.Active}, true, "switchover b false, 4711 15", ""},
		{"standby", stopping{role: dnsfailover.Standby}, true, "4711 15", ""},
		{"refused", stopping{role: dnsfailover.Active, refused: []string{"b is not ready"}}, true, "switchover b false", "not stopped: refused: b is not ready"},
		{"fenced", stopping{role: dnsfailover.Fenced, refused: []string{"no permit"}}, true, "switchover b false", "not stopped: refused: no permit"},
	} {
		a := &app{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}
		err := a.stop(t.Context(), &c.d, c.handOver, c.d.kill)
		if got := strings.Join(c.d.story, ", "); got != c.want || fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
			t.Errorf("%s: %s (%v)", c.name, got, err)
		}
	}
}
