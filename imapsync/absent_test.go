package imapsync_test

import (
	"slices"
	"testing"

	"understudy/imapsync"
)

// TestUnlistedFolderIsKept: a folder that a listing leaves out, and that is there
// when asked for by name, is deleted nowhere, and neither is its mail.
func TestUnlistedFolderIsKept(t *testing.T) {
	t.Parallel()
	for _, side := range []imapsync.Side{imapsync.A, imapsync.B} {
		for _, lists := range []int{1, 1 << 30} { // an old view for one listing, and for the whole pass
			w := synced(t, 5)
			w.cfg.Guard.Off = true
			srv := w.a
			if side == imapsync.B {
				srv = w.b
			}
			left := lists
			srv.Before = func(op string) {
				if op == "list" {
					left--
				}
			}
			srv.Unlisted = func(name string) bool { return left >= 0 && name == "Archive" }
			r := w.pass()
			if n := r.Sides[imapsync.A].Deleted + r.Sides[imapsync.B].Deleted; n != 0 {
				t.Errorf("side %s, %d listings: %d messages deleted", side, lists, n)
			}
			if lists > 1 && (r.Clean() || !slices.ContainsFunc(r.Faults, func(f imapsync.Fault) bool { return f.Folder == "Archive" && f.Side == side })) {
				t.Errorf("side %s: nothing said of the folder: %+v", side, r)
			}
			if !slices.Contains(w.a.Folders(), "Archive") || !slices.Contains(w.b.Folders(), "Archive") {
				t.Fatalf("side %s, %d listings: the folder is gone\n%s", side, lists, w.dump())
			}
			srv.Unlisted, srv.Before = nil, nil
			w.clean()
			w.want(15)
		}
	}
}

// TestUnknownAbsence: an answer that is not a clear one deletes nothing; a clear one
// in a later pass does.
func TestUnknownAbsence(t *testing.T) {
	t.Parallel()
	w := synced(t, 5)
	w.cfg.Guard.Off = true
	w.a.Remove("Archive")
	w.a.Unreadable = func(name string) error {
		if name == "Archive" {
			return imapsync.ErrNoAccess
		}
		return nil
	}
	if r := w.pass(); r.Clean() || w.total(w.b) != 15 {
		t.Fatalf("%d messages left, %+v", w.total(w.b), r)
	}
	w.a.Unreadable = nil
	w.clean()
	w.want(10)
	if slices.Contains(w.b.Folders(), "Archive") {
		t.Error("the folder stays")
	}
}
