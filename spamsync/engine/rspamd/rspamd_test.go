package rspamd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
	"understudy/spamsync/engine/link"
)

// fake is a Rspamd that judges by SPAMWORD, or answers what it is told.
type fake struct {
	mu     sync.Mutex
	seen   string
	header http.Header
	answer string
	status int
}

func (f *fake) serve(c net.Conn, w io.Writer) {
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.seen, f.header = string(body), req.Header
		answer, status := f.answer, f.status
		f.mu.Unlock()
		if answer == "" {
			answer = `{"action":"no action","score":1.5,"required_score":15,"symbols":{"A":{"score":1.5}}}`
			if strings.Contains(string(body), "SPAMWORD") {
				answer = `{"action":"reject","score":20,"required_score":15,"symbols":{"SPAM\r\nX: y":{"score":20}},"messages":{"smtp_message":"no\r\n250 thanks"}}`
			}
		}
		if status == 0 {
			status = 200
		}
		_, err = fmt.Fprintf(w, "HTTP/1.1 %d X\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%s", status, len(answer), answer)
		if err != nil {
			return
		}
	}
}

func (f *fake) got() (string, http.Header) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen, f.header
}

func newFilter(t *testing.T, opt Options) *Filter {
	t.Helper()
	if opt.Timeout == 0 {
		opt.Timeout = 5 * time.Second
	}
	f, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T, b enginetest.Behaviour, timeout time.Duration) enginetest.Subject {
		t.Helper()
		f := &fake{}
		addr := enginetest.Start(t, b, f.serve)
		return enginetest.Subject{
			Filter:  newFilter(t, Options{URLs: []string{"http://" + addr}, Timeout: timeout, MaxAnswerBytes: 64 << 10}),
			Seen:    func() string { s, _ := f.got(); return s },
			Rejects: true,
		}
	})
}

