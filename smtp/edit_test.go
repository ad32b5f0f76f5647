package smtp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

func TestWriteEdited(t *testing.T) {
	t.Parallel()
	const message = "Received: one\r\nSubject: a\r\n folded\r\nX-Spam: forged\r\nreceived : two\r\nx-spam:\r\n\tagain\r\n\r\nX-Spam: body\r\n"
	for _, tc := range []struct {
		name  string
		edits []HeaderEdit
		want  string
	}{
		{"nothing", nil, message},
		{"remove all", []HeaderEdit{{RemoveHeader, "x-SPAM", 0, ""}}, "Received: one\r\nSubject: a\r\n folded\r\nreceived : two\r\n\r\nX-Spam: body\r\n"},
		{"remove the second", []HeaderEdit{{RemoveHeader, "Received", 2, ""}}, "Received: one\r\nSubject: a\r\n folded\r\nX-Spam: forged\r\nx-spam:\r\n\tagain\r\n\r\nX-Spam: body\r\n"},
		{"indices do not shift", []HeaderEdit{{RemoveHeader, "X-Spam", 1, ""}, {RemoveHeader, "X-Spam", 1, ""}, {RemoveHeader, "Received", 1, ""}, {ReplaceHeader, "Received", 2, "2"}}, "Subject: a\r\n folded\r\nReceived: 2\r\nx-spam:\r\n\tagain\r\n\r\nX-Spam: body\r\n"},
		{"replace a folded field", []HeaderEdit{{ReplaceHeader, "Subject", 1, "*** a"}}, "Received: one\r\nSubject: *** a\r\nX-Spam: forged\r\nreceived : two\r\nx-spam:\r\n\tagain\r\n\r\nX-Spam: body\r\n"},
		{"replace all", []HeaderEdit{{ReplaceHeader, "X-Spam", 0, "Yes"}}, "Received: one\r\nSubject: a\r\n folded\r\nX-Spam: Yes\r\nreceived : two\r\n\r\nX-Spam: body\r\n"},
		{"the last wins", []HeaderEdit{{ReplaceHeader, "Subject", 1, "x"}, {ReplaceHeader, "Subject", 0, "y"}, {RemoveHeader, "X-Spam", 0, ""}}, "Received: one\r\nSubject: y\r\nreceived : two\r\n\r\nX-Spam: body\r\n"},
		{"replace what is not there", []HeaderEdit{{ReplaceHeader, "To", 0, "a"}, {ReplaceHeader, "Subject", 2, "b"}, {AppendHeader, "C", 0, "c"}}, strings.Replace(message, "\r\n\r\n", "\r\nTo: a\r\nSubject: b\r\nC: c\r\n\r\n", 1)},
		{"insert", []HeaderEdit{{InsertHeader, "B", 2, "b"}, {InsertHeader, "A", 0, "a"}, {InsertHeader, "Z", 99, "z"}}, "A: a\r\nReceived: one\r\nB: b\r\nSubject: a\r\n folded\r\nX-Spam: forged\r\nreceived : two\r\nx-spam:\r\n\tagain\r\nZ: z\r\n\r\nX-Spam: body\r\n"},
		{"impossible names", []HeaderEdit{{AppendHeader, "a b", 0, "c"}, {AppendHeader, "a:b", 0, "c"}, {AppendHeader, "", 0, "c"}, {RemoveHeader, "Subject", -1, ""}}, message},
		{"injection", []HeaderEdit{{AppendHeader, "A", 0, "b\r\n\r\nevil: 1\n\nbody\x00\r"}}, strings.Replace(message, "\r\n\r\n", "\r\nA: b\r\n evil: 1\r\n body?\r\n\r\n", 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(message), iotestOneByte{strings.NewReader(message)}} {
				var out bytes.Buffer
				if err := WriteEdited(&out, r, tc.edits); err != nil {
					t.Fatal(err)
				}
				if out.String() != tc.want {
					t.Errorf("got\n%q, want\n%q", out.String(), tc.want)
				}
			}
		})
	}
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func TestWriteEditedOddMessages(t *testing.T) {
	t.Parallel()
	add := []HeaderEdit{{AppendHeader, "A", 0, "b"}, {InsertHeader, "I", 1, "j"}}
	long := strings.Repeat("x", 3*editChunk)
	for in, want := range map[string]string{
		"":                               "A: b\r\nI: j\r\n",
		"\r\nbody":                       "A: b\r\nI: j\r\n\r\nbody",
		"\nbody":                         "A: b\r\nI: j\r\n\nbody",
		"X: y":                           "I: j\r\nX: y\r\nA: b\r\n",
		"no header at all\r\n":           "I: j\r\nno header at all\r\nA: b\r\n",
		"From someone at 10:00\r\n\r\nb": "I: j\r\nFrom someone at 10:00\r\nA: b\r\n\r\nb",
		" starts folded\r\n\r\nb":        " starts folded\r\nA: b\r\nI: j\r\n\r\nb",
		"X: " + long + "\r\n\r\n" + long: "I: j\r\nX: " + long + "\r\nA: b\r\n\r\n" + long,
		"A: 1\r\r\n\r\n":                 "I: j\r\nA: 1\r\r\nA: b\r\n\r\n",
	} {
		var out bytes.Buffer
		if err := WriteEdited(&out, strings.NewReader(in), add); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%.40q: got %.80q, want %.80q", in, out.String(), want)
		}
	}
	var out bytes.Buffer
	if err := WriteEdited(&out, strings.NewReader("x: "+long+"\r\n "+long+"\r\nY: z\r\n\r\n"), []HeaderEdit{{RemoveHeader, "X", 1, ""}}); err != nil || out.String() != "Y: z\r\n\r\n" {
		t.Errorf("long field: %v, %.80q", err, out.String())
	}
	if err := WriteEdited(failingWriter{}, strings.NewReader("A: b\r\n\r\n"), nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("failing writer: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestWriteEditedKeepsMemoryFlat(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in := io.MultiReader(strings.NewReader("X: "), io.LimitReader(forever('x'), 32<<20), strings.NewReader("\r\nY: z\r\n\r\n"), io.LimitReader(forever('y'), 32<<20))
	if err := WriteEdited(io.Discard, in, []HeaderEdit{{RemoveHeader, "X", 0, ""}}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes allocated for a message of 64 MiB", n)
	}
}

type forever byte

func (f forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(f)
	}
	return len(p), nil
}

