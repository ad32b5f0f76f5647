package queue

import (
	"testing"
	"time"

	"understudy/internal/durable"
	"understudy/smtp"
)

// TestReplayOrder: whatever order records come in, the newest generation wins.
func TestReplayOrder(t *testing.T) {
	t.Parallel()
	first := messageRecord(t, 0, "body") // generation 0
	m, _, _, err := decodeMessage(first, newClock(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	state := func(gen uint64, text string) []byte {
		x := *m
		x.rcpts = append([]rcpt(nil), m.rcpts...)
		x.record(result(0, smtp.Deferred, text), time.Now(), 1)
		x.gen = gen
		return appendStates(nil, &x, newClock())
	}
	const gone = "gone"
	tomb := func(gen uint64) []byte { return appendTombstone(nil, m.id, gen, time.Now()) }
	type rec struct {
		kind    byte
		payload []byte
	}
	for name, x := range map[string]struct {
		log  []rec
		want string
	}{
		"in order":                {[]rec{{'M', first}, {'S', state(1, "one")}, {'S', state(2, "two")}}, "450 two"},
		"late state":              {[]rec{{'M', first}, {'S', state(2, "two")}, {'S', state(1, "one")}}, "450 two"},
		"twice":                   {[]rec{{'M', first}, {'S', state(1, "one")}, {'S', state(1, "one")}}, "450 one"},
		"copy behind a state":     {[]rec{{'M', first}, {'S', state(1, "one")}, {'M', first}}, "450 one"},
		"removed":                 {[]rec{{'M', first}, {'S', state(1, "one")}, {'R', tomb(2)}}, gone},
		"copy behind a tombstone": {[]rec{{'M', first}, {'R', tomb(1)}, {'M', first}}, gone},
		"state behind a tombstone": {
			[]rec{{'M', first}, {'R', tomb(2)}, {'S', state(1, "one")}}, gone,
		},
		"tombstone of an earlier life": {[]rec{{'M', first}, {'S', state(9, "nine")}, {'R', tomb(3)}}, "450 nine"},
		"state without a message":      {[]rec{{'S', state(1, "one")}}, gone},
	} {
		s := newSpool(testConfig(t.TempDir()), Deps{})
		r := replay{s: s, dead: map[ident]uint64{}}
		for i, rec := range x.log {
			at := durable.Pos{Segment: uint64(i + 1), Offset: 8192}
			if err := r.apply(durable.Record{Pos: at, Kind: rec.kind, Payload: rec.payload}); err != nil || r.bad > 0 {
				t.Fatalf("%s: record %d: %v", name, i, err)
			}
		}
		got := gone
		if m := s.messages[m.id]; m != nil {
			last, _ := m.lastError()
			got = last.String()
		}
		if got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
		live := 0
		for _, g := range s.segments {
			live += g.live
		}
		if live != len(s.messages) {
			t.Errorf("%s: %d messages alive in segments, %d in the index", name, live, len(s.messages))
		}
	}
	r := replay{s: newSpool(testConfig(t.TempDir()), Deps{}), dead: map[ident]uint64{}}
	for _, rec := range []rec{{'M', first[:40]}, {'S', []byte("x")}, {'R', []byte("x")}, {'H', []byte("{")}, {'?', nil}} {
		if err := r.apply(durable.Record{Pos: durable.Pos{Segment: 3}, Kind: rec.kind, Payload: rec.payload}); err != nil {
			t.Errorf("an unreadable record ends recovery: %v", err)
		}
	}
	if r.bad != 5 || !r.s.segments[3].keep {
		t.Errorf("%d unreadable records, want 5; their segment is kept: %v", r.bad, r.s.segments[3].keep)
	}
}
