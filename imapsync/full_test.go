package imapsync_test

import (
	"errors"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// fullSide is a world of 60 messages in which one side has no room left, not even
// for a marker. Three messages were deleted on the other one.
func fullSide(t *testing.T, full imapsync.Side) *world {
	t.Helper()
	w := synced(t, 20)
	w.clock.add(time.Hour)
	sides := [2]*storetest.Server{w.a, w.b}
	sides[full].SetQuota(1)
	other := sides[full.Other()]
	for _, m := range other.Messages("INBOX")[:3] {
		other.Delete("INBOX", m.UID)
	}
	return w
}

// A side that is full must be emptied by what is deleted on the other one.
func TestFullSideIsEmptied(t *testing.T) {
	t.Parallel()
	for _, full := range []imapsync.Side{imapsync.A, imapsync.B} {
		w := fullSide(t, full)
		if r := w.clean(); len(r.Notes) != 1 {
			t.Errorf("side %s is full, and the notes are %q", full, r.Notes)
		}
		w.want(57)
		// With room again all is as before.
		w.a.SetQuota(0)
		w.b.SetQuota(0)
		w.fill(w.a, "INBOX", 2)
		w.clean()
		w.want(59)
	}
}

// One marker is enough to keep two runners apart, whichever side is full.
func TestTwinsWithFullSide(t *testing.T) {
	t.Parallel()
	for _, full := range []imapsync.Side{imapsync.A, imapsync.B} {
		w := fullSide(t, full)
		if _, err := w.race(w.copied()); !errors.Is(err, imapsync.ErrBusy) {
			t.Errorf("side %s is full: both worked: %v", full, err)
		}
		w.want(57)
	}
}

// One runner passes over side B, the other, which looked before that one's marker
// was there, over side A: the other one sees the marker all the same.
func TestTwinsWithEitherSideFull(t *testing.T) {
	t.Parallel()
	w := fullSide(t, imapsync.B)
	twin := w.copied()
	var ran bool
	w.a.Before = func(op string) {
		if op != "append" || ran {
			return
		}
		ran = true
		if _, err := w.try(imapsync.PassOptions{}); err != nil {
			t.Error(err)
		}
		w.a.SetQuota(1)
		w.b.SetQuota(0)
	}
	_, err := twin.try(imapsync.PassOptions{})
	w.a.Before = nil
	if !ran || !errors.Is(err, imapsync.ErrBusy) {
		t.Errorf("both worked: %v", err)
	}
	w.want(57)
}

// Without a marker anywhere nothing is done.
func TestBothSidesFull(t *testing.T) {
	t.Parallel()
	w := fullSide(t, imapsync.A)
	w.b.SetQuota(1)
	if _, err := w.try(imapsync.PassOptions{}); !errors.Is(err, imapsync.ErrOverQuota) {
		t.Errorf("error %v", err)
	}
	if w.total(w.a) != 60 || w.total(w.b) != 57 {
		t.Errorf("%d and %d messages", w.total(w.a), w.total(w.b))
	}
}
