package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
)

// Run checks a Store against its contract. open gives one to an account that has an empty
// INBOX and nothing else that is in the way. The store is closed if it can be. except names
// tests that a server cannot pass through a fault of its own.
func Run(t *testing.T, open func(t *testing.T) imapsync.Store, except ...string) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *trial){
		"an empty account":                    testEmpty,
		"messages come back as they were put": testRoundTrip,
		"changes":                             testChanges,
		"flags":                               testFlags,
		"conditional changes":                 testConditional,
		"expunge":                             testExpunge,
		"copy and move":                       testTransfer,
		"folders":                             testFolders,
		"names":                               testNames,
		"a replaced box":                      testReplaced,
		"gone messages":                       testGone,
		"breaking off a fetch":                testBreakOff,
		"a source that fails":                 testFailingSource,
		"many messages":                       testMany,
	} {
		if slices.Contains(except, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			store := open(t)
			if c, ok := store.(io.Closer); ok {
				t.Cleanup(func() { _ = c.Close() })
			}
			test(t, &trial{t: t, Store: store})
		})
	}
}

// trial is a store with what the tests need around it.
type trial struct {
	t *testing.T
	imapsync.Store
}

func (s *trial) ctx() context.Context { return s.t.Context() }

func (s *trial) list() map[string]imapsync.Box {
	s.t.Helper()
	l, err := s.List(s.ctx())
	if err != nil {
		s.t.Fatal(err)
	}
	boxes := make(map[string]imapsync.Box)
	for _, b := range l.Boxes {
		boxes[b.Name] = b
	}
	return boxes
}

func (s *trial) folder(op imapsync.FolderOp, name, to, use string) error {
	s.t.Helper()
	errs, err := s.Folders(s.ctx(), []imapsync.FolderChange{{Op: op, Name: name, To: to, Use: use}})
	if err != nil {
		s.t.Fatal(err)
	}
	return errs[0]
}

func (s *trial) create(name string) {
	s.t.Helper()
	if err := s.folder(imapsync.CreateFolder, name, "", ""); err != nil {
		s.t.Fatalf("create %s: %v", name, err)
	}
}

var suiteDate = time.Date(2024, 2, 29, 23, 59, 58, 0, time.FixedZone("", -3*3600-30*60))

func letter(n int) string {
	return fmt.Sprintf("Message-ID: <%d@suite.test>\r\nDate: Thu, 29 Feb 2024 23:59:58 -0330\r\nFrom: a@suite.test\r\nTo: b@suite.test\r\n"+
		"Subject: letter %d\r\n\r\nnumber %d\r\n", n, n, n)
}

func seq(box string, flags imapsync.Flags, bodies ...string) iter.Seq2[imapsync.Outgoing, error] {
	return func(yield func(imapsync.Outgoing, error) bool) {
		for _, b := range bodies {
			if !yield(imapsync.Outgoing{Box: box, Flags: flags, Date: suiteDate, Size: int64(len(b)), Reader: strings.NewReader(b)}, nil) {
				return
			}
		}
	}
}

func (s *trial) append(box string, flags imapsync.Flags, bodies ...string) {
	s.t.Helper()
	n := 0
	err := s.Append(s.ctx(), seq(box, flags, bodies...), func(i int, st imapsync.Stored) {
		if i != n || st.Err != nil {
			s.t.Errorf("message %d (want %d): %v", i, n, st.Err)
		}
		n++
	})
	if err != nil || n != len(bodies) {
		s.t.Fatalf("%d of %d appended: %v", n, len(bodies), err)
	}
}

func (s *trial) changes(q imapsync.Since) imapsync.Delta {
	s.t.Helper()
	ds, err := s.Changes(s.ctx(), []imapsync.Since{q})
	if err != nil {
		s.t.Fatal(err)
	}
	return ds[0]
}

// all is everything in a box, with keys.
func (s *trial) all(box string) imapsync.Delta {
	s.t.Helper()
	d := s.changes(imapsync.Since{Box: box, Keys: true})
	if d.Err != nil {
		s.t.Fatal(d.Err)
	}
	return d
}

func (s *trial) pick(box string, d imapsync.Delta, which ...int) imapsync.Pick {
	p := imapsync.Pick{Box: box, Validity: d.Cursor.Validity}
	for _, i := range which {
		p.UIDs = append(p.UIDs, d.Messages[i].UID)
	}
	return p
}

func uids(d imapsync.Delta) []imap.UID {
	var out []imap.UID
	for _, m := range d.Messages {
		out = append(out, m.UID)
	}
	return out
}