func TestFormatHeader(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, value, want string }{
		{"A", "b", "A: b\r\n"},
		{"A", "", "A:\r\n"},
		{"A", "b\n\tc\r\n  d\n", "A: b\r\n\tc\r\n d\r\n"},
		{"A", "b\xff\x01\u00e9", "A: b??\u00e9\r\n"},
		{"A b", "c", ""},
		{"A", strings.Repeat("x", 996) + " y", "A: " + strings.Repeat("x", 995) + "\r\n\tx y\r\n"},
		{"A", strings.Repeat("word ", 250), ""},
	} {
		got := FormatHeader(tc.name, tc.value)
		if tc.want != "" && got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.value, got, tc.want)
		}
		for line := range strings.SplitSeq(got, "\r\n") {
			if len(line) > maxHeaderLine {
				t.Errorf("line of %d bytes", len(line))
			}
		}
	}
}

func TestReadHeader(t *testing.T) {
	t.Parallel()
	fields, err := ReadHeader(strings.NewReader("A: b\r\n\tc\r\nodd line\r\nD :e\r\n\r\nF: g\r\n"), 1<<20)
	want := []HeaderField{{"A", "b c"}, {"", "odd line"}, {"D", "e"}}
	if err != nil || len(fields) != len(want) {
		t.Fatalf("%v, %q", err, fields)
	}
	for i := range want {
		if fields[i] != want[i] {
			t.Errorf("field %d: %q, want %q", i, fields[i], want[i])
		}
	}
	fields, err = ReadHeader(io.MultiReader(strings.NewReader("A: b\r\nX: "), forever('x')), 1000)
	if !errors.Is(err, ErrHeaderTooLong) || len(fields) != 2 || fields[0].Value != "b" {
		t.Errorf("%v, %q", err, fields)
	}
	if fields, err := ReadHeader(strings.NewReader("A: b"), 1000); err != nil || len(fields) != 1 || fields[0].Value != "b" {
		t.Errorf("%v, %q", err, fields)
	}
}

