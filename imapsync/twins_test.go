package imapsync_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// race lets the runner of another base act on side A right before the marker of w.
func (w *world) race(other *world) (imapsync.Report, error) {
	var once bool
	var rival error
	w.a.Before = func(op string) {
		if op != "append" || once {
			return
		}
		once = true
		before := w.a.Before
		w.a.Before = nil
		_, rival = other.try(imapsync.PassOptions{})
		w.a.Before = before
	}
	r, err := w.try(imapsync.PassOptions{})
	w.a.Before = nil
	if rival != nil {
		w.t.Fatalf("the other runner: %v", rival)
	}
	return r, err
}

// copied is a second machine with a copy of the base.
func (w *world) copied() *world {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.dir, "base"))
	if err != nil {
		w.t.Fatal(err)
	}
	twin := *w
	twin.dir = w.t.TempDir()
	if err := os.WriteFile(filepath.Join(twin.dir, "base"), raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return &twin
}

// Two machines with copies of one base begin at the same moment: one of them works.
func TestTwinsAtOnce(t *testing.T) {
	t.Parallel()
	for _, f := range []storetest.Features{{}, {NoUIDPlus: true}} {
		w := newWorld(t)
		fa, fb := f, f
		fa.FirstValid, fb.FirstValid = 1000, 5000
		w.a, w.b = storetest.NewServer(fa), storetest.NewServer(fb)
		w.fill(w.a, "INBOX", 20)
		w.clean()
		twin := w.copied()
		w.clock.add(time.Hour)
		w.fill(w.a, "INBOX", 5)
		if _, err := w.race(twin); !errors.Is(err, imapsync.ErrBusy) {
			t.Fatalf("both worked: %v", err)
		}
		w.want(25)
		// The one that came second knows that its base is out of date.
		w.clock.add(time.Hour)
		if r := w.clean(); len(r.Notes) == 0 {
			t.Errorf("an outdated base was used: %+v", r)
		}
		w.want(25)
	}
}

// The lease of a twin is kept like that of anybody else.
func TestTwinsLease(t *testing.T) {
	t.Parallel()
	w := synced(t, 20)
	twin := w.copied()
	w.clock.add(time.Hour)
	w.fill(w.a, "INBOX", 5)
	var err error
	w.b.Before = func(op string) {
		if op == "append" && len(w.a.Messages("INBOX")) == 25 && err == nil && len(w.b.Messages("_understudy-state")) > 1 {
			before := w.b.Before
			w.b.Before = nil
			acc := twin.open()
			_, err = acc.Pass(context.Background(), imapsync.Sides{A: w.a.Store(), B: w.b.Store()}, imapsync.PassOptions{})
			acc.Close() //nolint:errcheck // nothing is lost
			w.b.Before = before
		}
	}
	if _, own := w.try(imapsync.PassOptions{}); own != nil {
		t.Error(own)
	}
	w.b.Before = nil
	if !errors.Is(err, imapsync.ErrBusy) {
		t.Errorf("a twin went to work in the middle of a pass: %v", err)
	}
	w.want(65)
}