func (s *trial) bodies(picks ...imapsync.Pick) (texts []string, errs []error) {
	s.t.Helper()
	for b, err := range s.Fetch(s.ctx(), picks) {
		if err != nil {
			s.t.Fatal(err)
		}
		errs = append(errs, b.Err)
		if b.Err != nil {
			texts = append(texts, "")
			continue
		}
		raw, err := io.ReadAll(b.Reader)
		if err != nil || int64(len(raw)) != b.Size {
			s.t.Fatalf("UID %d: %d of %d bytes: %v", b.UID, len(raw), b.Size, err)
		}
		texts = append(texts, string(raw))
	}
	return texts, errs
}

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

func testReplaced(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", nil, letter(1))
	d := s.all("INBOX")
	wrong := imapsync.Pick{Box: "INBOX", Validity: d.Cursor.Validity + 7, UIDs: uids(d)}
	if out, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{{Pick: wrong, Add: imapsync.NewFlags(imap.FlagSeen)}}); err != nil || !errors.Is(out[0].Err, imapsync.ErrReplaced) {
		t.Errorf("flags: %v %v", out, err)
	}
	if out, err := s.Expunge(s.ctx(), []imapsync.Removal{{Pick: wrong}}); err != nil || !errors.Is(out[0].Err, imapsync.ErrReplaced) {
		t.Errorf("expunge: %v %v", out, err)
	}
	s.create("Target")
	if out, err := s.Transfer(s.ctx(), []imapsync.Transfer{{From: wrong, To: "Target", Move: true}}); err != nil || !errors.Is(out[0][0].Err, imapsync.ErrReplaced) {
		t.Errorf("move: %v %v", out, err)
	}
	if out, err := s.Describe(s.ctx(), []imapsync.Pick{wrong}); err != nil || len(out[0]) != 0 {
		t.Errorf("describe: %v %v", out, err)
	}
	if _, errs := s.bodies(wrong); len(errs) != 1 || !errors.Is(errs[0], imapsync.ErrReplaced) {
		t.Errorf("fetch: %v", errs)
	}
	var stored imapsync.Stored
	err := s.Append(s.ctx(), func(yield func(imapsync.Outgoing, error) bool) {
		yield(imapsync.Outgoing{Box: "INBOX", Validity: wrong.Validity, Date: suiteDate, Size: 4, Reader: strings.NewReader("a: b")}, nil)
	}, func(_ int, st imapsync.Stored) { stored = st })
	if err != nil || !errors.Is(stored.Err, imapsync.ErrReplaced) {
		t.Errorf("append: %v %v", stored, err)
	}
	n := s.all("INBOX")
	if len(n.Messages) != 1 || len(n.Messages[0].Flags) != 0 {
		t.Errorf("something was done: %+v", n.Messages)
	}
	old := s.changes(imapsync.Since{Box: "INBOX", Cursor: imapsync.Cursor{Validity: wrong.Validity, Next: 9, ModSeq: d.Cursor.ModSeq}, Known: []imap.UID{1, 2, 3}, Keys: true})
	if old.Err != nil || len(old.Vanished) != 0 || len(old.Messages) != 1 || !old.Messages[0].Key.Known() {
		t.Errorf("changes since another UIDVALIDITY: %+v", old)
	}
}

func testGone(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", nil, letter(1), letter(2), letter(3))
	d := s.all("INBOX")
	p := s.pick("INBOX", d, 0, 1, 2)
	p.UIDs = append(p.UIDs, p.UIDs[2]+50, p.UIDs[2]+60)
	texts, errs := s.bodies(p)
	if len(errs) != 5 || errs[0] != nil || errs[2] != nil || !errors.Is(errs[3], imapsync.ErrGone) || !errors.Is(errs[4], imapsync.ErrGone) || texts[2] != letter(3) {
		t.Errorf("fetch: %v", errs)
	}
	if out, err := s.Describe(s.ctx(), []imapsync.Pick{p}); err != nil || len(out[0]) != 3 || out[0][0].Key != d.Messages[0].Key {
		t.Errorf("describe: %v %v", out, err)
	}
	gone := imapsync.Pick{Box: "INBOX", Validity: p.Validity, UIDs: p.UIDs[3:]}
	if out, err := s.SetFlags(s.ctx(), []imapsync.FlagChange{{Pick: gone, Add: imapsync.NewFlags(imap.FlagSeen)}}); err != nil || out[0].Err != nil {
		t.Errorf("flags: %v %v", out, err)
	}
	s.create("Target")
	out, err := s.Transfer(s.ctx(), []imapsync.Transfer{{From: imapsync.Pick{Box: "INBOX", Validity: p.Validity, UIDs: p.UIDs[2:4]}, To: "Target", Move: true}})
	if err != nil || out[0][0].Err != nil || !errors.Is(out[0][1].Err, imapsync.ErrGone) {
		t.Errorf("move: %+v %v", out, err)
	}
}