func TestActions(t *testing.T) {
	t.Parallel()
	message := "A: 1\r\nA: 2\r\nA: 3\r\nSubject: x\r\n\r\n"
	for _, tc := range []struct {
		answer string
		want   smtp.Verdict
	}{
		{`{"action":"no action","score":-1,"required_score":15,"later":{"x":[1]}}`, smtp.Verdict{Score: -1, Required: 15}},
		{`{"action":"add header"}`, smtp.Verdict{Spam: true}},
		{`{"action":"rewrite subject","subject":"*** x\r\nEvil: 1"}`, smtp.Verdict{Spam: true, Edits: []smtp.HeaderEdit{{Op: smtp.ReplaceHeader, Name: "Subject", Value: "*** x Evil: 1"}}}},
		{`{"action":"rewrite subject"}`, smtp.Verdict{Spam: true}},
		{`{"action":"quarantine"}`, smtp.Verdict{Action: smtp.Quarantine, Spam: true}},
		{`{"action":"discard"}`, smtp.Verdict{Action: smtp.Quarantine, Spam: true, Text: "the engine said discard; nothing is dropped here"}},
		{`{"action":"soft reject"}`, smtp.Verdict{Action: smtp.Defer, Code: 451, Enhanced: "4.7.1", Text: "Try again later"}},
		{`{"action":"soft_reject","messages":{"smtp_message":"rate\nlimit"}}`, smtp.Verdict{Action: smtp.Defer, Code: 451, Enhanced: "4.7.1", Text: "rate limit"}},
		{`{"action":"greylist"}`, smtp.Verdict{Action: smtp.Defer, Code: 451, Enhanced: "4.7.1", Text: "Greylisted, please try again later"}},
		{`{"action":"reject","messages":[]}`, smtp.Verdict{Action: smtp.Reject, Code: 554, Enhanced: "5.7.1", Text: "Spam message rejected", Spam: true}},
		{`{"action":"reject","milter":{"reject":"quarantine"}}`, smtp.Verdict{Action: smtp.Quarantine, Spam: true}},
		{`{"action":"reject","milter":{"reject":"discard"}}`, smtp.Verdict{Action: smtp.Quarantine, Spam: true, Text: "the engine said discard; nothing is dropped here"}},
		{`{"action":"add header","milter":{"no_action":true}}`, smtp.Verdict{}},
		{`{"action":"no action","milter":[],"dkim-signature":null}`, smtp.Verdict{}},
		{`{"action":"no action","symbols":{"a":{"score":1},"b c\r\n":{"score":-2},"d":{"score":1}}}`, smtp.Verdict{Symbols: []smtp.Symbol{{Name: "b_c__", Score: -2}, {Name: "a", Score: 1}, {Name: "d", Score: 1}}}},
		{
			`{"action":"no action","dkim-signature":["v=1;\r\n\tb=x","v=2"],"milter":{
			"remove_headers":{"X-Spam":0,"A":[1,-1,-9]},
			"add_headers":{"First":{"value":"1","order":1},"Last":{"value":"z","order":-1},"Mid":{"value":"m","order":3},"Plain":"p","Two":["a",{"value":"b\r\n\r\nc"}],"Bad name":"x"}}}`,
			smtp.Verdict{
				Edits: []smtp.HeaderEdit{
					{Op: smtp.RemoveHeader, Name: "A", Index: 1},
					{Op: smtp.RemoveHeader, Name: "A", Index: 3},
					{Op: smtp.RemoveHeader, Name: "X-Spam"},
					{Op: smtp.AppendHeader, Name: "Last", Value: "z"},
					{Op: smtp.InsertHeader, Name: "Mid", Index: 3, Value: "m"},
				},
				Header: "DKIM-Signature: v=1;\r\n\tb=x\r\nDKIM-Signature: v=2\r\nFirst: 1\r\nPlain: p\r\nTwo: a\r\nTwo: b\r\n c\r\n",
			},
		},
	} {
		a, err := parse([]byte(tc.answer))
		if err != nil {
			t.Errorf("%s: %v", tc.answer, err)
			continue
		}
		got, err := a.verdict(func() ([]smtp.HeaderField, error) { return smtp.ReadHeader(strings.NewReader(message), 1000) })
		if err != nil {
			t.Errorf("%s: %v", tc.answer, err)
		}
		if tc.want.Symbols == nil {
			tc.want.Symbols = []smtp.Symbol{}
		}
		tc.want.Engine = "rspamd"
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.answer, d)
		}
	}
	for _, bad := range []string{
		"", " ", "{}", "[]", "null", `"reject"`, `{"action":null}`, `{"action":"explode"}`, `{"action":1}`, `{"action":"reject"`,
		`{"action":"reject"} trailing`, `{"action":"reject","score":"high"}`, `{"error":"no such worker"}`,
		`{"action":"no action","symbols":[1]}`, strings.Repeat("[", 100_000),
	} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%.40q is an answer", bad)
		}
	}
}

func TestEnvelopeIsTold(t *testing.T) {
	t.Parallel()
	f := &fake{}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("q1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	filter := newFilter(t, Options{
		URLs: []string{"http://" + enginetest.Start(t, enginetest.Judge, f.serve) + "/"}, Hostname: "mx2.example.com",
		PasswordFile: secret, AllRules: true, Settings: "outside",
	})
	if _, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, h := f.got()
	for name, want := range map[string]string{
		"Ip": "192.0.2.7", "Helo": "client.example.org", "Hostname": "client.example.org", "From": "<a@example.org>",
		"Queue-Id": "4fXyZ1", "User": "user", "Tls-Version": "TLSv1.3", "Tls-Cipher": "TLS_AES_128_GCM_SHA256",
		"Mta-Name": "mx2.example.com", "Flags": "milter", "Pass": "all", "Password": "q1", "Settings-Id": "outside",
		"Content-Length": "8",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := h.Values("Rcpt"); !slices.Equal(got, []string{"b@example.com", "c@example.com"}) {
		t.Errorf("Rcpt: %q", got)
	}
	// Without a reverse name there is no field: any word in it would pass for a name.
	nameless := enginetest.Envelope()
	nameless.Client.ReverseName = ""
	if _, err := filter.Check(t.Context(), nameless, strings.NewReader("A: b\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, h := f.got(); h.Values("Hostname") != nil || h.Get("Helo") == "" {
		t.Errorf("without a reverse name Rspamd is told %q", h.Values("Hostname"))
	}
	_ = os.Remove(secret)
	if _, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\n")); err == nil {
		t.Error("a check without the password")
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	for _, status := range []int{204, 403, 500, 503} {
		f := &fake{status: status, answer: `{"action":"no action"}`}
		filter := newFilter(t, Options{URLs: []string{"http://" + enginetest.Start(t, enginetest.Judge, f.serve)}})
		if v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\n")); err == nil {
			t.Errorf("status %d: %+v", status, v)
		}
	}
}

