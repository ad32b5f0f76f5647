package queue

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"pgregory.net/rapid"

	"understudy/internal/durable"
	"understudy/smtp"
	"understudy/smtp/queue/queuetest"
)

// drawState gives m any durable state.
func drawState(t *rapid.T, m *message, c clock) {
	m.phase = phase(rapid.IntRange(0, int(phaseEnd)-1).Draw(t, "phase"))
	m.cause = cause(rapid.IntRange(0, int(causeEnd)-1).Draw(t, "cause"))
	m.gen = rapid.Uint64().Draw(t, "gen")
	m.since = rapid.Int64().Draw(t, "since")
	m.reason = rapid.String().Draw(t, "reason")
	m.route = &route{name: rapid.SampledFrom([]string{"", "smtp://a:25"}).Draw(t, "route")}
	answer := func() unique.Handle[reply] {
		return makeReply(smtp.Result{
			Code: rapid.IntRange(0, 999).Draw(t, "code"), Enhanced: "4.2.0", Relay: "mx",
			Text: rapid.SampledFrom([]string{"busy", "", "full", strings.Repeat("x", 2000)}).Draw(t, "text"),
		})
	}
	for i := range m.rcpts {
		r := &m.rcpts[i]
		r.outcome = smtp.Outcome(rapid.IntRange(0, 2).Draw(t, "outcome"))
		if r.attempts = rapid.Uint32().Draw(t, "attempts"); r.attempts > 0 {
			r.last, r.at = answer(), rapid.Int64().Draw(t, "at")
		}
		r.next = 0
		if rapid.Bool().Draw(t, "waits") {
			r.next = c.now() + int64(time.Hour)
		}
	}
	for range rapid.IntRange(0, maxHistory).Draw(t, "history") {
		m.history = append(m.history, attempt{at: 5, reply: answer(), rcpt: 1, outcome: smtp.Delivered})
	}
	m.due()
}

func TestStateRoundTrip(t *testing.T) {
	t.Parallel()
	c := newClock()
	rapid.Check(t, func(t *rapid.T) {
		env := envelope("s@x.example", make([]string, rapid.IntRange(1, 40).Draw(t, "recipients"))...)
		m := newMessage(ident{1}, env, 0)
		drawState(t, m, c)
		b := m.appendState(nil, c)
		back := newMessage(ident{1}, env, 0)
		route, err := back.decodeState(b, c, 2*time.Hour)
		if err != nil || route != m.route.name {
			t.Fatalf("route %q, %v", route, err)
		}
		// Instants travel as wall time: they come back within a moment.
		for i := range m.rcpts {
			if d := time.Duration(m.rcpts[i].next - back.rcpts[i].next).Abs(); d > time.Minute {
				t.Fatalf("recipient %d is due %v later", i, d)
			}
			back.rcpts[i].next = m.rcpts[i].next
		}
		if back.phase != m.phase || back.cause != m.cause || back.gen != m.gen || back.since != m.since || back.reason != m.reason ||
			!slices.Equal(back.rcpts, m.rcpts) || !slices.Equal(back.history, m.history) {
			t.Fatalf("%+v\ncame back as\n%+v", m, back)
		}
	})
}

func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := newSpool(testConfig(t.TempDir()), Deps{})
	rapid.Check(t, func(t *rapid.T) {
		env := envelope("s@x.example", "a@y.example", "b@y.example")
		m := newMessage(ident{1, 2, 3}, env, 0)
		drawState(t, m, c)
		m.pos = durable.Pos{Segment: rapid.Uint64().Draw(t, "segment"), Offset: rapid.Int64Range(0, 1<<40).Draw(t, "offset")}
		m.disk, m.size = rapid.Int64Range(0, 1<<40).Draw(t, "disk"), rapid.Int64Range(0, 1<<40).Draw(t, "size")
		if rapid.Bool().Draw(t, "spilled") {
			m.spill = &spill{ident{9}, 77, 88}
		}
		r := reader{b: m.appendEntry(nil, c)}
		back, route, err := s.readEntry(&r)
		if err != nil || len(r.b) > 0 || route != m.route.name {
			t.Fatalf("%d bytes left, %v", len(r.b), err)
		}
		if back.id != m.id || back.pos != m.pos || back.disk != m.disk || back.size != m.size || back.received != m.received ||
			back.sender != m.sender || back.gen != m.gen || len(back.rcpts) != 2 || back.rcpts[1].addr != m.rcpts[1].addr ||
			(back.spill == nil) != (m.spill == nil) || (m.spill != nil && *back.spill != *m.spill) {
			t.Fatalf("%+v\ncame back as\n%+v", m, back)
		}
	})
}

// messageRecord is the payload of a message record.
func messageRecord(tb testing.TB, flags byte, body string) []byte {
	tb.Helper()
	env := queuetest.Envelope()
	env.ID, env.SizeBytes = ident{7}.String(), int64(len(body))
	text, err := json.Marshal(env)
	if err != nil {
		tb.Fatal(err)
	}
	m := newMessage(ident{7}, env, 0)
	m.record(result(1, smtp.Deferred, "busy"), time.Now(), 1)
	state := m.appendState(nil, newClock())
	p := prefix{flags: flags, id: ident{7}, state: uint32(len(state)), envelope: uint32(len(text)), inline: uint64(len(body))}
	b := appendPrefix(nil, &p)
	return append(append(append(b, state...), text...), body...)
}

// FuzzRecord feeds any bytes to everything that reads the disk. Nothing may panic
// or take memory out of proportion, and what is read must be written back alike.
func FuzzRecord(f *testing.F) {
	f.Add(messageRecord(f, 0, "Subject: x\r\n\r\nbody\r\n"))
	f.Add(messageRecord(f, flagSpill, "Received: x\r\n"))
	m := newMessage(ident{3}, envelope("s@x.example", "a@y.example"), 0)
	c := newClock()
	f.Add(m.appendState(nil, c))
	f.Add(appendStates(nil, m, c))
	f.Add(appendTombstone(nil, ident{3}, 4, time.Unix(5, 0)))
	f.Add(m.appendEntry(nil, c))
	s := newSpool(testConfig(f.TempDir()), Deps{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, _, p, err := decodeMessage(b, c, time.Hour); err == nil {
			if m.id != p.id || p.total() != int64(len(b)) || m.size < 0 {
				t.Errorf("accepted %+v with prefix %+v", m, p)
			}
			env, err := envelopeOf(b)
			if err != nil || len(env.Recipients) != len(m.rcpts) {
				t.Errorf("envelope: %v", err)
			}
		}
		for _, n := range []int{0, 1, 2} {
			m := newMessage(ident{1}, envelope("", make([]string, n)...), 0)
			if route, err := m.decodeState(b, c, time.Hour); err == nil {
				m.route = newRoute(route)
				again := newMessage(ident{1}, envelope("", make([]string, n)...), 0)
				if _, err := again.decodeState(m.appendState(nil, c), c, time.Hour); err != nil {
					t.Errorf("state is not read back: %v", err)
				}
			}
		}
		seen := 0
		_ = eachState(b, func(_ ident, state []byte) error { seen += 20 + len(state); return nil })
		if seen > len(b) {
			t.Errorf("%d bytes of states in %d", seen, len(b))
		}
		_ = eachTombstone(b, func(ident, uint64, time.Time) {})
		r := reader{b: b}
		if m, _, err := s.readEntry(&r); err == nil && len(m.rcpts) > len(b) {
			t.Errorf("%d recipients in %d bytes", len(m.rcpts), len(b))
		}
		_ = s.readIndex(strings.NewReader(string(b)))
		s.clearIndex()
	})
}
