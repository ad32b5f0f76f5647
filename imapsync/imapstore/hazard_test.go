package imapstore_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"understudy/imapsync"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/wire"
)

// fake answers by the beginning of a command; what it was told is in said.
type fake struct {
	t       *testing.T
	caps    string
	answers map[string][]string // untagged lines, and last the tagged answer without its tag
	mu      sync.Mutex
	said    []string
	done    chan struct{}
}

const everything = "IMAP4rev1 SASL-IR AUTH=PLAIN ENABLE QRESYNC CONDSTORE UIDPLUS MOVE MULTIAPPEND LITERAL+ ESEARCH LIST-EXTENDED LIST-STATUS NAMESPACE UNSELECT"

func without(caps string, drop ...string) string {
	for _, d := range drop {
		caps = strings.Replace(caps, " "+d, "", 1)
	}
	return caps
}

// play starts it and returns a store and, for after store.Close, what was said.
func (f *fake) play() *imapstore.Store {
	f.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(f.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.serve(conn)
		}
	}()
	s := store(wire.Config{Address: "imap://" + l.Addr().String(), Timeout: 5 * time.Second})
	f.t.Cleanup(func() {
		_ = s.Close()
		_ = l.Close()
		<-f.done
	})
	return s
}

func (f *fake) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(conn)
	_, _ = io.WriteString(conn, "* OK [CAPABILITY "+f.caps+"] ready\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		for text := command; strings.HasSuffix(text, "}"); {
			n, _ := strconv.Atoi(strings.Trim(text[strings.LastIndexByte(text, '{')+1:], "+}"))
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
				return
			}
			more, _ := r.ReadString('\n')
			text = strings.TrimRight(more, "\r\n")
			command += text
		}
		f.mu.Lock()
		f.said = append(f.said, command)
		f.mu.Unlock()
		_, _ = io.WriteString(conn, f.answer(tag, command))
	}
}

func (f *fake) answer(tag, command string) string {
	best := ""
	for begin := range f.answers {
		if strings.HasPrefix(command, begin) && len(begin) > len(best) {
			best = begin
		}
	}
	lines := f.answers[best]
	if best == "" {
		switch word, _, _ := strings.Cut(command, " "); word {
		case "CAPABILITY":
			lines = []string{"* CAPABILITY " + f.caps, "OK"}
		case "ENABLE":
			lines = []string{"* ENABLED QRESYNC", "OK"}
		case "SELECT":
			lines = []string{"* 3 EXISTS", "* OK [UIDVALIDITY 7] v", "* OK [UIDNEXT 4] n", "* OK [HIGHESTMODSEQ 9] m", "OK [READ-WRITE] x"}
		case "STATUS":
			lines = []string{"* STATUS INBOX (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 7)", "OK"}
		default:
			lines = []string{"OK"}
		}
	}
	last := len(lines) - 1
	return strings.Join(append(lines[:last:last], tag+" "+lines[last]), "\r\n") + "\r\n"
}

func (f *fake) heard(t *testing.T, s *imapstore.Store) string {
	t.Helper()
	_ = s.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.said, "\n")
}

func inbox(uids ...imap.UID) imapsync.Pick {
	return imapsync.Pick{Box: "INBOX", Validity: 7, UIDs: uids}
}

// Hazard 2: a refused COPY must leave the message where it is.
func TestNothingIsExpungedAfterARefusedCopy(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"no": "NO [OVERQUOTA] full", "bad": "BAD what", "unconfirmed": "OK copied", "half": "OK [COPYUID 9 1 5] copied"} {
		f := &fake{t: t, caps: without(everything, "MOVE"), answers: map[string][]string{
			"UID SEARCH": {`* ESEARCH (TAG "x") UID ALL 1:2`, "OK"},
			"UID COPY":   {answer},
		}}
		// The tag of a search is not known beforehand; without ESEARCH it needs none.
		f.caps = without(f.caps, "ESEARCH")
		f.answers["UID SEARCH"] = []string{"* SEARCH 1 2", "OK"}
		s := f.play()
		out, err := s.Transfer(t.Context(), []imapsync.Transfer{{From: inbox(1, 2), To: "Archive", Move: true}})
		if err != nil {
			t.Fatal(name, err)
		}
		said := f.heard(t, s)
		switch name {
		case "no", "bad":
			if out[0][0].Err == nil || out[0][1].Err == nil || strings.Contains(said, "UID STORE") || strings.Contains(said, "EXPUNGE") {
				t.Errorf("%s: %+v after\n%s", name, out, said)
			}
		case "unconfirmed":
			if out[0][0].Err != nil || out[0][0].UID != 0 || strings.Contains(said, "EXPUNGE") {
				t.Errorf("%s: %+v after\n%s", name, out, said)
			}
		case "half":
			if out[0][0].UID != 5 || out[0][1].Err == nil || !strings.Contains(said, "UID EXPUNGE 1\n") && !strings.Contains(said, "UID EXPUNGE 1") || strings.Contains(said, "EXPUNGE 1:2") {
				t.Errorf("%s: %+v after\n%s", name, out, said)
			}
		}
	}
}

