package imapsync_test

import (
	"testing"

	"understudy/imapsync"
)

// An approved deletion that is interrupted goes on in the next pass; it is not
// taken for one that nobody wanted.
func TestApprovedAndInterrupted(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		w := synced(t, 60)
		for _, m := range w.a.Messages("Archive") {
			w.a.Delete("Archive", m.UID)
		}
		if r := w.pass(); len(r.Holds) != 1 {
			t.Fatalf("%+v", r)
		}
		w.decide(func(a *imapsync.Account) error { return a.Approve("") })
		w.b.Cut = func(op string, late bool) bool { return op == "expunge" && late == after }
		if _, err := w.try(imapsync.PassOptions{}); err == nil {
			t.Fatal("it was not interrupted")
		}
		w.b.Cut = nil
		w.clean()
		w.want(120)
	}
}

// What was rejected is not approved by a later word about all that waits.
func TestRejectedStaysRejected(t *testing.T) {
	t.Parallel()
	w := synced(t, 60)
	for _, m := range w.a.Messages("Archive") {
		w.a.Delete("Archive", m.UID)
	}
	w.pass()
	w.decide(func(a *imapsync.Account) error { return a.Reject("") })
	w.decide(func(a *imapsync.Account) error { return a.Approve("") })
	w.clean()
	w.want(180)
}

// A hold follows its folder through a rename.
func TestHoldOfRenamedFolder(t *testing.T) {
	t.Parallel()
	for _, approve := range []bool{false, true} {
		w := synced(t, 60)
		for _, m := range w.a.Messages("Archive") {
			w.a.Delete("Archive", m.UID)
		}
		w.pass()
		w.b.Rename("Archive", "Attic")
		if r := w.pass(); len(r.Holds) != 1 || r.Holds[0].Folder != "Attic" {
			t.Fatalf("%+v", r.Holds)
		}
		want := 180
		if approve {
			want = 120
			w.decide(func(a *imapsync.Account) error { return a.Approve("") })
		} else {
			w.decide(func(a *imapsync.Account) error { return a.Reject("") })
		}
		w.clean()
		w.want(want)
	}
}