func TestFailoverAndReuse(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	conns := 0
	f := &fake{}
	good := enginetest.Listen(t, func(c net.Conn) {
		mu.Lock()
		conns++
		mu.Unlock()
		f.serve(c, c)
	})
	hung := enginetest.Start(t, enginetest.Hang, nil)
	filter := newFilter(t, Options{
		URLs: []string{"http://" + hung, "http://" + enginetest.Start(t, enginetest.Refuse, nil), "http://" + good}, Timeout: 900 * time.Millisecond, Rest: time.Hour,
	})
	for i := range 5 {
		began := time.Now()
		if _, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(enginetest.Message(i, "hello"))); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); i > 0 && d > 250*time.Millisecond {
			t.Errorf("message %d waited %v for a server that is known to hang", i, d)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if conns != 1 {
		t.Errorf("%d connections for 5 messages", conns)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(enginetest.Dir(t), "s.sock")
	l, err := net.Listen("unix", path) //nolint:noctx // closed by the test's end
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.seen = string(b)
		f.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"action": "no action"})
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }()
	filter := newFilter(t, Options{URLs: []string{"unix://" + path}})
	if _, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if seen, _ := f.got(); seen != "A: b\r\n\r\n" {
		t.Errorf("seen %q", seen)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"", "127.0.0.1:11333", "ftp://h", "http://", "http://h?x", "unix:rel", "http://u:secret@[h"} {
		_, err := New(Options{URLs: []string{u}, Timeout: time.Second})
		if err == nil {
			t.Errorf("%q is fine", u)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
	if _, err := New(Options{URLs: []string{"http://h"}}); err == nil {
		t.Error("no timeout is fine")
	}
	if _, err := New(Options{Timeout: time.Second}); err == nil {
		t.Error("no server is fine")
	}
}

// zeros is a message of that many bytes.
type zeros struct{ size, at int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.at >= z.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.size-z.at)
	for i := range p[:n] {
		p[i] = 'x'
	}
	z.at += n
	return int(n), nil
}

func (z *zeros) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		z.at = offset
	case io.SeekCurrent:
		z.at += offset
	case io.SeekEnd:
		z.at = z.size + offset
	}
	return z.at, nil
}

func TestHugeMessageIsStreamed(t *testing.T) {
	var got int64
	addr := enginetest.Listen(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		got, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"action\":\"no action\"}")
	})
	filter := newFilter(t, Options{URLs: []string{"http://" + addr}, Timeout: time.Minute})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := filter.Check(t.Context(), enginetest.Envelope(), &zeros{size: 100 << 20}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got != 100<<20 {
		t.Errorf("the server got %d bytes", got)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes allocated for a message of 100 MiB", n)
	}
}

func TestHugeAnswer(t *testing.T) {
	t.Parallel()
	f := &fake{answer: `{"action":"no action","x":"` + strings.Repeat("x", 100_000) + `"}`}
	filter := newFilter(t, Options{URLs: []string{"http://" + enginetest.Start(t, enginetest.Judge, f.serve)}, MaxAnswerBytes: 100_000})
	if _, err := filter.Check(context.Background(), enginetest.Envelope(), strings.NewReader("A: b\r\n\r\n")); !errors.Is(err, link.ErrTooLong) {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"action":"rewrite subject","subject":"s","score":1,"symbols":{"A":{"score":1}},"milter":{"add_headers":{"X":[{"value":"a","order":2}]},"remove_headers":{"A":[1,-1]}},"dkim-signature":"x"}`))
	f.Add([]byte(`{"action":"reject","messages":{"smtp_message":"x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parse(raw)
		if err != nil {
			return
		}
		v, err := a.verdict(func() ([]smtp.HeaderField, error) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(v.Text, "\r\n\x00") || strings.Contains(v.Header, "\r\n\r\n") || v.Action == smtp.Reject && v.Code/100 != 5 || v.Action == smtp.Defer && v.Code/100 != 4 {
			t.Errorf("%q: %+v", raw, v)
		}
		if _, err := json.Marshal(v); err != nil {
			t.Error(err)
		}
	})
}
