package clamd

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
	"understudy/spamsync/engine/link"
)

// fake is a clamd with a limit.
type fake struct {
	mu    sync.Mutex
	limit int
	seen  string
	words string // instead of a judgement
}

func (f *fake) serve(c net.Conn, w io.Writer) {
	in := bufio.NewReader(c)
	command, err := in.ReadString(0)
	if err != nil {
		return
	}
	if command == "zPING\x00" {
		_, _ = io.WriteString(w, "PONG\x00")
		return
	}
	if command != "zINSTREAM\x00" {
		_, _ = io.WriteString(w, "UNKNOWN COMMAND\x00")
		return
	}
	var all []byte
	for {
		var n uint32
		if binary.Read(in, binary.BigEndian, &n) != nil {
			return
		}
		if n == 0 {
			break
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return
		}
		all = append(all, chunk...)
		if f.limit > 0 && len(all) > f.limit {
			_, _ = io.WriteString(w, "INSTREAM size limit exceeded. ERROR\x00")
			return
		}
	}
	f.mu.Lock()
	f.seen = string(all)
	words := f.words
	f.mu.Unlock()
	switch {
	case words != "":
	case strings.Contains(string(all), "SPAMWORD"):
		words = "stream: Eicar-Signature FOUND"
	default:
		words = "stream: OK"
	}
	_, _ = io.WriteString(w, words+"\x00")
}

func newFilter(t *testing.T, addr string, opt Options) *Filter {
	t.Helper()
	opt.Addresses = append(opt.Addresses, addr)
	if opt.Timeout == 0 {
		opt.Timeout = 5 * time.Second
	}
	f, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T, b enginetest.Behaviour, timeout time.Duration) enginetest.Subject {
		t.Helper()
		f := &fake{}
		return enginetest.Subject{
			Filter:  newFilter(t, enginetest.Start(t, b, f.serve), Options{Timeout: timeout}),
			Seen:    func() string { f.mu.Lock(); defer f.mu.Unlock(); return f.seen },
			Rejects: true,
		}
	})
}

func TestFound(t *testing.T) {
	t.Parallel()
	f := &fake{words: "stream: Evil\r\n250 (x) FOUND"}
	v, err := newFilter(t, enginetest.Start(t, enginetest.Judge, f.serve), Options{}).Check(t.Context(), enginetest.Envelope(), strings.NewReader("x"))
	if err != nil || v.Action != smtp.Reject || v.Code != 554 || v.Enhanced != "5.7.1" || v.Text != "Malware found: Evil 250 (x)" ||
		len(v.Symbols) != 1 || v.Symbols[0].Name != "CLAMD_Evil_250__x_" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestOversize(t *testing.T) {
	t.Parallel()
	f := &fake{limit: 100_000}
	addr := enginetest.Start(t, enginetest.Judge, f.serve)
	for _, tc := range []struct {
		name string
		opt  Options
		size int
		ok   bool
	}{
		{"fits", Options{MaxBytes: 100_000}, 100_000, true},
		{"our limit", Options{MaxBytes: 100_000}, 100_001, false},
		{"our limit, accepted", Options{MaxBytes: 10, AcceptOversize: true}, 11, true},
		{"its limit", Options{}, 5_000_000, false},
		{"its limit, accepted", Options{AcceptOversize: true}, 150_000, true},
	} {
		v, err := newFilter(t, addr, tc.opt).Check(t.Context(), enginetest.Envelope(), strings.NewReader(strings.Repeat("x", tc.size)))
		want := smtp.Accept
		if !tc.ok {
			want = smtp.Defer
		}
		if err != nil || v.Action != want {
			t.Errorf("%s: %+v, %v", tc.name, v, err)
		}
	}
}

// An OK that comes before the whole message was sent is none.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	addr := enginetest.Listen(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "stream: OK\x00")
	})
	body := strings.NewReader(strings.Repeat("x", 20_000_000))
	if v, err := newFilter(t, addr, Options{}).Check(t.Context(), enginetest.Envelope(), body); err == nil {
		t.Errorf("%+v", v)
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	if err := newFilter(t, enginetest.Start(t, enginetest.Judge, f.serve), Options{}).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	for _, b := range []enginetest.Behaviour{enginetest.Hang, enginetest.Closed, enginetest.Garbage, enginetest.Flood} {
		if err := newFilter(t, enginetest.Start(t, b, f.serve), Options{Timeout: 100 * time.Millisecond}).Ping(t.Context()); err == nil {
			t.Errorf("behaviour %d answers PING", b)
		}
	}
}

// A chain asks clamd first and the spam filter only where nothing was found.
func TestBesideAnother(t *testing.T) {
	t.Parallel()
	f := &fake{}
	clam := newFilter(t, enginetest.Start(t, enginetest.Judge, f.serve), Options{})
	chain := smtp.Chain{clam, smtp.Chain{}}
	v, err := chain.Check(t.Context(), enginetest.Envelope(), strings.NewReader(enginetest.Message(1, "SPAMWORD")))
	if err != nil || v.Action != smtp.Reject || v.Engine != "clamd" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, opt := range []Options{{}, {Addresses: []string{"/x"}}, {Addresses: []string{"x"}, Timeout: 1}} {
		if _, err := New(opt); err == nil {
			t.Errorf("%+v is fine", opt)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"stream: OK\x00", "stream: X FOUND\x00", "INSTREAM size limit exceeded. ERROR\x00", "stream:  FOUND\x00", strings.Repeat("x", 5000), ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line, err := readAnswer(strings.NewReader(s))
		if err != nil {
			return
		}
		a, err := parse(line)
		if err == nil && a.found == "" && !a.tooLong && line != "stream: OK" {
			t.Errorf("%q is clean", line)
		}
		if a.found != link.Text(a.found, 100) {
			t.Errorf("%q", a.found)
		}
	})
}
