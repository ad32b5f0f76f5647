package message

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// crlf gives text the line ends of mail.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func parse(t *testing.T, s string) *Message {
	t.Helper()
	m, err := Parse(strings.NewReader(crlf(s)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func types(m *Message) (out []string) {
	for _, p := range m.Parts {
		out = append(out, fmt.Sprintf("%d %s", p.Depth, p.Type))
	}
	return out
}

func TestTree(t *testing.T) {
	t.Parallel()
	m := parse(t, `Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?b?IGF1cyBL9mxu?=
Content-Type: multipart/mixed; boundary=outer

preamble with http://preamble.example/
--outer
Content-Type: multipart/alternative; boundary="in ner"

--in ner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6ne Gr=FC=DFe from https://Plain.Example:8080/x.
--in ner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

`+base64.StdEncoding.EncodeToString([]byte(`<p>Hello&nbsp;<b>big</b> <a href="https://evil.example/login">https://bank.example</a><script>no()</script><img width=1 height=1 src=http://px.example/1></p><div style="display: none">secret</div>`))+`
--in ner--
epilogue
--outer
Content-Type: application/octet-stream
Content-Disposition: attachment; filename*=utf-8''rechnung%20.pdf.exe
Content-Transfer-Encoding: base64

TVqQAAMAAAAEAAAA
--outer
Content-Type: message/rfc822

Subject: inner
Content-Type: text/plain

inner text
--outer--
`)
	if diff := cmp.Diff([]string{"0 multipart/mixed", "1 multipart/alternative", "2 text/plain", "2 text/html", "1 application/octet-stream", "1 message/rfc822", "2 text/plain"}, types(m)); diff != "" {
		t.Error(diff)
	}
	if got := DecodeHeader(m.Get("subject")); got != "Grüße aus Köln" {
		t.Errorf("subject %q", got)
	}
	wantText := "Schöne Grüße from https://Plain.Example:8080/x.\n\nHello big https://bank.example\nsecret\n\ninner text\n\n"
	if got := strings.ReplaceAll(m.Text, "\r", ""); got != wantText {
		t.Errorf("text %q, want %q", got, wantText)
	}
	var hosts []string
	for _, u := range m.URLs {
		hosts = append(hosts, u.Host)
	}
	if diff := cmp.Diff([]string{"plain.example", "evil.example", "bank.example", "px.example"}, hosts); diff != "" {
		t.Error(diff)
	}
	if h := m.HTML; h.Parts != 1 || h.Mismatched != 1 || h.Hidden != 1 || h.TinyImages != 1 || h.Scripts != 1 || h.Links != 1 {
		t.Errorf("html %+v", h)
	}
	if a := m.Parts[4]; !a.Attachment || a.Name != "rechnung .pdf.exe" || string(a.Head[:2]) != "MZ" {
		t.Errorf("attachment %+v", a)
	}
	if len(m.Faults) > 0 {
		t.Errorf("faults %v", m.Faults)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, message string
		want          []Fault
	}{
		{"fine", "A: b\n\nbody\n", nil},
		{"unclosed", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n", []Fault{Unclosed}},
		{"no parts", "Content-Type: multipart/mixed; boundary=b\n\ntext\n--b--\n", []Fault{Empty}},
		{"no boundary", "Content-Type: multipart/mixed\n\n--b\n\ntext\n", []Fault{NoBoundary}},
		{"malformed header", "A: b\nnot a field\n\nbody\n", []Fault{HeaderMalformed}},
		{"mbox line", "From someone\nA: b\n\nbody\n", nil},
		{"no body", "A: b\n", []Fault{NoBody}},
		{"empty", "", []Fault{NoBody}},
		{"base64", "Content-Transfer-Encoding: base64\n\nYWJj*%%\n", []Fault{BadBase64}},
		{"qp", "Content-Transfer-Encoding: quoted-printable\n\na=ZZ b=\n", []Fault{BadQP}},
		{"encoding", "Content-Transfer-Encoding: rot13\n\nabc\n", []Fault{BadEncoding}},
		{"encoded multipart", "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n\ntext\n--b--\n", []Fault{BadEncoding}},
		{"charset", "Content-Type: text/plain; charset=klingon\n\nabc\n", []Fault{BadCharset}},
		{"not utf-8", "Content-Type: text/plain; charset=utf-8\n\n\xff\xfe\n", []Fault{BadCharset}},
		{"raw header", "A: \xff\n\nabc\n", []Fault{HeaderEightBit}},
		{"type", "Content-Type: nonsense\n\nabc\n", []Fault{BadType}},
		{"nul", "A: b\n\na\x00b\n", []Fault{NUL}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, parse(t, tc.message).Faults); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLenientParameters(t *testing.T) {
	t.Parallel()
	m := parse(t, "Content-Type: multipart/mixed; boundary=\"a b; charset=x\n\n--a b; charset=x\n\nhi\n--a b; charset=x--\n")
	if len(m.Parts) != 2 || strings.TrimSpace(m.Text) != "hi" {
		t.Errorf("%v %q %v", types(m), m.Text, m.Faults)
	}
}

func TestInnerBoundaryClosedByOuter(t *testing.T) {
	t.Parallel()
	m := parse(t, "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/related; boundary=oi\n\n--oi\n\none\n--o\n\ntwo\n--o--\n")
	if diff := cmp.Diff([]string{"0 multipart/mixed", "1 multipart/related", "2 text/plain", "1 text/plain"}, types(m)); diff != "" {
		t.Error(diff)
	}
	if !m.Has(Unclosed) {
		t.Error("the inner one is not closed")
	}
}

// endless gives head, then n times what part returns.
type endless struct {
	next []byte
	part func(i int) string
	i, n int
}

func (e *endless) Read(p []byte) (int, error) {
	for len(e.next) == 0 {
		if e.i >= e.n {
			return 0, io.EOF
		}
		e.next = []byte(e.part(e.i))
		e.i++
	}
	n := copy(p, e.next)
	e.next = e.next[n:]
	return n, nil
}

// TestHuge: whatever comes, time and memory are bounded, and it is named.
func TestHuge(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    *endless
		want Fault
	}{
		{"100 MiB of text", &endless{next: []byte("A: b\r\n\r\n"), n: 100 << 4, part: func(int) string { return strings.Repeat("word and word\r\n", 4<<10) }}, TextTruncated},
		{"100 MiB of one line", &endless{next: []byte("A: b\r\n\r\n"), n: 100, part: func(int) string { return strings.Repeat("x", 1<<20) }}, TextTruncated},
		{"100 MiB of base64 text", &endless{next: []byte("Content-Transfer-Encoding: base64\r\n\r\n"), n: 100, part: func(int) string { return strings.Repeat("YWJj", 1<<18) }}, TextTruncated},
		{"100,000 parts", &endless{next: []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n"), n: 100_000, part: func(i int) string { return fmt.Sprintf("--b\r\n\r\npart %d\r\n", i) }}, TooManyParts},
		{"10,000 nested multiparts", &endless{n: 10_000, part: func(i int) string {
			return fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
		}}, TooDeep},
		{"10,000 nested messages", &endless{n: 10_000, part: func(int) string { return "Content-Type: message/rfc822\r\n\r\n" }}, TooDeep},
		{"header of 1 MiB, one field", &endless{next: []byte("A: "), n: 1, part: func(int) string { return strings.Repeat("x", 1<<20) + "\r\n\r\nbody" }}, HeaderTooLong},
		{"header of 1 MiB, many fields", &endless{n: 1 << 18, part: func(int) string { return "A:\r\n" }}, HeaderTooLong},
		{"header of 1 MiB, continued", &endless{next: []byte("A: b\r\n"), n: 1 << 18, part: func(int) string { return " x\r\n" }}, HeaderTooLong},
		{"a million urls", &endless{next: []byte("A: b\r\n\r\n"), n: 1 << 20, part: func(i int) string { return fmt.Sprintf("http://h%d.example/\r\n", i) }}, TooManyURLs},
		{"html of tags", &endless{next: []byte("Content-Type: text/html\r\n\r\n"), n: 1 << 16, part: func(int) string { return "<a href='x'><div style='display:none'>" }}, TextTruncated},
		{"html of an open tag", &endless{next: []byte("Content-Type: text/html\r\n\r\n<a "), n: 1 << 16, part: func(i int) string { return fmt.Sprint("a", i, "=", i, " ") }}, TextTruncated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			m, err := Parse(tc.r, Limits{})
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err != nil || !m.Has(tc.want) {
				t.Fatalf("%v, faults %v", err, m.Faults)
			}
			if len(m.Text) > 3*(256<<10) || len(m.Parts) > 256 || len(m.URLs) > 100 {
				t.Errorf("kept %d bytes, %d parts, %d urls", len(m.Text), len(m.Parts), len(m.URLs))
			}
			var alloc uint64
			if tc.r.n <= 100_000 && !strings.HasPrefix(tc.name, "100 MiB") {
				alloc = after.TotalAlloc - before.TotalAlloc
			}
			if took > 20*time.Second || alloc > 64<<20 {
				t.Errorf("took %v, %d MiB allocated", took, alloc>>20)
			}
		})
	}
}

func TestReaderFails(t *testing.T) {
	t.Parallel()
	if m, err := Parse(io.MultiReader(strings.NewReader("A: b\r\n\r\nx\r\n"), failing{}), Limits{}); err == nil || m != nil {
		t.Errorf("%v, %v", m, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzParse(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n--b--\r\n"))
	f.Add([]byte("Content-Type: text/html; charset=iso-2022-jp\r\n\r\n<a href=http://x.example>\x1b$B$3</a>"))
	f.Add([]byte("Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/x; boundary=\"--\"\r\n\r\n----\r\n\r\n------"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := Limits{HeaderBytes: 4 << 10, PartHeaderBytes: 1 << 10, Parts: 10, Depth: 4, TextBytes: 4 << 10, URLs: 5}
		m, err := Parse(bytes.NewReader(data), lim)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Parts) > lim.Parts || len(m.URLs) > lim.URLs || len(m.Text) > 4*lim.TextBytes+lim.Parts || len(m.Parts) == 0 {
			t.Fatalf("%d parts, %d urls, %d bytes", len(m.Parts), len(m.URLs), len(m.Text))
		}
		again, _ := Parse(bytes.NewReader(data), lim)
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
		for _, p := range m.Parts {
			if p.Depth > lim.Depth {
				t.Fatalf("depth %d", p.Depth)
			}
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add("=?utf-8?q?a=C3=BC?= b =?x?b?!!?=")
	f.Fuzz(func(t *testing.T, s string) {
		got := DecodeHeader(s)
		if len(got) > maxHeaderText || strings.ContainsAny(got, "\r\n\x00") {
			t.Fatalf("%q", got)
		}
	})
}

func FuzzHTML(f *testing.F) {
	f.Add("<a href=http://a.example>http://b.example</a><style>x</style><p style='font-size:0'>")
	f.Fuzz(func(t *testing.T, s string) {
		var h HTML
		var b strings.Builder
		urls := newURLSet(10)
		h.render(s, &b, urls)
		if len(urls.list) > 10 || b.Len() > 4*len(s)+16 {
			t.Fatalf("%d urls, %d bytes of %d", len(urls.list), b.Len(), len(s))
		}
	})
}
