package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/smtp"
	"understudy/smtp/wire"
)

var testTuning = tuning{
	max: 64, lanes: 8, pauseAfter: 3, pauseFirst: 30 * time.Second, pauseMax: 2 * time.Minute, crowdedAfter: 30 * time.Second,
}

// A script is words with effects, and the state it must lead to.
func TestMachine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script, want string
	}{
		{"begins careful", "", "up limit=1 unproven"},
		{"slow start doubles each round", "accept accept accept", "up limit=4 proven"},
		{"no more than the window", "accept*100", "up limit=64 proven"},
		{"a cut halves", "accept*100 cut", "up limit=32 proven"},
		{"what was sent before the cut counts once", "accept*100 cut late late late", "up limit=32 proven"},
		{"never below one", "cut cut cut", "up limit=1 unproven"},
		{"behind a cut it grows slowly", "accept*100 cut accept*8", "up limit=32 proven"},
		{"and comes back", "accept*100 cut accept*400", "up limit=64 proven"},
		{"unreachable", "accept*9 unreachable", "down limit=0 proven"},
		{"back, and careful again", "accept*9 unreachable reached", "up limit=1 unproven"},
		{"down stays down", "unreachable unreachable", "down limit=0 unproven"},
		{"a late acceptance does not bring it up", "unreachable accept", "down limit=0 proven"},
		{"a connection of one that is up changes nothing", "accept reached", "up limit=2 proven"},
		{"unproven: any refusal counts", "refuse:a refuse:b refuse:c", "paused limit=0 unproven"},
		{"the same message counts once", "refuse:a refuse:a refuse:a refuse:a", "up limit=1 unproven"},
		{"an acceptance ends the row", "own:a own:b accept own:c own:d", "up limit=2 proven"},
		{"proven: refusals about messages do not count", "accept refuse:a refuse:b refuse:c refuse:d", "up limit=2 proven"},
		{"proven: many who are unknown", "accept nobody*11", "up limit=2 proven"},
		{"too many who are unknown", "accept nobody*12", "up limit=2 unproven"},
		{"an acceptance ends that row", "accept nobody*11 accept nobody*11", "up limit=3 proven"},
		{"proven: those of its own do", "accept own:a own:b own:c", "paused limit=0 proven"},
		{"busy all the time", "accept busy:a busy:b busy:c", "paused limit=0 proven"},
		{"paused is not tried at once", "own:a own:b own:c +29s", "paused limit=0 unproven"},
		{"one message after a while", "own:a own:b own:c +30s", "paused limit=1 unproven"},
		{"the wait doubles", "own:a own:b own:c +30s own:d +59s", "paused limit=0 unproven"},
		{"the wait doubles and ends", "own:a own:b own:c +30s own:d +60s", "paused limit=1 unproven"},
		{"the wait has a bound", "own:a own:b own:c +30s own:d +60s own:e +120s own:f +120s", "paused limit=1 unproven"},
		{"busy is tried sooner", "busy:a busy:b busy:c +2s", "paused limit=1 unproven"},
		{"an acceptance ends the pause", "own:a own:b own:c +30s accept", "up limit=2 proven"},
		{"a message put off does not", "own:a own:b own:c +30s deferred +59s", "paused limit=0 unproven"},
		{"gone while paused", "own:a own:b own:c unreachable", "down limit=0 unproven"},
		{"an operator says go", "own:a own:b own:c resume", "up limit=1 unproven"},
		{"turned away is down", "away away", "down limit=0 unproven"},
		{"turned away for long is paused", "away away away", "paused limit=0 unproven"},
		{"a greeting ends that row", "away away reached away away", "down limit=0 unproven"},
	}
	for _, tt := range tests {
		now := time.Unix(0, 0)
		m := newMachine(testTuning, now)
		var old uint64
		for word := range strings.FieldsSeq(tt.script) {
			word, times := cutTimes(word)
			for range times {
				verb, id, _ := strings.Cut(word, ":")
				switch verb {
				case "accept":
					m.accept(now)
				case "cut":
					old = m.round
					m.congested(m.round)
				case "late":
					m.congested(old)
				case "unreachable":
					m.unreachable(now, "x")
				case "away":
					m.turnedAway(now, "x")
				case "reached":
					m.reached(now)
				case "refuse":
					m.refuse(now, id, "x", false)
				case "nobody":
					m.nobody()
				case "own":
					m.refuse(now, id, "x", true)
				case "busy":
					m.busy(now, id, "x")
				case "deferred":
					m.deferred(now)
				case "resume":
					m.resume(now)
				default:
					d, err := time.ParseDuration(strings.TrimPrefix(verb, "+"))
					if err != nil {
						t.Fatal(err)
					}
					now = now.Add(d)
				}
			}
		}
		proven := "unproven"
		if m.proven {
			proven = "proven"
		}
		if got := fmt.Sprintf("%s limit=%d %s", m.state, m.allowed(now), proven); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func cutTimes(word string) (string, int) {
	verb, n, ok := strings.Cut(word, "*")
	if !ok {
		return word, 1
	}
	times := 0
	_, _ = fmt.Sscan(n, &times)
	return verb, times
}

func TestMachineConnections(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	m := newMachine(testTuning, now)
	if n := m.connections(now); n != 1 {
		t.Errorf("at first %d", n)
	}
	for range 100 {
		m.accept(now)
	}
	if n := m.connections(now); n != 8 {
		t.Errorf("warm %d", n)
	}
	m.crowded(now, 3)
	if n := m.connections(now); n != 3 {
		t.Errorf("crowded %d", n)
	}
	if n := m.connections(now.Add(31 * time.Second)); n != 8 {
		t.Errorf("later %d", n)
	}
}

// Whatever happens: bounds hold, a hop that is down gets nothing, and one
// greeting and one acceptance bring any hop back.
func TestMachineAlwaysComesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(0, 0)
		m := newMachine(testTuning, now)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			id := rapid.StringMatching("[a-e]").Draw(t, "id")
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0, 1:
				m.accept(now)
			case 2:
				m.congested(m.round)
			case 3:
				m.unreachable(now, "x")
			case 4:
				m.turnedAway(now, "x")
			case 5:
				m.reached(now)
			case 6:
				m.refuse(now, id, "x", rapid.Bool().Draw(t, "own"))
			case 7:
				m.busy(now, id, "x")
			case 8:
				m.deferred(now)
			case 9:
				now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, "wait"))
			}
			n := m.allowed(now)
			if n < 0 || n > testTuning.max || m.state == Down && n != 0 || m.state == Up && n < 1 {
				t.Fatalf("%s allows %d", m.state, n)
			}
			if m.state == Paused && m.next.Sub(now) > testTuning.pauseMax {
				t.Fatalf("paused for %v", m.next.Sub(now))
			}
		}
		m.reached(now)
		m.accept(now)
		if m.state != Up || !m.proven || len(m.streak) != 0 {
			t.Fatalf("%s, proven %v", m.state, m.proven)
		}
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	answer := func(stage wire.Stage, code int, enhanced, text string) wire.Answer {
		return wire.Answer{Stage: stage, Reply: wire.Reply{Code: code, Enhanced: enhanced, Text: text}}
	}
	const d, del, ref = smtp.Deferred, smtp.Delivered, smtp.Refused
	tests := []struct {
		a                wire.Answer
		k                kind
		unproven, proven smtp.Outcome
		twice            smtp.Outcome
	}{
		{answer(wire.StageFinal, 250, "2.0.0", "ok"), accepted, del, del, del},
		{answer(wire.StageRcpt, 550, "5.1.1", "no such user"), refused, d, ref, ref},
		{answer(wire.StageRcpt, 550, "", "User unknown"), refused, d, ref, ref},
		{answer(wire.StageRcpt, 552, "5.2.2", "full"), refused, d, ref, ref},
		{answer(wire.StageFinal, 552, "5.3.4", "too big"), refused, d, ref, ref},
		{answer(wire.StageFinal, 554, "5.7.1", "spam"), refused, d, ref, ref},
		{answer(wire.StageRcpt, 554, "5.7.1", "Relay access denied"), policy, d, d, ref},
		{answer(wire.StageRcpt, 550, "", "relaying denied"), policy, d, d, ref},
		{answer(wire.StageRcpt, 554, "5.4.6", "loop"), policy, d, d, ref},
		{answer(wire.StageFinal, 554, "5.4.6", "loop"), policy, d, d, ref},
		{answer(wire.StageMail, 550, "5.7.1", "no"), policy, d, d, ref},
		{answer(wire.StageMail, 530, "5.7.0", "STARTTLS first"), policy, d, d, ref},
		{answer(wire.StageData, 554, "5.5.1", "no valid recipients"), policy, d, d, ref},
		{answer(wire.StageRcpt, 450, "4.2.1", "later"), deferred, d, d, d},
		{answer(wire.StageFinal, 452, "4.3.1", "disk full"), busy, d, d, d},
		{answer(wire.StageFinal, 451, "4.7.1", "greylisted"), deferred, d, d, d},
		{answer(wire.StageRcpt, 454, "4.7.1", "Relay access denied"), busy, d, d, d},
		{answer(wire.StageMail, 450, "4.1.8", "sender's domain not found"), busy, d, d, d},
		{answer(wire.StageMail, 421, "4.3.2", "bye"), busy, d, d, d},
		{answer(wire.StageFinal, 399, "", "?"), lost, d, d, d},
		{wire.Answer{Err: wire.ErrClosing}, unsent, d, d, d},
		{wire.Answer{Err: wire.ErrClosing, Stage: wire.StageMail, Behind: true}, unsent, d, d, d},
		{wire.Answer{Err: wire.ErrClosing, Stage: wire.StageMail}, lost, d, d, d},
		{wire.Answer{Err: wire.ErrOpen}, local, d, d, d},
		{wire.Answer{Err: wire.ErrLacks, Reply: wire.Reply{Code: 553, Enhanced: "5.6.7"}}, refused, d, ref, ref},
	}
	for _, tt := range tests {
		k := classify(tt.a)
		if k != tt.k {
			t.Errorf("%v %s: kind %d, want %d", tt.a.Reply, tt.a.Stage, k, tt.k)
		}
		for _, o := range []struct {
			proven, again bool
			want          smtp.Outcome
		}{{false, false, tt.unproven}, {true, false, tt.proven}, {true, true, tt.twice}, {false, true, tt.unproven}} {
			if got := outcome(k, o.proven, o.again); got != o.want {
				t.Errorf("%v %s (proven %v, again %v): %d, want %d", tt.a.Reply, tt.a.Stage, o.proven, o.again, got, o.want)
			}
		}
	}
}

func TestSuspicion(t *testing.T) {
	t.Parallel()
	var s suspicion
	for range 2 {
		if s.again("a", 0, 1) || s.again("a", 1, 2) {
			t.Error("believed too early")
		}
	}
	if !s.again("a", 0, 2) {
		t.Error("not believed though something was accepted in between")
	}
	for i := range maxSuspects + 10 {
		s.again(fmt.Sprint(i), 0, 3)
	}
	if len(s.seen) > maxSuspects || len(s.order) > maxSuspects {
		t.Errorf("grows without bound: %d", len(s.seen))
	}
}
