package storetest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
)

func testEmpty(t *testing.T, s *trial) {
	t.Helper()
	inbox, ok := s.list()["INBOX"]
	if !ok || inbox.Cursor.Validity == 0 || inbox.Cursor.Messages != 0 || inbox.NoSelect || inbox.Foreign {
		t.Fatalf("INBOX is %+v", inbox)
	}
	d := s.changes(imapsync.Since{Box: "INBOX", Keys: true})
	if d.Err != nil || len(d.Messages) != 0 || d.Cursor.Validity != inbox.Cursor.Validity {
		t.Fatalf("delta is %+v", d)
	}
	if !d.Permanent.Has(imap.FlagSeen) {
		t.Errorf("permanent flags: %s", d.Permanent)
	}
	if d := s.changes(imapsync.Since{Box: "Nowhere"}); !errors.Is(d.Err, imapsync.ErrNoBox) {
		t.Errorf("a box that is not there: %v", d.Err)
	}
}

func testRoundTrip(t *testing.T, s *trial) {
	t.Helper()
	big := letter(3) + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 8000) // 560 KiB
	hostile := letter(4) + "a LOGOUT\r\n)\r\n{5+}\r\nx1 DELETE INBOX\r\n * OK \"\r\n"
	want := []string{letter(1), "Subject: no end of line\r\n\r\nhere", big, hostile, letter(1)}
	s.append("INBOX", imapsync.NewFlags(imap.FlagSeen, "$label"), want...)
	d := s.all("INBOX")
	if len(d.Messages) != len(want) {
		t.Fatalf("%d messages, not %d", len(d.Messages), len(want))
	}
	for i, m := range d.Messages {
		if m.Size != int64(len(want[i])) || !m.Date.Equal(suiteDate) || m.Key != imapsync.NewKey([]byte(want[i]), m.Size) {
			t.Errorf("message %d: size %d of %d, date %v, key %v", i, m.Size, len(want[i]), m.Date, m.Key)
		}
		if !m.Flags.Has(imap.FlagSeen) || d.AnyKeyword && !m.Flags.Has("$label") {
			t.Errorf("message %d has flags %s", i, m.Flags)
		}
	}
	got, _ := s.bodies(s.pick("INBOX", d, 0, 1, 2, 3, 4))
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("message %d is not what was put", i)
		}
	}
	if l := s.list()["INBOX"]; l.Cursor.Messages != uint32(len(want)) || l.Cursor.Next != d.Cursor.Next {
		t.Errorf("listing says %+v, delta %+v", l.Cursor, d.Cursor)
	}
	if again := s.all("INBOX"); !again.Messages[0].Flags.Equal(d.Messages[0].Flags) {
		t.Errorf("fetching changed the flags to %s", again.Messages[0].Flags)
	}
}

