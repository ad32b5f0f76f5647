package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/smtp"
)

// Behaviour is how the server behind the engine under test behaves.
type Behaviour uint8

// The behaviours.
const (
	// Judge takes a message with the word "SPAMWORD" for spam to be rejected,
	// and any other for clean.
	Judge Behaviour = iota
	// Garbage answers with bytes that are not of the protocol.
	Garbage
	// Truncated answers as Judge does, but the connection ends in the middle.
	Truncated
	// Hang reads everything and never answers.
	Hang
	// Deaf accepts and neither reads nor answers.
	Deaf
	// Closed ends every connection at once.
	Closed
	// Flood answers with bytes without an end.
	Flood
	// Refuse does not listen at all.
	Refuse
)

// broken are the behaviours that must give no verdict.
var broken = map[string]Behaviour{
	"garbage": Garbage, "truncated": Truncated, "hang": Hang, "deaf": Deaf,
	"closed": Closed, "flood": Flood, "refuse": Refuse,
}

// Subject is one engine with its server.
type Subject struct {
	Filter smtp.Filter
	// Seen returns the last message the server got; nil where it cannot know.
	Seen func() string
	// Rejects says that SPAMWORD is rejected; otherwise it is only marked as spam.
	Rejects bool
	// Word is spam instead of SPAMWORD to an engine that has no server to teach it.
	Word string
}

// word is what makes a message spam.
func (s Subject) word() string {
	if s.Word != "" {
		return s.Word
	}
	return "SPAMWORD"
}

// Opener starts a server that behaves as told, and an engine that asks it with
// the given time-out for one message.
type Opener func(t *testing.T, b Behaviour, timeout time.Duration) Subject

// patience is how long a check that should take its time-out may take in all.
const patience = 5 * time.Second

// Message is a message with a header and a body of its own.
func Message(n int, word string) string {
	return fmt.Sprintf("From: a@example.org\r\nTo: b@example.com\r\nSubject: message %d\r\nMessage-ID: <%d@example.org>\r\n\r\n.%s\r\n..\r\nend\r\n", n, n, word)
}

// Envelope returns an envelope with every field set that engines use.
func Envelope() *smtp.Envelope {
	return &smtp.Envelope{
		ID: "4fXyZ1", Received: time.Unix(1_790_000_000, 0),
		Client: smtp.Client{
			Addr: netip.MustParseAddrPort("192.0.2.7:40000"), HELO: "client.example.org", ReverseName: "client.example.org",
			Protocol: "ESMTPSA", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", User: "user",
		},
		Sender:     "a@example.org",
		Recipients: []smtp.Recipient{{Address: "b@example.com"}, {Address: "c@example.com"}},
	}
}

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	t.Helper()
	RunLocal(t, open)
	t.Run("cancelled", func(t *testing.T) { t.Parallel(); cancelled(t, open) })
	for name, b := range broken {
		t.Run(name, func(t *testing.T) { t.Parallel(); noVerdict(t, open, b) })
	}
}

// RunLocal runs what an engine without a server can be asked; open is only told
// to Judge.
func RunLocal(t *testing.T, open Opener) {
	t.Helper()
	t.Run("judges", func(t *testing.T) { t.Parallel(); judges(t, open) })
	t.Run("concurrent calls", func(t *testing.T) { t.Parallel(); concurrent(t, open) })
	t.Run("odd messages", func(t *testing.T) { t.Parallel(); oddMessages(t, open) })
	t.Run("hostile envelope", func(t *testing.T) { t.Parallel(); hostileEnvelope(t, open) })
	t.Run("unreadable message", func(t *testing.T) { t.Parallel(); unreadable(t, open) })
}

