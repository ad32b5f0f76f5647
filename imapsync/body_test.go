package imapsync_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// alike are messages that have all header fields and the size in common.
func alike(id string, n int) string {
	return fmt.Sprintf("%sFrom: cron@example.com\r\nSubject: report\r\nDate: Mon, 1 Jan 2026 10:00:00 +0000\r\n\r\nreport %03d\r\n", id, n)
}

// Messages that only their bodies tell apart are not taken for each other.
func TestAlike(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "Message-ID: <same@example.com>\r\n"} {
		w := newWorld(t)
		for _, n := range []int{1, 2, 3, 3} {
			w.a.Append("INBOX", alike(id, n), w.clock.Now())
		}
		for _, n := range []int{3, 4, 2, 1, 3} {
			w.b.Append("INBOX", alike(id, n), w.clock.Now())
		}
		r := w.clean()
		if r.Paired != 4 || r.Sides[imapsync.A].Appended != 1 {
			t.Errorf("%+v", r)
		}
		w.want(5)
		w.a.Delete("INBOX", w.a.Messages("INBOX")[0].UID)
		w.clean()
		w.want(4)
		// The base is lost.
		if err := os.Remove(filepath.Join(w.dir, "base")); err != nil {
			t.Fatal(err)
		}
		w.clock.add(time.Hour)
		w.clean()
		w.want(4)
	}
}

// Without a Message-ID one on either side proves nothing.
func TestAlikeAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.Append("INBOX", alike("", 1), w.clock.Now())
	w.b.Append("INBOX", alike("", 2), w.clock.Now())
	w.clean()
	w.want(2)
}

// The journal does not take a stranger for what it was about to copy.
func TestAlikeInJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(w.a, "INBOX", 2)
	w.clean()
	w.a.Append("INBOX", alike("", 1), w.clock.Now())
	w.b.Cut = func(op string, _ bool) bool {
		return op == "append" && len(w.b.Messages("INBOX")) == 2 && len(w.b.Messages("_understudy-state")) > 1
	}
	if _, err := w.try(imapsync.PassOptions{}); err == nil {
		t.Fatal("it was not interrupted")
	}
	w.b.Cut = nil
	w.b.Append("INBOX", alike("", 2), w.clock.Now())
	w.clean()
	w.want(4)
}

// On a server without identities, one that is gone and one that is new elsewhere
// are no move unless they are equal.
func TestAlikeMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a = storetest.NewServer(storetest.Features{NoGID: true, FirstValid: 1000})
	w.b = storetest.NewServer(storetest.Features{NoGID: true, FirstValid: 5000})
	w.a.Create("Old")
	u := w.a.Append("INBOX", alike("", 1), w.clock.Now())
	v := w.a.Append("INBOX", alike("", 2), w.clock.Now())
	w.clean()
	w.a.Move("INBOX", v, "Old")
	r := w.clean()
	if r.Sides[imapsync.B].Moved != 1 || r.Sides[imapsync.B].Appended != 0 {
		t.Errorf("%+v", r)
	}
	w.a.Delete("INBOX", u)
	w.a.Append("Old", alike("", 3), w.clock.Now())
	w.clean()
	w.want(2)
}
