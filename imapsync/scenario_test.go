package imapsync_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

// synced is a world with mail in three folders, equal on both sides.
func synced(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(t)
	w.fill(w.a, "INBOX", n)
	w.fill(w.a, "Archive", n, imap.FlagSeen)
	w.fill(w.b, "Work", n)
	w.clean()
	w.a.BodyBytes()
	w.b.BodyBytes()
	return w
}

func (w *world) total(s *storetest.Server) int {
	n := 0
	for _, c := range count(s) {
		n += c
	}
	return n
}

func (w *world) want(n int) {
	w.t.Helper()
	if a, b := w.total(w.a), w.total(w.b); a != n || b != n {
		w.t.Fatalf("%d and %d messages, want %d\n%s", a, b, n, w.dump())
	}
}

// noBodies checks that no mail was transferred; markers are small.
func (w *world) noBodies() {
	w.t.Helper()
	if n := w.a.BodyBytes() + w.b.BodyBytes(); n > 20<<10 {
		w.t.Errorf("%d bytes of mail were transferred", n)
	}
}

func (w *world) decide(f func(*imapsync.Account) error) {
	w.t.Helper()
	acc := w.open()
	defer acc.Close() //nolint:errcheck // nothing is lost
	if err := f(acc); err != nil {
		w.t.Fatal(err)
	}
}

// Row 1: the base is lost, both sides are equal.
func TestLostState(t *testing.T) {
	t.Parallel()
	w := synced(t, 100)
	if err := os.Remove(filepath.Join(w.dir, "base")); err != nil {
		t.Fatal(err)
	}
	w.clock.add(time.Hour)
	r := w.clean()
	if r.Paired != 300 || r.Changes() != 0 {
		t.Errorf("%+v", r)
	}
	w.noBodies()
	w.want(300)
}

// Row 2: side A is a new, empty server.
func TestBlankSide(t *testing.T) {
	t.Parallel()
	w := synced(t, 100)
	w.a = storetest.NewServer(storetest.Features{FirstValid: 9000})
	r := w.clean()
	if r.Sides[imapsync.A].Appended != 300 || r.Sides[imapsync.B].Deleted != 0 || len(r.Notes) == 0 {
		t.Errorf("%+v", r)
	}
	w.want(300)
}

