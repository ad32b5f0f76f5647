package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"understudy/smtp/queue"
)

// standard is what encoding/json makes of m.
func standard(t *testing.T, m *queue.Summary) string {
	t.Helper()
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestAppendSummary(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("x", 3600)
	now := time.Date(2026, 11, 24, 13, 44, 23, 123456789, zone)
	everything := queue.Summary{
		ID: "A1", Sender: "ann@example.org", SizeBytes: 1 << 40, State: queue.Held, Reason: "rule", Received: now,
		Attempts: 3, NextAttempt: now.UTC(), LastError: "450 4.2.1 busy", NextHop: "smtp://mx1.example.net:25",
		Recipients: []queue.RecipientStatus{
			{Address: "jane@example.com", State: queue.RecipientPending},
			{Address: "joe@example.com", State: queue.RecipientRefused, Code: 550, Enhanced: "5.1.1", Text: "no", Relay: "mx1", At: now, Attempts: 2, NextAttempt: now},
		},
	}
	for i, m := range []queue.Summary{{}, {Recipients: []queue.RecipientStatus{}}, everything} {
		if got, want := string(appendSummary(nil, &m)), standard(t, &m); got != want {
			t.Errorf("%d:\ngot  %s\nwant %s", i, got, want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\b\f\n\r\t\x00\x1f\x7f", "<>&", "é\u2028\u2029\ufffd", "\xff\xc3", "a\xe2\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := queue.Summary{ID: s, Sender: s, State: queue.State(s), LastError: s}
		if got, want := string(appendSummary(nil, &m)), standard(t, &m); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", s, got, want)
		}
	})
}

// manyMessages is a queue after an outage.
func manyMessages(n int) []queue.Summary {
	now := time.Now()
	out := make([]queue.Summary, n)
	for i := range out {
		out[i] = queue.Summary{
			ID: fmt.Sprintf("F%015d", i), Sender: fmt.Sprintf("sender%d@example.org", i), Received: now, State: queue.Queued,
			Recipients: []queue.RecipientStatus{{Address: fmt.Sprintf("recipient%d@example.com", i), State: queue.RecipientPending, Code: 450, Enhanced: "4.2.1", Text: "mailbox busy", Relay: "mx1.example.net[192.0.2.1]:25", At: now, Attempts: 1, NextAttempt: now}},
			LastError:  "450 4.2.1 mailbox busy", NextHop: "smtp://mx1.example.net:25", NextAttempt: now, Attempts: 1, SizeBytes: 4096,
		}
	}
	return out
}

func BenchmarkWriteList(b *testing.B) {
	list := manyMessages(10_000)
	for b.Loop() {
		if err := WriteList(io.Discard, list); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadList(b *testing.B) {
	var buf bytes.Buffer
	if err := WriteList(&buf, manyMessages(10_000)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := 0
		err := readList(bytes.NewReader(buf.Bytes()), func(queue.Summary) error { n++; return nil })
		if err != nil || n != 10_000 {
			b.Fatal(n, err)
		}
	}
}