func judges(t *testing.T, open Opener) {
	t.Helper()
	s := open(t, Judge, patience)
	clean, spam := Message(1, "hello"), Message(2, s.word())
	body := strings.NewReader(clean)
	_, _ = body.Seek(0, io.SeekEnd) // where a filter before this one left it
	v, err := s.Filter.Check(t.Context(), Envelope(), body)
	if err != nil || v.Action != smtp.Accept || v.Spam || v.Engine == "" {
		t.Fatalf("clean message: %+v, %v", v, err)
	}
	if s.Seen != nil && s.Seen() != clean {
		t.Errorf("the server saw %q, want %q", s.Seen(), clean)
	}
	v, err = s.Filter.Check(t.Context(), Envelope(), strings.NewReader(spam))
	if err != nil {
		t.Fatal(err)
	}
	if s.Rejects && (v.Action != smtp.Reject || v.Code/100 != 5 || v.Text == "") || !s.Rejects && (v.Action != smtp.Accept || !v.Spam) {
		t.Errorf("spam: %+v", v)
	}
	printable(t, v)
}

// printable fails where a verdict could break a reply or a header.
func printable(t *testing.T, v smtp.Verdict) {
	t.Helper()
	words := []string{v.Text, v.Engine, v.Enhanced}
	for _, s := range v.Symbols {
		words = append(words, s.Name)
	}
	for _, w := range words {
		if strings.ContainsFunc(w, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Errorf("control character in %q", w)
		}
	}
	if v.Header != "" && (!strings.HasSuffix(v.Header, "\r\n") || strings.Contains(v.Header, "\r\n\r\n")) {
		t.Errorf("header %q", v.Header)
	}
}

func concurrent(t *testing.T, open Opener) {
	t.Helper()
	s := open(t, Judge, patience)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			word := "hello"
			if i%2 == 1 {
				word = s.word()
			}
			v, err := s.Filter.Check(t.Context(), Envelope(), strings.NewReader(Message(i, word)))
			if err != nil || (v.Spam || v.Action == smtp.Reject) != (i%2 == 1) {
				t.Errorf("message %d: %+v, %v", i, v, err)
			}
		})
	}
	wg.Wait()
}

func oddMessages(t *testing.T, open Opener) {
	t.Helper()
	s := open(t, Judge, patience)
	for name, m := range map[string]string{
		"empty": "", "header only": "Subject: x\r\n", "body only": "\r\nbody\r\n", "no header": "just text\r\n",
		"no newline at the end": "Subject: x\r\n\r\nbody", "8 bit": "Subject: \xff\xfe\r\n\r\n\x80\x81\r\n",
		"folded": "Subject: a\r\n b\r\n\tc\r\nX:\r\n\r\nbody\r\n", "dots": "A: b\r\n\r\n.\r\n..\r\n",
		"long line":    "Subject: " + strings.Repeat("x", 100_000) + "\r\n\r\n" + strings.Repeat("y", 200_000) + "\r\n",
		"large":        "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 60_000),
		"many headers": strings.Repeat("X-Header: y\r\n", 2000) + "\r\nbody\r\n",
	} {
		v, err := s.Filter.Check(t.Context(), Envelope(), strings.NewReader(m))
		if err != nil || v.Action != smtp.Accept || v.Spam {
			t.Errorf("%s: %+v, %v", name, v, err)
			continue
		}
		if s.Seen != nil && s.Seen() != m {
			t.Errorf("%s: the server saw %.60q (%d bytes), want %.60q (%d bytes)", name, s.Seen(), len(s.Seen()), m, len(m))
		}
	}
}