// Row 3: a folder is emptied on one side.
func TestEmptiedFolder(t *testing.T) {
	t.Parallel()
	for _, verdict := range []string{"approve", "reject", "expire", "nobody"} {
		t.Run(verdict, func(t *testing.T) {
			t.Parallel()
			w := synced(t, 100)
			for _, m := range w.a.Messages("Archive") {
				w.a.Delete("Archive", m.UID)
			}
			r := w.pass()
			if len(r.Holds) != 1 || r.Holds[0].Messages != 100 || r.Holds[0].Side != imapsync.B || r.Clean() {
				t.Fatalf("%+v", r)
			}
			// Mail goes on meanwhile, in this folder too, and the hold stays as it is.
			w.fill(w.a, "Archive", 1)
			w.fill(w.b, "Archive", 1)
			if r := w.pass(); len(r.Holds) != 1 || len(w.a.Messages("Archive")) != 2 || len(w.b.Messages("Archive")) != 102 {
				t.Fatalf("%+v\n%s", r, w.dump())
			}
			switch verdict {
			case "approve":
				w.decide(func(a *imapsync.Account) error { return a.Approve(r.Holds[0].ID) })
				w.clean()
				w.want(202)
			case "reject":
				w.decide(func(a *imapsync.Account) error { return a.Reject("") })
				w.clean()
				w.want(302)
			case "expire":
				w.clock.add(w.cfg.Guard.Expire + time.Minute)
				w.clean()
				w.want(302)
			case "nobody":
				w.decide(func(a *imapsync.Account) error {
					if err := a.Approve("nonsense"); !errors.Is(err, imapsync.ErrNoHold) {
						t.Errorf("approve: %v", err)
					}
					return nil
				})
				if r := w.pass(); len(r.Holds) != 1 || r.Changes() != 0 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// Row 4: a folder is renamed, with children.
func TestRename(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]storetest.Features{"mailboxid": {}, "validity": {NoMailboxID: true}, "content": {NoMailboxID: true, NoGID: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			fa, fb := f, f
			fa.FirstValid, fb.FirstValid = 1000, 5000
			w.a, w.b = storetest.NewServer(fa), storetest.NewServer(fb)
			w.fill(w.a, "Work", 100)
			w.fill(w.a, "Work/Deep", 10)
			w.clean()
			w.a.BodyBytes()
			w.b.BodyBytes()
			w.a.Rename("Work", "Job")
			w.a.Create("Work") // and there is a new one of the old name
			r := w.clean()
			if r.Sides[imapsync.B].FoldersRenamed != 1 || r.Sides[imapsync.B].Appended != 0 || r.Sides[imapsync.B].Deleted != 0 {
				t.Errorf("%+v", r)
			}
			w.noBodies()
			w.want(110)
		})
	}
}

func TestRenameBoth(t *testing.T) {
	t.Parallel()
	w := synced(t, 60)
	w.a.Rename("Archive", "Left")
	w.b.Rename("Archive", "Right")
	r := w.clean()
	if !slices.Contains(w.b.Folders(), "Left") || slices.Contains(w.a.Folders(), "Right") || len(r.Conflicts) != 1 {
		t.Errorf("%v %+v", w.b.Folders(), r)
	}
	w.want(180)
	w.noBodies()
}

// Row 5: a folder is deleted with mail in it.
func TestDeletedFolder(t *testing.T) {
	t.Parallel()
	w := synced(t, 5)
	w.a.Remove("Archive")
	r := w.pass()
	if len(r.Holds) != 1 || len(w.b.Messages("Archive")) != 5 {
		t.Fatalf("%+v", r)
	}
	w.decide(func(a *imapsync.Account) error { return a.Approve("") })
	w.clean()
	if slices.Contains(w.b.Folders(), "Archive") {
		t.Error("the folder is still there")
	}
	w.want(10)
	// New mail on the other side: the folder survives, with the new mail only.
	w.a.Remove("Work")
	w.fill(w.b, "Work", 1)
	w.pass()
	w.decide(func(a *imapsync.Account) error { return a.Approve("") })
	w.clean()
	w.want(6)
	if !slices.Contains(w.a.Folders(), "Work") {
		t.Error("the folder did not survive")
	}
}

// Row 6: UIDVALIDITY changes.
func TestNewValidity(t *testing.T) {
	t.Parallel()
	w := synced(t, 100)
	w.b.Renumber("Archive")
	w.b.Flag("INBOX", w.b.Messages("INBOX")[0].UID, imapsync.NewFlags(imap.FlagSeen), nil)
	r := w.clean()
	if r.Paired != 100 || r.Sides[0].Appended+r.Sides[1].Appended+r.Sides[0].Deleted+r.Sides[1].Deleted != 0 {
		t.Errorf("%+v", r)
	}
	w.noBodies()
	w.want(300)
}

// Row 7: a hundred messages are moved, with flags changed on the way.
func TestMoves(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]storetest.Features{"gid": {}, "content": {NoGID: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			fa, fb := f, f
			fa.FirstValid, fb.FirstValid = 1000, 5000
			w.a, w.b = storetest.NewServer(fa), storetest.NewServer(fb)
			uids := w.fill(w.a, "INBOX", 100)
			w.a.Create("Archive")
			w.clean()
			w.a.BodyBytes()
			w.b.BodyBytes()
			for i, u := range uids {
				v := w.a.Move("INBOX", u, "Archive")
				if i%2 == 0 {
					w.a.Flag("Archive", v, imapsync.NewFlags(imap.FlagSeen, "$kw"), nil)
				}
				if i%3 == 0 {
					w.b.Flag("INBOX", w.b.Messages("INBOX")[i].UID, imapsync.NewFlags(imap.FlagFlagged), nil)
				}
			}
			r := w.clean()
			if r.Sides[imapsync.B].Moved != 100 || r.Sides[imapsync.B].Appended != 0 {
				t.Errorf("%+v", r)
			}
			w.noBodies()
			w.want(100)
		})
	}
}

// Row 8: the process dies again and again in a large first copy.
func TestDeathsInFirstCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(w.a, "INBOX", 900)
	w.fill(w.b, "Archive", 300)
	p := &power{left: -1}
	h := &history{world: w, power: p}
	for i := range 10 {
		p.set(400+37*i, false)
		if _, err := h.tryPass(); err == nil && i < 2 {
			t.Fatal("it did not die")
		}
		p.restore()
	}
	w.a.Cut, w.b.Cut = nil, nil
	w.clean()
	w.want(1200)
}