func TestFullMailboxIsAClearAnswer(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, caps: everything, answers: map[string][]string{"APPEND": {"NO [OVERQUOTA] full"}}}
	s := f.play()
	var got []imapsync.Stored
	err := s.Append(t.Context(), func(yield func(imapsync.Outgoing, error) bool) {
		for range 3 {
			if !yield(imapsync.Outgoing{Box: "INBOX", Date: time.Now(), Size: 4, Reader: strings.NewReader("a: b")}, nil) {
				return
			}
		}
	}, func(_ int, st imapsync.Stored) { got = append(got, st) })
	if err != nil || len(got) != 3 || !errors.Is(got[0].Err, imapsync.ErrOverQuota) || !errors.Is(got[2].Err, imapsync.ErrOverQuota) {
		t.Errorf("%+v %v", got, err)
	}
	// All together, and then each for itself.
	if n := strings.Count(f.heard(t, s), "APPEND"); n != 4 {
		t.Errorf("%d APPENDs", n)
	}
}

// A silent or ailing server says nothing about mailboxes.
func TestUnknownIsNotGone(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"NO [UNAVAILABLE] later", "NO [SERVERBUG] oops", "NO [INUSE] locked", "NO Internal error occurred. Refer to server log"} {
		f := &fake{t: t, caps: everything, answers: map[string][]string{"SELECT": {answer}, "UID": {"BAD no mailbox"}}}
		s := f.play()
		ds, err := s.Changes(t.Context(), []imapsync.Since{{Box: "INBOX", Cursor: imapsync.Cursor{Validity: 7, Next: 4, ModSeq: 3}, Known: []imap.UID{1, 2, 3}}})
		if err == nil {
			t.Errorf("%s: %+v", answer, ds)
		}
	}
}

// VANISHED that does not fit the number of messages is not believed.
func TestLyingVanished(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, caps: without(everything, "ESEARCH"), answers: map[string][]string{
		`SELECT "INBOX" (QRESYNC`: {"* 3 EXISTS", "* OK [UIDVALIDITY 7] v", "* OK [UIDNEXT 4] n", "* OK [HIGHESTMODSEQ 9] m", "* VANISHED (EARLIER) 1:3", "OK [READ-WRITE] x"},
		"UID SEARCH":              {"* SEARCH 1 2 3", "OK"},
	}}
	s := f.play()
	ds, err := s.Changes(t.Context(), []imapsync.Since{{Box: "INBOX", Cursor: imapsync.Cursor{Validity: 7, Next: 4, ModSeq: 3}, Known: []imap.UID{1, 2, 3}}})
	if err != nil || ds[0].Err != nil || len(ds[0].Vanished) != 0 {
		t.Errorf("%+v %v", ds, err)
	}
}

// A body of another length than was promised is not handed out.
func TestBodyOfAnotherLength(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, caps: everything, answers: map[string][]string{
		"UID FETCH": {
			"* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 5 INTERNALDATE \"29-Feb-2024 00:00:00 +0000\" BODY[] {4}\r\nabcd)",
			"* 2 FETCH (UID 2 FLAGS () RFC822.SIZE 4 INTERNALDATE \"29-Feb-2024 00:00:00 +0000\" BODY[] {4}\r\nabcd)", "OK",
		},
	}}
	s := f.play()
	var errs []error
	for b, err := range s.Fetch(t.Context(), []imapsync.Pick{inbox(1, 2)}) {
		if err != nil {
			t.Fatal(err)
		}
		errs = append(errs, b.Err)
	}
	if len(errs) != 2 || !errors.Is(errs[0], imapsync.ErrBadBody) || errs[1] != nil {
		t.Errorf("%v", errs)
	}
}

// Servers may send bodies before their sizes, or before their UIDs.
func TestOddOrderOfItems(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]func(uid string) string{
		"size last": func(uid string) string {
			return "* 1 FETCH (UID " + uid + " BODY[] {4}\r\nabcd RFC822.SIZE 4 INTERNALDATE \"29-Feb-2024 00:00:00 +0000\")"
		},
		"UID last": func(uid string) string {
			return "* 1 FETCH (RFC822.SIZE 4 INTERNALDATE \"29-Feb-2024 00:00:00 +0000\" BODY[] {4}\r\nabcd UID " + uid + ")"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sizes := "(RFC822.SIZE 4 INTERNALDATE \"29-Feb-2024 00:00:00 +0000\" UID "
			f := &fake{t: t, caps: everything, answers: map[string][]string{
				"UID FETCH 1:2 (UID FLAGS RFC822.SIZE INTERNALDATE)": {"* 1 FETCH " + sizes + "1)", "* 2 FETCH " + sizes + "2)", "OK"},
				"UID FETCH 1 (UID FLAGS RFC822.SIZE INTERNALDATE)":   {"* 1 FETCH " + sizes + "1)", "OK"},
				"UID FETCH 2 (UID FLAGS RFC822.SIZE INTERNALDATE)":   {"* 1 FETCH " + sizes + "2)", "OK"},
				"UID FETCH 1:2": {row("1"), row("2"), "OK"},
				"UID FETCH 1":   {row("1"), "OK"},
				"UID FETCH 2":   {row("2"), "OK"},
			}}
			s := f.play()
			got := ""
			for b, err := range s.Fetch(t.Context(), []imapsync.Pick{inbox(1, 2)}) {
				if err != nil || b.Err != nil {
					t.Fatal(err, b.Err)
				}
				raw, _ := io.ReadAll(b.Reader)
				got += strconv.Itoa(int(b.UID)) + string(raw)
			}
			if got != "1abcd2abcd" {
				t.Errorf("got %q", got)
			}
		})
	}
}
