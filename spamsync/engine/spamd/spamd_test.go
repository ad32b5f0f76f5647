package spamd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
)

// fake is a spamd that judges by SPAMWORD.
type fake struct {
	mu      sync.Mutex
	seen    string
	request string
}

func (f *fake) serve(c net.Conn, w io.Writer) {
	in := bufio.NewReader(c)
	request, length := "", 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
		request += line
		if v, ok := strings.CutPrefix(line, "Content-length: "); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return
	}
	f.mu.Lock()
	f.seen, f.request = string(body), request
	f.mu.Unlock()
	verdict, symbols := "False ; 1.5 / 5.0", "A,B"
	if strings.Contains(string(body), "SPAMWORD") {
		verdict, symbols = "True ; 21.5 / 5.0", "BAD_WORD,A"
	}
	symbols += "\r\n"
	switch {
	case strings.HasPrefix(request, "CHECK "):
		symbols = ""
	case strings.HasPrefix(request, "HEADERS "):
		symbols = "X-Spam-Status: No, score=1.5 required=5.0\r\n\ttests=A=1.0,\r\n\tB=0.5 autolearn=no\r\nX-Spam-Level: *\r\nReceived: x\r\nX-Spam-Flag: NO\r\n\r\n"
	}
	_, _ = fmt.Fprintf(w, "SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %s\r\n\r\n%s", len(symbols), verdict, symbols)
}

// message returns what was sent behind the trace lines.
func (f *fake) message() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, rest, _ := strings.Cut(f.seen, "+0000\r\n")
	return rest
}

func newFilter(t *testing.T, addr string, opt Options) *Filter {
	t.Helper()
	opt.Addresses = []string{addr}
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
	for command, reject := range map[string]float64{Check: 0, Symbols: 10, Headers: 10} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, func(t *testing.T, b enginetest.Behaviour, timeout time.Duration) enginetest.Subject {
				t.Helper()
				f := &fake{}
				return enginetest.Subject{
					Filter:  newFilter(t, enginetest.Start(t, b, f.serve), Options{Timeout: timeout, Command: command, RejectScore: reject}),
					Seen:    f.message,
					Rejects: reject > 0,
				}
			})
		})
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	f := &fake{}
	filter := newFilter(t, enginetest.Start(t, enginetest.Judge, f.serve), Options{User: "debian-spamd", Hostname: "mx2.example.com", Command: Headers})
	v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\nc\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	wantTrace := "X-Envelope-From: <a@example.org>\r\nX-Envelope-To: <b@example.com>\r\nX-Envelope-To: <c@example.com>\r\n" +
		"Received: from client.example.org (client.example.org [192.0.2.7])\r\n\t(Authenticated sender: user)\r\n" +
		"\tby mx2.example.com (understudy) with ESMTPSA id 4fXyZ1;\r\n\tMon, 21 Sep 2026 14:13:20 +0000\r\n"
	if d := cmp.Diff(wantTrace+"A: b\r\n\r\nc\r\n", f.seen); d != "" {
		t.Error(d)
	}
	if want := fmt.Sprintf("HEADERS SPAMC/1.5\r\nContent-length: %d\r\nUser: debian-spamd\r\n", len(f.seen)); f.request != want {
		t.Errorf("request %q, want %q", f.request, want)
	}
	want := smtp.Verdict{
		Engine: "spamassassin", Score: 1.5, Required: 5, Symbols: []smtp.Symbol{{Name: "A", Score: 1}, {Name: "B", Score: 0.5}},
		Header: "X-Spam-Status: No, score=1.5 required=5.0 tests=A=1.0, B=0.5 autolearn=no\r\nX-Spam-Level: *\r\nX-Spam-Flag: NO\r\n",
	}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	filter := newFilter(t, "127.0.0.1:1", Options{MaxBytes: 10})
	v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("12345678901"))
	if err != nil || v.Action != smtp.Accept || len(v.Symbols) != 1 || v.Symbols[0].Name != "SPAMD_SKIPPED_BY_SIZE" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]*answer{
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1000.0 / 5.0\r\n\r\nGTUBE":                            {spam: true, score: 1000, required: 5, symbols: []smtp.Symbol{{Name: "GTUBE"}}},
		"SPAMD/1.5 0 EX_OK\nSpam: No ; -0.1 / 5\nContent-length: 2\n\nA,trailing":                {score: -0.1, required: 5, symbols: []smtp.Symbol{{Name: "A"}}},
		"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0 / 5\r\n\r\nnone\r\n":                               {required: 5},
		"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0 / 5\r\n\r\nA B\x00,\r\n":                           {required: 5, symbols: []smtp.Symbol{{Name: "A_B_"}}},
		"SPAMD/1.1 76 Bad header line: x\r\n\r\n":                                                nil,
		"SPAMD/1.1 0 EX_OK\r\n\r\n":                                                              nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: Maybe ; 1 / 2\r\n\r\n":                                       nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; NaN / 2\r\n\r\n":                                      nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1\r\n\r\n":                                            nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 2\r\nSpam: False ; 1 / 2\r\n\r\n":                 nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 2\r\nContent-length: 10\r\n\r\nA":                 nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 2\r\nContent-length: -1\r\n\r\nA":                 nil,
		"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 2\r\n":                                            nil,
		"HTTP/1.1 200 OK\r\n\r\n":                                                                nil,
		"":                                                                                       nil,
		"SPAMD/1.1 0 EX_OK\r\n" + strings.Repeat("X: y\r\n", 100) + "Spam: True ; 1 / 2\r\n\r\n": nil,
		strings.Repeat("x", 10_000):                                                              nil,
	} {
		got, err := parse(strings.NewReader(in), Symbols)
		if (err == nil) != (want != nil) {
			t.Errorf("%.80q: %+v, %v", in, got, err)
			continue
		}
		if want != nil && !cmp.Equal(*want, got, cmp.AllowUnexported(answer{})) {
			t.Errorf("%q: %+v, want %+v", in, got, *want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	ok := Options{Addresses: []string{"127.0.0.1:783"}, Timeout: time.Second}
	if _, err := New(ok); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*Options){
		func(o *Options) { o.Addresses = nil },
		func(o *Options) { o.Addresses = []string{"x"} },
		func(o *Options) { o.Timeout = 0 },
		func(o *Options) { o.Command = "PROCESS" },
		func(o *Options) { o.User = "a\r\nb" },
	} {
		o := ok
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%+v is fine", o)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("SPAMD/1.1 0 EX_OK\r\nContent-length: 4\r\nSpam: True ; 6.4 / 5.0\r\n\r\nA,B=1", false)
	f.Add("SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1 / 5.0\r\n\r\nX-Spam-Status: No, tests=A=1,\r\n B=2 x=y\r\n\r\n", true)
	f.Fuzz(func(t *testing.T, s string, headers bool) {
		command := Symbols
		if headers {
			command = Headers
		}
		a, err := parse(strings.NewReader(s), command)
		if err != nil {
			return
		}
		v := a.verdict(5)
		if strings.Contains(v.Header, "\r\n\r\n") || v.Header != "" && !strings.HasSuffix(v.Header, "\r\n") || strings.ContainsAny(v.Text, "\r\n") {
			t.Errorf("%q: %+v", s, v)
		}
		if len(v.Symbols) > maxSymbols {
			t.Errorf("%d symbols", len(v.Symbols))
		}
	})
}