func testChanges(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", nil, letter(1), letter(2), letter(3), letter(4))
	d := s.all("INBOX")
	known := uids(d)
	quiet := s.changes(imapsync.Since{Box: "INBOX", Cursor: d.Cursor, Known: known, Keys: true})
	if quiet.Err != nil || len(quiet.Vanished) != 0 || quiet.Cursor.Next != d.Cursor.Next {
		t.Errorf("nothing happened, and the delta is %+v", quiet)
	}
	s.append("INBOX", nil, letter(5))
	if _, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{{Pick: s.pick("INBOX", d, 1), Add: imapsync.NewFlags(imap.FlagFlagged)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Expunge(s.ctx(), []imapsync.Removal{{Pick: s.pick("INBOX", d, 2)}}); err != nil {
		t.Fatal(err)
	}
	n := s.changes(imapsync.Since{Box: "INBOX", Cursor: d.Cursor, Known: known, Keys: true})
	if n.Err != nil {
		t.Fatal(n.Err)
	}
	var sawNew, sawFlag bool
	for _, m := range n.Messages {
		if m.UID > known[3] {
			sawNew = m.Size == int64(len(letter(5))) && m.Key.Known() && m.Date.Equal(suiteDate)
		}
		if m.UID == known[1] {
			sawFlag = m.Flags.Has(imap.FlagFlagged)
		}
	}
	if !sawNew || !sawFlag {
		t.Errorf("new seen: %v; flag seen: %v; %+v", sawNew, sawFlag, n.Messages)
	}
	// A server without UIDPLUS keeps it, marked.
	if len(n.Vanished) > 1 || len(n.Vanished) == 1 && n.Vanished[0] != known[2] {
		t.Errorf("vanished: %v, expunged was %d", n.Vanished, known[2])
	}
	// One that went long ago is told as well.
	old := append(slices.Clone(known), known[3]+100)
	if late := s.changes(imapsync.Since{Box: "INBOX", Cursor: imapsync.Cursor{Validity: n.Cursor.Validity, Next: known[3] + 200}, Known: old}); !slices.Contains(late.Vanished, known[3]+100) {
		t.Errorf("UID %d was never there and is not among the vanished: %v", known[3]+100, late.Vanished)
	}
}

func testFlags(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", imapsync.NewFlags(imap.FlagSeen), letter(1), letter(2), letter(3))
	d := s.all("INBOX")
	out, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{
		{Pick: s.pick("INBOX", d, 0, 2), Add: imapsync.NewFlags(imap.FlagAnswered), Remove: imapsync.NewFlags(imap.FlagSeen)},
		{Pick: s.pick("INBOX", d, 1), Add: imapsync.NewFlags(imap.FlagDraft)},
	})
	if err != nil || out[0].Err != nil || out[1].Err != nil {
		t.Fatal(err, out)
	}
	n := s.all("INBOX")
	for i, want := range []imapsync.Flags{
		imapsync.NewFlags(imap.FlagAnswered), imapsync.NewFlags(imap.FlagSeen, imap.FlagDraft), imapsync.NewFlags(imap.FlagAnswered),
	} {
		if !n.Messages[i].Flags.Equal(want) {
			t.Errorf("message %d has %s, not %s", i, n.Messages[i].Flags, want)
		}
	}
}

func testConditional(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", nil, letter(1), letter(2))
	d := s.all("INBOX")
	if d.Cursor.ModSeq == 0 {
		t.Skip("the server keeps no mod-sequences")
	}
	if _, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{{Pick: s.pick("INBOX", d, 0), Add: imapsync.NewFlags(imap.FlagFlagged)}}); err != nil {
		t.Fatal(err)
	}
	out, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{{
		Pick: s.pick("INBOX", d, 0, 1), Add: imapsync.NewFlags(imap.FlagSeen), UnchangedSince: d.Cursor.ModSeq,
	}})
	if err != nil || out[0].Err != nil || !slices.Equal(out[0].Modified, []imap.UID{d.Messages[0].UID}) {
		t.Fatalf("outcome %+v, %v", out, err)
	}
	n := s.all("INBOX")
	if n.Messages[0].Flags.Has(imap.FlagSeen) || !n.Messages[1].Flags.Has(imap.FlagSeen) {
		t.Errorf("flags are %s and %s", n.Messages[0].Flags, n.Messages[1].Flags)
	}
	gone, err := s.Expunge(s.ctx(), []imapsync.Removal{{Pick: s.pick("INBOX", d, 0), UnchangedSince: d.Cursor.ModSeq}})
	if err != nil || !slices.Equal(gone[0].Modified, []imap.UID{d.Messages[0].UID}) {
		t.Errorf("expunge of a message that changed: %+v, %v", gone, err)
	}
	if n := s.all("INBOX"); len(n.Messages) != 2 {
		t.Errorf("%d messages are left", len(n.Messages))
	}
}