func testBreakOff(t *testing.T, s *trial) {
	t.Helper()
	s.append("INBOX", nil, letter(1), letter(2)+strings.Repeat("x", 300_000), letter(3))
	d := s.all("INBOX")
	for b, err := range s.Fetch(s.ctx(), []imapsync.Pick{s.pick("INBOX", d, 0, 1, 2)}) {
		if err != nil || b.Err != nil {
			t.Fatal(err, b.Err)
		}
		if b.UID == d.Messages[1].UID {
			break
		}
	}
	texts, _ := s.bodies(s.pick("INBOX", d, 2))
	if len(texts) != 1 || texts[0] != letter(3) {
		t.Errorf("after a loop that was broken off: %q", texts)
	}
	// What is not read is skipped.
	n := 0
	for b, err := range s.Fetch(s.ctx(), []imapsync.Pick{s.pick("INBOX", d, 0, 1, 2)}) {
		if err != nil || b.Err != nil {
			t.Fatal(err, b.Err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d messages", n)
	}
}

func testFailingSource(t *testing.T, s *trial) {
	t.Helper()
	broken := errors.New("source broke")
	for _, size := range []int{100, 600_000} {
		body := []byte(letter(1) + strings.Repeat("y", size))
		err := s.Append(s.ctx(), func(yield func(imapsync.Outgoing, error) bool) {
			half := io.MultiReader(bytes.NewReader(body[:len(body)/2]), failing{broken})
			yield(imapsync.Outgoing{Box: "INBOX", Date: suiteDate, Size: int64(len(body)), Reader: half}, nil)
		}, func(_ int, st imapsync.Stored) {
			if st.Err == nil {
				t.Error("half a message was called stored")
			}
		})
		if !errors.Is(err, broken) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if d := s.all("INBOX"); len(d.Messages) != 0 {
		t.Errorf("%d messages were stored", len(d.Messages))
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func testMany(t *testing.T, s *trial) {
	t.Helper()
	const count = 250
	s.create("Other")
	n := 0
	var got []imapsync.Stored
	err := s.Append(s.ctx(), func(yield func(imapsync.Outgoing, error) bool) {
		for ; n < count; n++ {
			box := "INBOX"
			if n%50 == 0 {
				box = "Other"
			}
			body := letter(n)
			if !yield(imapsync.Outgoing{Box: box, Date: suiteDate, Size: int64(len(body)), Reader: strings.NewReader(body)}, nil) {
				return
			}
		}
	}, func(i int, st imapsync.Stored) {
		if i != len(got) {
			t.Errorf("result %d comes as number %d", i, len(got))
		}
		got = append(got, st)
	})
	if err != nil || len(got) != count {
		t.Fatalf("%d results: %v", len(got), err)
	}
	in, other := s.all("INBOX"), s.all("Other")
	if len(in.Messages)+len(other.Messages) != count {
		t.Fatalf("%d and %d messages", len(in.Messages), len(other.Messages))
	}
	byUID := make(map[imap.UID]imapsync.Message)
	for _, m := range in.Messages {
		byUID[m.UID] = m
	}
	for i, st := range got {
		if i%50 == 0 || st.UID == 0 {
			continue
		}
		if m := byUID[st.UID]; m.Key != imapsync.NewKey([]byte(letter(i)), int64(len(letter(i)))) || st.Validity != in.Cursor.Validity {
			t.Fatalf("message %d is not UID %d", i, st.UID)
		}
	}
	texts, errs := s.bodies(
		imapsync.Pick{Box: "INBOX", Validity: in.Cursor.Validity, UIDs: uids(in)},
		imapsync.Pick{Box: "Other", Validity: other.Cursor.Validity, UIDs: uids(other)},
	)
	if len(texts) != count {
		t.Fatalf("%d bodies, errors %v", len(texts), errs)
	}
	slices.Sort(texts)
	if len(slices.Compact(texts)) != count {
		t.Errorf("bodies are not all different: %v", slices.Compact(errs))
	}
}
