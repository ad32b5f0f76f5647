package durable

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// startLog opens, replays and runs a log; the returned function stops it.
func startLog(tb testing.TB, cfg LogConfig, fn func(Record) error) (*Log, Report, func()) {
	tb.Helper()
	l, err := OpenLog(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	report, err := l.Replay(Pos{}, fn)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return l, report, stop
}

func TestAppendReplay(t *testing.T) {
	t.Parallel()
	cfg := LogConfig{Dir: t.TempDir(), Name: "test", SegmentBytes: 1 << 20}
	l, _, stop := startLog(t, cfg, nil)
	want := map[Pos]string{}
	for i := range 500 {
		body := fmt.Sprintf("record %d %0*d", i, i*20, 7)
		pos, err := l.Append(t.Context(), byte(i), []byte(body[:5]), []byte(body[5:]))
		if err != nil {
			t.Fatal(err)
		}
		want[pos] = body
		r, err := l.Read(pos)
		if err != nil || string(r.Payload) != body || r.Kind != byte(i) {
			t.Fatalf("read %v: %v", pos, err)
		}
	}
	stop()
	got := map[Pos]string{}
	last := Pos{}
	_, report, _ := startLog(t, cfg, func(r Record) error {
		if r.Pos.Compare(last) <= 0 {
			t.Errorf("%v after %v", r.Pos, last)
		}
		last = r.Pos
		got[r.Pos] = string(r.Payload)
		return nil
	})
	for pos, body := range want {
		if got[pos] != body {
			t.Fatalf("%v lost", pos)
		}
	}
	if len(got) != len(want) || report.Records != len(want) || report.TornBytes != 0 || len(report.Quarantined) != 0 {
		t.Fatalf("%d records, want %d; %+v", len(got), len(want), report)
	}
}
