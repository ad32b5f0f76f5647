package admin

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"understudy/smtp/queue"
)

func TestReadMessage(t *testing.T) {
	t.Parallel()
	lines := func(l ...string) string { return strings.Join(l, "\r\n") + "\r\n" }
	for _, tt := range []struct {
		name, message string
		subject, text string
	}{
		{"plain", lines("Subject: code", "", "Your code is 1"), "code", "Your code is 1"},
		{"encoded subject, quoted-printable latin-1", lines(
			"Subject: =?iso-8859-1?q?K=F6ln?=", "Content-Type: text/plain; charset=iso-8859-1",
			"Content-Transfer-Encoding: quoted-printable", "", "K=F6ln ruft"), "Köln", "Köln ruft"},
		{"base64 html", lines("Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: base64", "",
			"PHN0eWxlPmIge308L3N0eWxlPjxwPkNvZGU6ICA8Yj40MjwvYj48L3A+PHA+QnllICZhbXA7IHRoYW5rczwvcD4="), "", "Code: 42\nBye & thanks"},
		{"alternative prefers plain", lines(
			"Content-Type: multipart/alternative; boundary=x", "",
			"--x", "Content-Type: text/html", "", "<p>rich</p>", "--x", "Content-Type: text/plain", "", "plain", "--x--"), "", "plain"},
		{"nested, with an attachment", lines(
			"Content-Type: multipart/mixed; boundary=x", "",
			"--x", "Content-Type: application/pdf", "", "%PDF", "--x", "Content-Type: multipart/alternative; boundary=y", "",
			"--y", "Content-Type: text/html", "", "<div>hello<br>world</div>", "--y--", "--x--"), "", "hello\nworld"},
		{"unknown charset", lines("Content-Type: text/plain; charset=x-none", "", "text"), "", "text"},
		{"no body", "Subject: x\r\n\r\n", "x", ""},
		{"nothing", "", "", ""},
		{"cut multipart", lines("Content-Type: multipart/mixed; boundary=x", "", "--x", "", "first"), "", "first"},
	} {
		var hit SearchHit
		readMessage(&hit, strings.NewReader(tt.message), true)
		if hit.Subject != tt.subject || hit.Text != tt.text {
			t.Errorf("%s: subject %q, text %q (%s)", tt.name, hit.Subject, hit.Text, hit.Problem)
		}
	}
	var hit SearchHit
	readMessage(&hit, strings.NewReader("Subject: x\r\n\r\n"+strings.Repeat("ä", searchTextBytes)), true)
	if !hit.Truncated || len(hit.Text) > searchTextBytes || !utf8.ValidString(hit.Text) {
		t.Errorf("long text: %d bytes, truncated %v", len(hit.Text), hit.Truncated)
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte("Subject: a\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nfirst\r\n--x--\r\n"))
	f.Add([]byte("Content-Type: text/html\r\n\r\n<p>a<style>b</style><script>"))
	f.Add([]byte("\x00\xff: :\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var hit SearchHit
		readMessage(&hit, bytes.NewReader(data), true)
		if len(hit.Text) > searchTextBytes {
			t.Fatalf("text of %d bytes", len(hit.Text))
		}
	})
}

func TestSearch(t *testing.T) {
	t.Parallel()
	f := fill(30)
	f.Add(queue.Summary{ID: "Z1", Recipients: []queue.RecipientStatus{{Address: "jane@example.com"}}}, []byte("\xff\xfe no header"))
	r := start(t, full(f))
	var got []string
	end, err := r.Search(t.Context(), SearchRequest{Selection: Selection{Recipient: "user*", Limit: 2}}, func(h SearchHit) error {
		got = append(got, h.ID)
		if h.Text != "" {
			t.Error("text came unasked")
		}
		return nil
	})
	if err != nil || fmt.Sprint(got) != "[M000029 M000028]" || end.Matches != 2 {
		t.Errorf("newest first, two of them: %v, %+v, %v", got, end, err)
	}
	end, err = r.Search(t.Context(), SearchRequest{Selection: Selection{Recipient: "jane"}, Text: true}, func(h SearchHit) error {
		if h.Problem == "" {
			t.Errorf("an unreadable message without a word of it: %+v", h)
		}
		return nil
	})
	if err != nil || end.Matches != 1 {
		t.Errorf("unreadable: %+v, %v", end, err)
	}
}

// A message may be nested to make its reader work; a search reads thousands.
func TestReadMessageNested(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("Content-Type: multipart/mixed; boundary=b0\r\n\r\n")
	for i := range 4_000 {
		fmt.Fprintf(&b, "--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i, i+1)
	}
	began := time.Now()
	var hit SearchHit
	readMessage(&hit, strings.NewReader(b.String()), true)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}
