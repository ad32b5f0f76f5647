package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"understudy/integration/lab"
)

// TestBrownOut has a primary that accepts connections and then says nothing, as
// a machine does whose disk hangs. The backup goes on accepting; when the
// primary wakes up, everything is delivered without anybody's help.
func TestBrownOut(t *testing.T) {
	t.Parallel()
	sink := lab.StartSink(t, lab.SinkConfig{Chunking: true, Keep: true})
	sink.SetAnswer(func(stage, _ string) string {
		if stage == "connect" {
			return "hang"
		}
		return ""
	})
	backup := lab.NewUnderstudy(t, "smtp://"+sink.Addr, nil)
	backup.Start()
	ledger := lab.NewLedger()
	sendSome(t, backup.SMTP, mail(5, 50<<10), ledger, 0, 40)
	if n := len(backup.Queue()); n != 40 {
		t.Errorf("%d messages are in the queue, want 40", n)
	}
	sink.SetAnswer(nil)
	waitEmpty(t, backup, 90*time.Second)
	audit(t, ledger, sink.Bodies(), false)
	backup.Stop()
}

// TestFreezeInTheMiddle freezes the primary while it takes messages: answers
// stop in mid-session, and go on later.
func TestFreezeInTheMiddle(t *testing.T) {
	t.Parallel()
	sink := lab.StartSink(t, lab.SinkConfig{Chunking: true, Keep: true})
	sink.SetAnswer(func(stage, _ string) string {
		if stage == "message" {
			return "hang"
		}
		return ""
	})
	backup := lab.NewUnderstudy(t, "smtp://"+sink.Addr, nil)
	backup.Start()
	ledger := lab.NewLedger()
	sendSome(t, backup.SMTP, mail(6, 50<<10), ledger, 0, 20)
	sink.SetAnswer(nil)
	waitEmpty(t, backup, 90*time.Second)
	audit(t, ledger, sink.Bodies(), false)
	backup.Stop()
}

// TestRebornRefusing has a primary that comes back from an old backup and
// refuses everything. A few messages may be marked refused; then the next hop is
// paused, with an alarm, and the queue stays whole. When somebody has mended the
// primary, everything is delivered.
func TestRebornRefusing(t *testing.T) {
	t.Parallel()
	hop := lab.FreeAddr(t)
	backup := lab.NewUnderstudy(t, "smtp://"+hop, nil)
	backup.Start()
	ledger := lab.NewLedger()
	sendSome(t, backup.SMTP, mail(8, 20<<10), ledger, 0, 60)
	sink := lab.StartSink(t, lab.SinkConfig{Addr: hop, Chunking: true, Keep: true})
	sink.SetAnswer(func(stage, _ string) string {
		if stage == "RCPT" {
			return "554 5.7.1 relay access denied"
		}
		return ""
	})
	lab.Wait(t, 30*time.Second, "the next hop is paused", func() error {
		out, _ := backup.CLI("status", "--json")
		if !json.Valid([]byte(out)) {
			t.Fatalf("status is no JSON: %s", out)
		}
		if !strings.Contains(out, "paused") {
			return fmt.Errorf("status says %.300s", out)
		}
		return nil
	})
	states := map[string]int{}
	for _, q := range backup.Queue() {
		states[q.State]++
	}
	t.Logf("paused with %v", states)
	if states["refused"] > 20 || states["queued"]+states["active"]+states["refused"] != 60 {
		t.Errorf("a primary that refuses everything burnt the queue: %v", states)
	}
	sink.SetAnswer(nil)
	if states["refused"] > 0 {
		if out, code := backup.CLI("queue", "requeue", "--state", "refused"); code != 0 {
			t.Fatalf("requeue: code %d\n%s", code, out)
		}
	}
	if out, code := backup.CLI("queue", "flush", "--wait"); code != 0 {
		t.Errorf("flush ended with code %d:\n%s", code, out)
	}
	waitEmpty(t, backup, 30*time.Second)
	audit(t, ledger, sink.Bodies(), false)
	backup.Stop()
}

// TestPrimaryReturns measures how long the first message waits once the primary
// is back, without anybody flushing.
func TestPrimaryReturns(t *testing.T) {
	t.Parallel()
	hop := lab.FreeAddr(t)
	backup := lab.NewUnderstudy(t, "smtp://"+hop, nil)
	backup.Start()
	ledger := lab.NewLedger()
	sendSome(t, backup.SMTP, mail(10, 20<<10), ledger, 0, 20)
	// Long enough for back-offs to have grown past what is allowed below.
	pause(t, 6*time.Second)
	sink := lab.StartSink(t, lab.SinkConfig{Addr: hop, Chunking: true, Keep: true})
	start := time.Now()
	sink.WaitCount(t, 1, 30*time.Second)
	first := sink.First().Sub(start)
	t.Logf("the first message arrived %v after the primary's return", first.Round(time.Millisecond))
	if first > 2*time.Second {
		t.Errorf("the first message took %v, want 2 s at most", first)
	}
	waitEmpty(t, backup, 30*time.Second)
	audit(t, ledger, sink.Bodies(), false)
}
