package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"understudy/spamsync/replica/stream"
)

func resp(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

func TestReaderCountsEveryByte(t *testing.T) {
	t.Parallel()
	parts := []struct {
		raw  string
		name string
		db   int
		inTx bool
	}{
		{resp("PING"), "PING", stream.UnknownDB, false},
		{resp("select", "3"), "SELECT", 3, false},
		{"\n", "", 3, false},
		{resp("MULTI"), "MULTI", 3, false},
		{resp("hincrby", "k\r\n*1\r\n", "f", "1"), "HINCRBY", 3, true},
		{"\r\n", "", 3, true},
		{resp("SELECT", "0"), "SELECT", 0, true},
		{resp("SET", "k", ""), "SET", 0, true},
		{resp("EXEC"), "EXEC", 0, false},
		{"*0\r\n", "", 0, false},
		{resp("SET", "big", strings.Repeat("x", 300_000)), "SET", 0, false},
		{resp("DEL", "k"), "DEL", 0, false},
	}
	var all strings.Builder
	for _, p := range parts {
		all.WriteString(p.raw)
	}
	for name, r := range map[string]io.Reader{
		"at once":    strings.NewReader(all.String()),
		"one byte":   iotest.OneByteReader(strings.NewReader(all.String())),
		"with error": iotest.DataErrReader(iotest.HalfReader(strings.NewReader(all.String()))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reader := stream.NewReader(r, stream.Point{ID: "a", Offset: 100}, stream.UnknownDB, false, 0)
			at := int64(100)
			for i, p := range parts {
				cmd, err := reader.Next()
				if err != nil {
					t.Fatalf("part %d: %v", i, err)
				}
				if cmd.Name() != p.name || cmd.DB != p.db || cmd.InTx != p.inTx || string(cmd.Raw) != p.raw {
					t.Errorf("part %d: %s in %d (tx %v), %q", i, cmd.Name(), cmd.DB, cmd.InTx, cmd.Raw)
				}
				if end := at + int64(len(p.raw)); cmd.Offset != at || cmd.End != end || cmd.At() != (stream.Point{ID: "a", Offset: end}) {
					t.Errorf("part %d: %d to %d, want %d to %d", i, cmd.Offset, cmd.End, at, end)
				}
				at = cmd.End
			}
			if _, err := reader.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestReaderRefusesWhatIsNoStream(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"+OK\r\n", "PING\r\n", "*1\n$4\r\nPING\r\n", "*-1\r\n", "*1\r\n$-1\r\n", "*1\r\n+PING\r\n",
		"*1048577\r\n", "*99999999999999999999\r\n", "*1\r\n$1073741825\r\n", "*1\r\n$4\r\nPINGxx", "\rx",
		"*" + strings.Repeat("1", 100), "*+1\r\n", "*\r\n", "*1\r\n$ 4\r\nPING\r\n",
	} {
		reader := stream.NewReader(strings.NewReader(raw), stream.Point{}, 0, false, 1<<20)
		for range 2 { // it stays there
			if _, err := reader.Next(); !errors.Is(err, stream.ErrProtocol) {
				t.Errorf("%.30q: %v", raw, err)
			}
		}
	}
	// A command may be larger than any of its words.
	words := append([]string{"SADD"}, make([]string, 30)...)
	for i := range words {
		words[i] = strings.Repeat("y", 50_000)
	}
	if _, err := stream.NewReader(strings.NewReader(resp(words...)), stream.Point{}, 0, false, 1<<20).Next(); !errors.Is(err, stream.ErrProtocol) {
		t.Errorf("a large command: %v", err)
	}
}

// A length is a promise, and costs nothing before it is kept.
func TestReaderAllocatesWhatArrived(t *testing.T) { // not parallel: it counts what everybody allocates
	raw := []byte("*1\r\n$500000000\r\nabc")
	const times = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		_, err := stream.NewReader(bytes.NewReader(raw), stream.Point{}, 0, false, 0).Next()
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	got := (after.TotalAlloc - before.TotalAlloc) / times
	if got > 1<<20 {
		t.Errorf("%d bytes for a promise", got)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(resp("MULTI")+resp("SET", "a", "b")+resp("EXEC")), 7)
	f.Add([]byte("*1\r\n$1000000000\r\nabc"), 1)
	f.Add([]byte("\n\r\n*0\r\n*2\r\n$0\r\n\r\n$1\r\nx\r\n"), 3)
	f.Fuzz(func(t *testing.T, raw []byte, cut int) {
		whole := stream.NewReader(bytes.NewReader(raw), stream.Point{}, 0, false, 1<<20)
		parts := stream.NewReader(iotest.HalfReader(bytes.NewReader(raw)), stream.Point{}, 0, false, 1<<20)
		if cut%2 == 0 {
			parts = stream.NewReader(iotest.OneByteReader(bytes.NewReader(raw)), stream.Point{}, 0, false, 1<<20)
		}
		var at int64
		for {
			a, err := whole.Next()
			b, err2 := parts.Next()
			if (err == nil) != (err2 == nil) {
				t.Fatalf("%v at once, %v in parts", err, err2)
			}
			if err != nil {
				return
			}
			if a.Offset != at || a.End != at+int64(len(a.Raw)) || !bytes.Equal(a.Raw, raw[at:a.End]) || !bytes.Equal(a.Raw, b.Raw) {
				t.Fatalf("command at %d: %q", at, a.Raw)
			}
			if a.DB != b.DB || a.InTx != b.InTx || len(a.Args) != len(b.Args) {
				t.Fatal("the parts differ")
			}
			at = a.End
		}
	})
}