func TestRestoredFromBackup(t *testing.T) {
	t.Parallel()
	for _, later := range []int{0, 300} {
		w := synced(t, 60)
		backup := w.a.Backup()
		w.fill(w.a, "INBOX", 100)
		w.fill(w.b, "Archive", 50)
		w.clean()
		w.a.Restore(backup)
		// Mail that came to the restored side gets UIDs the base knows for others.
		w.fill(w.a, "INBOX", later)
		r := w.clean()
		if r.Sides[imapsync.B].Deleted != 0 || len(r.Notes) == 0 {
			t.Errorf("%+v", r)
		}
		w.want(180 + 150 + later)
	}
}

// One folder alone was restored: our hidden folder says nothing about it.
func TestRestoredFolder(t *testing.T) {
	t.Parallel()
	w := synced(t, 30)
	backup := w.a.Backup()
	w.fill(w.a, "INBOX", 40)
	w.clean()
	w.a.RestoreFolder(backup, "INBOX")
	r := w.clean()
	if r.Sides[imapsync.B].Deleted != 0 || r.Sides[imapsync.A].Appended != 40 {
		t.Errorf("%+v", r)
	}
	w.want(130)
}

// Two runners with a base each: the second one notices, and pairs by content.
func TestTwoRunners(t *testing.T) {
	t.Parallel()
	w := synced(t, 50)
	first := w.dir
	w.dir = t.TempDir()
	if _, err := w.try(imapsync.PassOptions{}); !errors.Is(err, imapsync.ErrBusy) {
		t.Fatalf("the lease is not kept: %v", err)
	}
	w.clock.add(2 * time.Minute)
	w.clean()
	w.a.Delete("INBOX", w.a.Messages("INBOX")[0].UID)
	w.fill(w.b, "INBOX", 3)
	w.clean()
	w.want(152)
	w.clock.add(2 * time.Minute)
	w.dir = first
	r := w.clean()
	if len(r.Notes) == 0 || r.Sides[0].Appended+r.Sides[1].Appended+r.Sides[0].Deleted+r.Sides[1].Deleted != 0 {
		t.Errorf("an outdated base was used: %+v", r)
	}
	w.want(152)
	// An old copy of the base is an outdated one too.
	old, err := os.ReadFile(filepath.Join(w.dir, "base"))
	if err != nil {
		t.Fatal(err)
	}
	w.fill(w.a, "INBOX", 1)
	w.clean()
	if err := os.WriteFile(filepath.Join(w.dir, "base"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	w.clock.add(2 * time.Minute) // the newer copy might be at work
	if r := w.clean(); len(r.Notes) == 0 || r.Sides[0].Appended+r.Sides[1].Appended != 0 {
		t.Errorf("%+v", r)
	}
	w.want(153)
}

// One machine: the file is the lock.
func TestFileLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acc := w.open()
	defer acc.Close() //nolint:errcheck // nothing is lost
	if _, err := imapsync.Open(filepath.Join(w.dir, "base"), w.cfg, imapsync.Deps{}); !errors.Is(err, imapsync.ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
}

func TestMoveMove(t *testing.T) {
	t.Parallel()
	w := synced(t, 30)
	for i, m := range w.a.Messages("INBOX") {
		w.a.Move("INBOX", m.UID, "Archive")
		w.b.Move("INBOX", w.b.Messages("INBOX")[0].UID, []string{"Work", "Archive"}[i%2])
	}
	r := w.clean()
	if len(r.Conflicts) != 15 || len(w.a.Messages("Archive")) != 60 {
		t.Errorf("%d conflicts, %+v", len(r.Conflicts), r.Sides)
	}
	w.noBodies()
	w.want(90)
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	w := synced(t, 10)
	a, b := w.a.Messages("INBOX"), w.b.Messages("INBOX")
	w.a.Delete("INBOX", a[0].UID) // against a mark that keeps
	w.b.Flag("INBOX", b[0].UID, imapsync.NewFlags(imap.FlagFlagged), nil)
	w.a.Delete("INBOX", a[1].UID) // against one that does not
	w.b.Flag("INBOX", b[1].UID, imapsync.NewFlags(imap.FlagSeen), nil)
	w.a.Delete("INBOX", a[2].UID) // against a move
	w.b.Move("INBOX", b[2].UID, "Work")
	w.a.Flag("INBOX", a[3].UID, imapsync.NewFlags(imap.FlagSeen), nil) // both flag
	w.b.Flag("INBOX", b[3].UID, imapsync.NewFlags(imap.FlagAnswered), nil)
	r := w.clean()
	var kinds []string
	for _, c := range r.Conflicts {
		kinds = append(kinds, c.Kind)
	}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []string{"delete-flag", "delete-move"}) {
		t.Errorf("%v", kinds)
	}
	w.want(29)
	both := imapsync.NewFlags(imap.FlagSeen, imap.FlagAnswered)
	if !slices.ContainsFunc(w.a.Messages("INBOX"), func(m storetest.Message) bool { return m.Body == a[3].Body && m.Flags.Equal(both) }) {
		t.Error("flags of both sides were not merged")
	}
}

func TestSameValidity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.SetValidity("INBOX", 77)
	w.b.SetValidity("INBOX", 77)
	w.fill(w.a, "INBOX", 3)
	w.fill(w.b, "INBOX", 3)
	w.fill(w.a, "Work", 3)
	r := w.pass()
	if len(r.Faults) != 1 || r.Faults[0].Kind != "same-uidvalidity" || !strings.Contains(r.Faults[0].Text, "doveadm mailbox update") {
		t.Fatalf("%+v", r)
	}
	if len(w.a.Messages("INBOX")) != 3 || len(w.b.Messages("Work")) != 3 {
		t.Errorf("%s", w.dump())
	}
	w.cfg.SharedValidity = true
	w.clean()
	w.want(9)
}

