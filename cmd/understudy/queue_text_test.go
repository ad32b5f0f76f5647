package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"understudy/internal/admin"
	"understudy/smtp/queue"
)

func TestSafe(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                    "",
		"jane@example.com":    "jane@example.com",
		"jürgen@müller.de":    "jürgen@müller.de",
		"\x1b[2J\x07":         `\x1b[2J\a`,
		"a\r\nb\tc":           `a\r\nb\tc`,
		"\u009b31m":           `\u009b31m`,
		"\u202egnp.exe":       `\u202egnp.exe`,
		"\u2066x\u2069":       `\u2066x\u2069`,
		"\xff\xfe":            `\xff\xfe`,
		"\x7f":                `\x7f`,
		"no\u00a0break\u2028": `no\u00a0break\u2028`,
	} {
		if got := safe(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("jane@example.com")
	f.Add("\x1b]0;owned\x07\u202e\xff\u009b")
	f.Fuzz(func(t *testing.T, s string) {
		out := safe(s)
		for _, r := range out {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q holds %q", out, r)
			}
		}
		if got := clip(out, 10); len([]rune(got)) > 10 {
			t.Fatalf("clip: %q", got)
		}
	})
}

// FuzzSafeJSON holds that the filter does not change what the JSON says, wherever
// its writes are cut, and that nothing for a terminal is left in it.
func FuzzSafeJSON(f *testing.F) {
	f.Add("plain", 1)
	f.Add("\x7f\u009b\u202e\U000e0001é", 3)
	f.Fuzz(func(t *testing.T, s string, cut int) {
		in, err := compactJSON(map[string]string{"k": s})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := &safeJSON{w: &out}
		if cut < 0 || cut > len(in) {
			cut = len(in) / 2
		}
		for _, part := range [][]byte{in[:cut], in[cut:]} {
			if n, err := w.Write(part); err != nil || n != len(part) {
				t.Fatal(n, err)
			}
		}
		for _, r := range out.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%q holds %q", out.String(), r)
			}
		}
		var a, b map[string]string
		if json.Unmarshal(in, &a) != nil || json.Unmarshal(out.Bytes(), &b) != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%s became %s", in, out.String())
		}
	})
}

func TestHumanFigures(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0B", 1023: "1023B", 1024: "1.0K", 10_000: "9.8K", 10_240: "10K", 1<<20 - 1: "1.0M", 5 << 20: "5.0M", 1 << 30: "1.0G", 1 << 62: "4096P",
	} {
		if got := humanBytes(n); got != want || len(got) > 6 {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 30 * 24 * time.Hour: "30d",
	} {
		if got := humanAge(d); got != want || len(got) > 4 {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestParseFigures(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "12h": 12 * time.Hour, "3d": 72 * time.Hour, "2w": 336 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := parseAge(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "5", "0s", "-1h", "d", "1.5d", "0d", "99999999d", "3y"} {
		if got, err := parseAge(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
	for s, want := range map[string]int64{"500": 500, "500B": 500, "10K": 10 << 10, "10k": 10 << 10, "10KiB": 10 << 10, "5mb": 5 << 20, "1GiB": 1 << 30} {
		if got, err := parseBytes(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "K", "0", "-5", "1.5M", "5T", "99999999999", "10KM"} {
		if got, err := parseBytes(s); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestMessageTableFitsATerminal(t *testing.T) {
	t.Parallel()
	m := queue.Summary{
		ID: "01M86ZMF8200073Q99HPR93ZBN", Sender: strings.Repeat("s", 60) + "@example.org", State: queue.Refused, SizeBytes: 123456789,
		Received: time.Now().Add(-100 * time.Hour), NextAttempt: time.Now().Add(time.Hour),
		Recipients: []queue.RecipientStatus{{Address: strings.Repeat("r", 60) + "@example.com"}, {Address: "x@example.com"}},
		LastError:  "550 5.7.1 " + strings.Repeat("no ", 60),
	}
	for _, width := range []int{40, 80, 100, 200} {
		var out bytes.Buffer
		table := newMessageTable(&app{Out: &out})
		table.width = width
		if err := table.add(&m); err != nil {
			t.Fatal(err)
		}
		if err := table.end(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(out.String(), "\n") {
			if n := len([]rune(line)); n > max(width, 55) {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
	}
	var out bytes.Buffer
	table := newMessageTable(&app{Out: &out}) // not a terminal
	if err := table.add(&m); err != nil {
		t.Fatal(err)
	}
	if err := table.end(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), m.Sender+" -> "+m.Recipients[0].Address+" (+1)\n") {
		t.Errorf("shortened for a script: %s", out.String())
	}
}

func TestOutcomeLine(t *testing.T) {
	t.Parallel()
	ok := admin.FlushRecipient{Address: "a@x", Outcome: admin.OutcomeDelivered, Code: 250, Enhanced: "2.0.0", Text: "ok", Relay: "mx1"}
	no := admin.FlushRecipient{Address: "b@x", Outcome: admin.OutcomeRefused, Code: 550, Text: "gone\x1b[2J", Relay: "mx1"}
	for _, tt := range []struct {
		m    admin.FlushMessage
		want string
	}{
		{admin.FlushMessage{ID: "A", Outcome: admin.OutcomeDelivered, Recipients: []admin.FlushRecipient{ok, ok}}, "A: delivered: 250 2.0.0 ok (mx1)"},
		{admin.FlushMessage{ID: "A", Outcome: admin.OutcomeRefused, Recipients: []admin.FlushRecipient{ok, no}}, `A: refused; b@x: 550 gone\x1b[2J (mx1)`},
		{admin.FlushMessage{ID: "A", Outcome: admin.OutcomeSkipped, Text: "is held"}, "A: skipped: is held"},
	} {
		if got := outcomeLine(&tt.m); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}
