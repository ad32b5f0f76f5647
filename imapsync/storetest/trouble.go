package storetest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
)

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