func TestQuotaAndSize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.b = storetest.NewServer(storetest.Features{FirstValid: 5000, MaxBytes: 10_000, QuotaBytes: 60_000})
	w.a.Append("INBOX", mail(1)+strings.Repeat("y", 20_000), w.clock.Now())
	w.n = 1
	w.fill(w.a, "INBOX", 3)
	r := w.pass()
	if len(r.Faults) != 1 || r.Faults[0].Kind != "too-big" || len(w.b.Messages("INBOX")) != 3 {
		t.Fatalf("%+v", r)
	}
	w.b.Calls()
	if r := w.pass(); r.Changes() != 0 || r.Clean() || w.b.Calls()["append"] != 0 {
		t.Errorf("a refused message is offered again at once: %+v", r)
	}
	w.b.SetQuota(1)
	w.fill(w.a, "INBOX", 5)
	if r := w.pass(); len(r.Faults) == 0 || w.total(w.a) != 9 || w.total(w.b) != 3 {
		t.Errorf("%+v", r)
	}
	w.b.SetQuota(0)
	w.pass()
	if w.total(w.a) != 9 || w.total(w.b) != 8 {
		t.Errorf("%d and %d", w.total(w.a), w.total(w.b))
	}
	w.a.Delete("INBOX", w.a.Messages("INBOX")[0].UID) // nobody misses it
	w.clean()
	w.want(8)
}

