package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp/queue"
)

func TestReadList(t *testing.T) {
	t.Parallel()
	list := manyMessages(300)
	list[7].Sender = "tab\t\"quote\" é \xff"
	list[8].Recipients = nil
	list[9].Recipients = []queue.RecipientStatus{}
	list[10].LastError = strings.Repeat("long ", 50_000)
	list[11] = queue.Summary{}
	var buf bytes.Buffer
	if err := WriteList(&buf, list); err != nil {
		t.Fatal(err)
	}
	list[7].Sender = "tab\t\"quote\" é \ufffd"
	read := func(r io.Reader) (got []queue.Summary, err error) {
		err = readList(r, func(m queue.Summary) error { got = append(got, m); return nil })
		return got, err
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(buf.Bytes()), "in halves": iotest.HalfReader(bytes.NewReader(buf.Bytes())),
	} {
		got, err := read(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(list, got, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// An answer that was cut short is recognised wherever that happened.
	for n := 0; n < buf.Len()-len("]\n"); n += 1 + buf.Len()/500 {
		if _, err := read(bytes.NewReader(buf.Bytes()[:n])); err == nil {
			t.Fatalf("%d of %d bytes look whole", n, buf.Len())
		}
	}
	if _, err := read(strings.NewReader("[\n\n]")); err != nil {
		t.Errorf("empty list: %v", err)
	}
	for _, bad := range []string{"", "{}", "[\nx\n]", "[1]\n]\n"} {
		if _, err := read(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is a listing", bad)
		}
	}
	stop := errors.New("enough")
	if err := readList(bytes.NewReader(buf.Bytes()), func(queue.Summary) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the reader's own error: %v", err)
	}
}

// FuzzReadSummary holds the reader by hand to what encoding/json reads.
func FuzzReadSummary(f *testing.F) {
	for _, m := range append(manyMessages(2), queue.Summary{}, queue.Summary{ID: "é\n", Recipients: []queue.RecipientStatus{{}}}) {
		f.Add(appendSummary(nil, &m))
	}
	f.Add([]byte(`{"id":"a","sender":"","recipients":null,"size_bytes":01,"state":"","received":"0001-01-01T00:00:00Z","attempts":0}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		s := scanner{b: line}
		got := s.summary()
		if s.bad || len(s.b) > 0 {
			return // encoding/json reads it
		}
		var want queue.Summary
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("accepted %s: %v", line, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Fatalf("%s: %s", line, diff)
		}
	})
}