func TestSessionEdits(t *testing.T) {
	t.Parallel()
	edits := []HeaderEdit{{ReplaceHeader, "Subject", 1, "*** x"}, {RemoveHeader, "X-Spam", 0, ""}}
	filter := Chain{judge{v: Verdict{Edits: edits[:1]}}, judge{v: Verdict{Edits: edits[1:], Spam: true, Header: "X-Spam: Yes\r\n"}}}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Filter = filter })
	got := send(t, w.session("192.0.2.1"), "", []string{"user@example.com"}, "Subject: x\r\nX-Spam: No\r\n\r\nSubject: x\r\n")
	if got != "250 2.0.0 queued as Q2" { // this queue cannot renew a draft
		t.Fatal(got)
	}
	m := w.queue.messages()
	if len(m) != 1 || w.queue.openDrafts() != 0 {
		t.Fatalf("%d messages, %d drafts open", len(m), w.queue.openDrafts())
	}
	if !strings.HasSuffix(m[0].data, "+0000\r\nX-Spam: Yes\r\nSubject: *** x\r\n\r\nSubject: x\r\n") || !strings.Contains(m[0].data, "id Q2") {
		t.Errorf("stored %q", m[0].data)
	}
	if m[0].env.ID != "Q2" || !m[0].env.Verdict.Spam {
		t.Errorf("envelope %+v", m[0].env)
	}

	w = newWorld(t, func(_ *Config, d *Deps) { d.Filter = fullLater{v: Verdict{Edits: edits}, d: d} })
	if got := send(t, w.session("192.0.2.1"), "", []string{"user@example.com"}, "Subject: x\r\n\r\n"); got != "452 4.3.1 <user@example.com>: Insufficient system storage" {
		t.Error(got)
	}
	if w.queue.openDrafts() != 0 || len(w.queue.messages()) != 0 {
		t.Error("something is left of a message that had no room")
	}

	w = newWorld(t, func(_ *Config, d *Deps) {
		d.Filter = fullLater{v: Verdict{Edits: edits}, d: d, write: io.ErrShortWrite}
	})
	if got := send(t, w.session("192.0.2.1"), "", []string{"user@example.com"}, "Subject: x\r\n\r\n"); !strings.HasPrefix(got, "451 4.3.0 ") {
		t.Error(got)
	}
	if w.queue.openDrafts() != 0 || len(w.queue.messages()) != 0 {
		t.Error("something is left of a message that could not be written")
	}
}

// fullLater is a filter during which the queue becomes full, or its disk breaks.
type fullLater struct {
	d     *Deps
	v     Verdict
	write error
}

func (f fullLater) Check(context.Context, *Envelope, io.ReadSeeker) (Verdict, error) {
	if q := f.d.Queue.(*memQueue); f.write != nil {
		q.writeErr = f.write
	} else {
		q.roomErr = ErrFull
	}
	return f.v, nil
}

func FuzzWriteEdited(f *testing.F) {
	f.Add("A: b\r\nB: c\r\n\r\nbody\r\n", "A", 1, "x\r\ny", uint8(1))
	f.Fuzz(func(t *testing.T, message, name string, index int, value string, op uint8) {
		var out bytes.Buffer
		edit := HeaderEdit{HeaderOp(op % 4), name, index, value}
		if err := WriteEdited(&out, strings.NewReader(message), []HeaderEdit{edit}); err != nil {
			t.Fatal(err)
		}
		i := strings.Index(message, "\r\n\r\n")
		if i >= 0 && !strings.Contains(message[:i+2], "\n\n") && !strings.HasPrefix(message, "\n") && !strings.HasPrefix(message, "\r\n") &&
			!strings.Contains(message[:i+2], "\n\r") && !strings.HasPrefix(message, "\r") && !strings.HasSuffix(out.String(), message[i:]) {
			t.Errorf("body changed: %q became %q", message, out.String())
		}
		field := FormatHeader(name, value)
		for line := range strings.Lines(strings.TrimPrefix(field, name)) {
			if strings.TrimSpace(line) == "" || line[0] != ' ' && line[0] != '\t' && line[0] != ':' {
				t.Errorf("%q makes %q", value, field)
			}
		}
	})
}
