package imapsync_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"understudy/imapsync"
)

// What a runner had sent before it died is carried out by the server after that: the
// next runner, which is there at once, must not send it again.
func TestLateAppend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(w.a, "INBOX", 10)
	appends := 0
	w.b.Cut = func(op string, after bool) bool {
		if op == "append" && !after {
			appends++
		}
		return appends == 2 && !after // the first is the marker
	}
	if _, err := w.try(imapsync.PassOptions{}); err == nil {
		t.Fatal("the cut was not felt")
	}
	w.b.Cut = nil
	if n := w.total(w.b); n != 0 {
		t.Fatalf("%d messages are there already", n)
	}
	var server sync.WaitGroup
	server.Go(func() {
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the server takes its time
		for _, m := range w.a.Messages("INBOX") {
			w.b.Append("INBOX", m.Body, m.Date, m.Flags...)
		}
	})
	acc, err := imapsync.Open(filepath.Join(w.dir, "base"), w.cfg, imapsync.Deps{Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	acc.Hurry()
	acc.WaitInFlight(time.Second)
	if _, err := acc.Pass(context.Background(), imapsync.Sides{A: w.a.Store(), B: w.b.Store()}, imapsync.PassOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := acc.Close(); err != nil {
		t.Fatal(err)
	}
	server.Wait()
	w.clean()
	w.want(10)
}
