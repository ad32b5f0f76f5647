package storetest

import (
	"context"
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