func hostileEnvelope(t *testing.T, open Opener) {
	t.Helper()
	s := open(t, Judge, patience)
	env := Envelope()
	evil := "x\r\nEvil: 1\r\n\r\n\x00\xff{}\x7f"
	env.Client.HELO, env.Client.ReverseName, env.Client.User, env.Client.TLS = evil, evil, evil, evil
	env.Sender, env.ID, env.Recipients[0].Address = evil, evil, evil
	for _, e := range []*smtp.Envelope{env, {}} {
		if v, err := s.Filter.Check(t.Context(), e, strings.NewReader(Message(1, "hello"))); err != nil || v.Action != smtp.Accept {
			t.Errorf("%+v, %v", v, err)
		}
	}
	var many []smtp.Recipient
	for i := range 1000 {
		many = append(many, smtp.Recipient{Address: fmt.Sprintf("user%d@example.com", i)})
	}
	env = Envelope()
	env.Recipients = many
	if v, err := s.Filter.Check(t.Context(), env, strings.NewReader(Message(1, "hello"))); err != nil || v.Action != smtp.Accept {
		t.Errorf("a thousand recipients: %+v, %v", v, err)
	}
}

func cancelled(t *testing.T, open Opener) {
	t.Helper()
	s := open(t, Hang, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(50*time.Millisecond, cancel)
	defer timer.Stop()
	began := time.Now()
	v, err := s.Filter.Check(ctx, Envelope(), strings.NewReader(Message(1, "hello")))
	if err == nil || !reflect.ValueOf(v).IsZero() {
		t.Errorf("a verdict from a server that hangs: %+v", v)
	}
	if d := time.Since(began); d > patience {
		t.Errorf("it took %v to notice that nobody waits", d)
	}
	if _, err := s.Filter.Check(ctx, Envelope(), strings.NewReader(Message(1, "hello"))); err == nil {
		t.Error("a verdict under a context that has ended")
	}
}

func noVerdict(t *testing.T, open Opener, b Behaviour) {
	t.Helper()
	s := open(t, b, 300*time.Millisecond)
	for _, message := range []string{Message(1, "hello"), "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 500_000)} {
		body := &guarded{Reader: strings.NewReader(message)}
		began := time.Now()
		v, err := s.Filter.Check(t.Context(), Envelope(), body)
		body.over.Store(true)
		if err == nil || !reflect.ValueOf(v).IsZero() {
			t.Errorf("a verdict: %+v, %v", v, err)
		}
		if d := time.Since(began); d > patience {
			t.Errorf("it took %v", d)
		}
		t.Cleanup(func() {
			if body.late.Load() {
				t.Error("the message was read after Check had returned")
			}
		})
	}
}

// guarded notices reads that come too late.
type guarded struct {
	*strings.Reader
	over, late atomic.Bool
}

func (g *guarded) Read(p []byte) (int, error) {
	if g.over.Load() {
		g.late.Store(true)
	}
	return g.Reader.Read(p)
}

// WriteTo hides the one of strings.Reader.
func (g *guarded) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{g})
}

var errUnreadable = errors.New("disk is gone")

// failing is a message whose second half cannot be read.
type failing struct{ *bytes.Reader }

func (f failing) Read(p []byte) (int, error) {
	if f.Len() < 100 {
		return 0, errUnreadable
	}
	return f.Reader.Read(p[:min(len(p), 50)])
}

func (f failing) WriteTo(io.Writer) (int64, error) { return 0, errUnreadable }

// short is a message that ends before its size.
type short struct{ *bytes.Reader }

func (s short) Read(p []byte) (int, error) {
	if s.Len() < 100 {
		return 0, io.EOF
	}
	return s.Reader.Read(p[:min(len(p), 50)])
}

func (s short) WriteTo(io.Writer) (int64, error) { return 0, errUnreadable }

func unreadable(t *testing.T, open Opener) {
	t.Helper()
	s := open(t, Judge, time.Second)
	m := Message(1, strings.Repeat("hello ", 100))
	for name, body := range map[string]io.ReadSeeker{
		"fails in the middle": failing{bytes.NewReader([]byte(m))},
		"ends in the middle":  short{bytes.NewReader([]byte(m))},
	} {
		if v, err := s.Filter.Check(t.Context(), Envelope(), body); err == nil || !reflect.ValueOf(v).IsZero() {
			t.Errorf("a verdict on half a message that %s: %+v", name, v)
		}
	}
}