func TestPoorServers(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]storetest.Features{
		"no condstore": {NoCondstore: true},
		"no uidplus":   {NoUIDPlus: true},
		"nothing":      {NoCondstore: true, NoUIDPlus: true, NoGID: true, NoMailboxID: true, NoKeywords: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f.FirstValid = 5000
			w.b = storetest.NewServer(f)
			w.fill(w.a, "INBOX", 20, imap.FlagSeen, "$Work")
			w.fill(w.b, "Archive", 20)
			for range 3 {
				w.pass()
			}
			if w.total(w.a) != 40 || w.total(w.b) != 40 {
				t.Fatalf("%s", w.dump())
			}
			w.a.Move("INBOX", w.a.Messages("INBOX")[0].UID, "Archive")
			w.a.Delete("INBOX", w.a.Messages("INBOX")[0].UID)
			w.b.Flag("INBOX", w.b.Messages("INBOX")[5].UID, imapsync.NewFlags(imap.FlagFlagged), nil)
			for range 3 {
				w.pass()
			}
			if r := w.pass(); r.Changes() != 0 {
				t.Errorf("it does not come to rest: %+v", r)
			}
			left := 39
			if f.NoUIDPlus {
				left = 40 // marked \Deleted, and reported
			}
			if w.total(w.a) != 39 || w.total(w.b) != left {
				t.Errorf("%d and %d\n%s", w.total(w.a), w.total(w.b), w.dump())
			}
			if !w.a.Messages("INBOX")[0].Flags.Has("$Work") {
				t.Error("a keyword was lost because the other side cannot keep it")
			}
		})
	}
}

func TestLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.CreateUse("All", `\All`)
	w.fill(w.a, "All", 3)
	w.fill(w.a, "Shared/x", 3)
	w.a.SetForeign("Shared/x", true)
	w.fill(w.a, "Private/one", 3)
	w.cfg.Exclude = []string{"Private"}
	w.fill(w.a, "Work", 3)
	w.pass()
	if got := w.b.Folders(); !slices.Equal(got, []string{"INBOX", "Work"}) {
		t.Errorf("%v", got)
	}
	// A folder that is not ours to see any more was not deleted.
	w.a.SetForeign("Work", true)
	if r := w.pass(); r.Changes() != 0 || len(r.Holds) != 0 || len(w.b.Messages("Work")) != 3 {
		t.Errorf("%+v", r)
	}
}

func TestDryRunAndFolders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill(w.a, "INBOX", 3)
	w.fill(w.a, "Work", 3)
	r, err := w.try(imapsync.PassOptions{DryRun: true})
	if err != nil || len(r.Actions) != 7 || w.total(w.b) != 0 || len(w.b.Folders()) != 1 {
		t.Fatalf("%v %+v", err, r)
	}
	if _, err = w.try(imapsync.PassOptions{Folders: []string{"Wo*"}}); err != nil || w.total(w.b) != 3 {
		t.Fatalf("%v %s", err, w.dump())
	}
	w.clean()
	w.want(6)
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Quarantine = 24 * time.Hour
	uids := w.fill(w.a, "INBOX", 5)
	w.clean()
	w.a.Delete("INBOX", uids[0])
	w.clean()
	kept := func() int { return len(w.b.Messages("_understudy-deleted")) }
	if kept() != 1 || w.total(w.b) != 4 {
		t.Fatalf("%d in quarantine\n%s", kept(), w.dump())
	}
	w.clock.add(12 * time.Hour)
	w.a.Delete("INBOX", uids[1])
	w.clean()
	w.clock.add(13 * time.Hour)
	w.clean()
	if kept() != 1 {
		t.Errorf("%d in quarantine after a day, want the second one", kept())
	}
	w.clock.add(24 * time.Hour)
	w.clean()
	if kept() != 0 {
		t.Errorf("%d in quarantine after two days", kept())
	}
}

// What nothing costs: one call a side.
func TestNoopIsOneCall(t *testing.T) {
	t.Parallel()
	w := synced(t, 20)
	w.a.Calls()
	w.b.Calls()
	w.pass()
	for _, s := range []*storetest.Server{w.a, w.b} {
		if c := s.Calls(); len(c) != 1 || c["list"] != 1 {
			t.Errorf("%v", c)
		}
	}
}

// Somebody changes a message between the look and the act.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	w := synced(t, 10)
	a, b := w.a.Messages("INBOX"), w.b.Messages("INBOX")
	w.a.Delete("INBOX", a[0].UID)
	once := false
	w.b.Before = func(op string) {
		if op == "expunge" && !once {
			once = true
			w.b.Flag("INBOX", b[0].UID, imapsync.NewFlags(imap.FlagFlagged), nil)
		}
	}
	w.pass()
	if !once {
		t.Fatal("nothing was expunged")
	}
	w.clean()
	w.want(30)
}