func testExpunge(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", nil, letter(1), letter(2), letter(3))
	d := s.all("INBOX")
	// Another session has marked a message: it must survive.
	if _, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{{Pick: s.pick("INBOX", d, 2), Add: imapsync.NewFlags(imap.FlagDeleted)}}); err != nil {
		t.Fatal(err)
	}
	out, err := s.Expunge(s.ctx(), []imapsync.Removal{{Pick: s.pick("INBOX", d, 1)}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	n := s.all("INBOX")
	if len(out[0].Marked) > 0 { // no UIDPLUS
		if len(n.Messages) != 3 || !n.Messages[1].Flags.Has(imap.FlagDeleted) {
			t.Errorf("marked, and the box holds %+v", n.Messages)
		}
		return
	}
	if !slices.Equal(uids(n), []imap.UID{d.Messages[0].UID, d.Messages[2].UID}) {
		t.Errorf("left: %v of %v", uids(n), uids(d))
	}
	if out, err = s.Expunge(s.ctx(), []imapsync.Removal{{Pick: s.pick("INBOX", d, 1)}}); err != nil || out[0].Err != nil {
		t.Errorf("expunge of a gone message: %v %v", err, out)
	}
}

func testTransfer(t *testing.T, s *trial) {
	t.Helper()
	s.create("Target")
	s.append("INBOX", imapsync.NewFlags(imap.FlagFlagged), letter(1), letter(2), letter(3))
	d := s.all("INBOX")
	out, err := s.Transfer(s.ctx(), []imapsync.Transfer{
		{From: s.pick("INBOX", d, 0), To: "Target"},
		{From: s.pick("INBOX", d, 1, 2), To: "Target", Move: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := s.all("Target")
	if len(n.Messages) != 3 {
		t.Fatalf("%d messages in the target", len(n.Messages))
	}
	for i, st := range slices.Concat(out[0], out[1]) {
		if st.Err != nil || st.UID != 0 && (st.UID != n.Messages[i].UID || st.Validity != n.Cursor.Validity) {
			t.Errorf("message %d: %+v, target has %d", i, st, n.Messages[i].UID)
		}
		if n.Messages[i].Key != d.Messages[i].Key || !n.Messages[i].Flags.Has(imap.FlagFlagged) || !n.Messages[i].Date.Equal(suiteDate) {
			t.Errorf("message %d arrived as %+v", i, n.Messages[i])
		}
	}
	left := s.all("INBOX")
	kept := 0
	for _, m := range left.Messages {
		if !m.Flags.Has(imap.FlagDeleted) {
			kept++
		}
	}
	if kept != 1 {
		t.Errorf("%d messages are left: %+v", kept, left.Messages)
	}
	to, err := s.Transfer(s.ctx(), []imapsync.Transfer{{From: s.pick("INBOX", d, 0), To: "Nowhere", Move: true}})
	if err != nil || !errors.Is(to[0][0].Err, imapsync.ErrNoBox) {
		t.Errorf("move to a box that is not there: %v %v", to, err)
	}
	if n := s.all("INBOX"); len(n.Messages) != len(left.Messages) {
		t.Error("a refused move took the message away")
	}
}

func testFolders(t *testing.T, s *trial) {
	t.Helper()
	s.create("One")
	if err := s.folder(imapsync.CreateFolder, "One", "", ""); !errors.Is(err, imapsync.ErrBoxExists) {
		t.Errorf("create twice: %v", err)
	}
	s.create("One/Two")
	if err := s.folder(imapsync.DeleteFolder, "One", "", ""); !errors.Is(err, imapsync.ErrNotEmpty) {
		t.Errorf("delete a box with children: %v", err)
	}
	s.append("One/Two", nil, letter(1))
	if err := s.folder(imapsync.DeleteFolder, "One/Two", "", ""); !errors.Is(err, imapsync.ErrNotEmpty) {
		t.Errorf("delete a box with mail: %v", err)
	}
	before := s.list()["One/Two"].Cursor
	if err := s.folder(imapsync.RenameFolder, "One", "Uno", ""); err != nil {
		t.Fatal(err)
	}
	boxes := s.list()
	if _, ok := boxes["One/Two"]; ok || boxes["Uno/Two"].Cursor.Messages != 1 {
		t.Errorf("after the rename: %+v; before: %+v", boxes, before)
	}
	for _, on := range []bool{true, false, true} {
		op := imapsync.UnsubscribeFolder
		if on {
			op = imapsync.SubscribeFolder
		}
		if err := s.folder(op, "Uno", "", ""); err != nil || s.list()["Uno"].Subscribed != on {
			t.Errorf("subscription %v: %v", on, err)
		}
	}
	if err := s.folder(imapsync.DeleteFolder, "Nowhere", "", ""); !errors.Is(err, imapsync.ErrNoBox) {
		t.Errorf("delete what is not there: %v", err)
	}
	s.create("Empty")
	if err := s.folder(imapsync.DeleteFolder, "Empty", "", ""); err != nil {
		t.Errorf("delete an empty box: %v", err)
	}
	for name := range s.list() {
		if name == "Empty" || strings.HasPrefix(name, imapsync.HiddenPrefix) {
			t.Errorf("%s is left", name)
		}
	}
}

func testNames(t *testing.T, s *trial) {
	t.Helper()
	for _, name := range []string{"Entwürfe", "日本語", "Tom & Jerry", "a~b", "Ünïcode/Ebene 2", `quo"te`} {
		if err := s.folder(imapsync.CreateFolder, name, "", ""); err != nil {
			if !errors.Is(err, imapsync.ErrRefused) && !errors.Is(err, imapsync.ErrNoName) {
				t.Errorf("create %q: %v", name, err)
			}
			continue
		}
		if b, ok := s.list()[name]; !ok || b.Cursor.Validity == 0 {
			t.Errorf("%q is not in the listing", name)
		}
		s.append(name, nil, letter(1))
		if d := s.all(name); len(d.Messages) != 1 {
			t.Errorf("%q holds %d messages", name, len(d.Messages))
		}
	}
	// No command hides in a name: whether it is refused or becomes a mailbox, INBOX stays.
	_ = s.folder(imapsync.CreateFolder, "a\r\nb DELETE INBOX", "", "")
	if d := s.changes(imapsync.Since{Box: "INBOX"}); d.Err != nil {
		t.Errorf("after odd names: %v", d.Err)
	}
}
