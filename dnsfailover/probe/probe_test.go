package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// limit is the time limit of probes that are to run into it.
const limit = 300 * time.Millisecond

// server answers each connection with serve.
func server(t *testing.T, serve func(c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	return ln.Addr().String()
}

// script says greeting, then the answer of the first word (IMAP: of the second)
// of each line; %t is the tag. A missing answer hangs.
func script(t *testing.T, greeting string, answers map[string]string) string {
	t.Helper()
	return server(t, func(c net.Conn, in *bufio.Reader) {
		_, _ = fmt.Fprint(c, greeting)
		for {
			text, err := in.ReadString('\n')
			if err != nil {
				return
			}
			words := strings.Fields(text)
			for len(words) < 2 {
				words = append(words, "")
			}
			a, ok := answers[strings.ToUpper(words[0])]
			if !ok {
				a, ok = answers[strings.ToUpper(words[1])]
			}
			if ok {
				_, _ = fmt.Fprint(c, strings.ReplaceAll(a, "%t", words[0]))
			}
		}
	})
}

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// check tries one probe; want is part of the reason, empty for success. It fails
// where the probe takes longer than it may.
func check(t *testing.T, c Config, want string) {
	t.Helper()
	s, err := New([]Config{c})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err = s.Probe(t.Context())
	took := time.Since(begin)
	switch {
	case want == "" && err != nil:
		t.Errorf("failed: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("reason %v, want %q in it", err, want)
	}
	if took > c.Timeout+2*time.Second {
		t.Errorf("took %s, its limit is %s", took, c.Timeout)
	}
	r := s.Results()
	if len(r) != 1 || r[0].At.IsZero() || (r[0].Err == nil) != (want == "") || r[0].Name == "" {
		t.Errorf("results %+v", r)
	}
}

func with(base map[string]string, key, answer string) map[string]string {
	out := maps.Clone(base)
	if answer == "" {
		delete(out, key)
	} else {
		out[key] = answer
	}
	return out
}

var goodSMTP = map[string]string{
	"EHLO": "250-mx greets you\r\n250 PIPELINING\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n", "RSET": "250 ok\r\n", "QUIT": "221 bye\r\n",
}

func TestSMTP(t *testing.T) {
	t.Parallel()
	const banner = "220 mx ESMTP\r\n"
	for name, tc := range map[string]struct {
		greeting string
		answers  map[string]string
		want     string
	}{
		"works":                {banner, goodSMTP, ""},
		"hangs at once":        {"", goodSMTP, "banner: not done within"},
		"hangs at RCPT":        {banner, with(goodSMTP, "RCPT", ""), "RCPT: not done within"},
		"defers":               {banner, with(goodSMTP, "RCPT", "451 4.3.0 later\r\n"), "RCPT: 451 4.3.0 later"},
		"refuses everybody":    {"554 no\r\n", goodSMTP, "banner: 554"},
		"no SMTP":              {"SSH-2.0-x\r\n", goodSMTP, "no SMTP reply"},
		"a line without end":   {strings.Repeat("2", 1<<20), goodSMTP, "a line of more than"},
		"a banner without end": {strings.Repeat("220-x\r\n", 1000), goodSMTP, "without end"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, Config{Address: script(t, tc.greeting, tc.answers), Recipient: "probe@example.com", Timeout: limit}, tc.want)
		})
	}
}

// TestSlowServer: a server that sends something all the time still has a limit.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	addr := server(t, func(c net.Conn, _ *bufio.Reader) {
		for {
			if _, err := fmt.Fprint(c, "220-x\r\n"); err != nil {
				return
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	check(t, Config{Address: addr, Timeout: limit}, "banner: not done within 300ms")
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	check(t, Config{Address: addr, Timeout: limit}, "connect")
	check(t, Config{Kind: Redis, Address: addr, Timeout: limit}, "connect")
	check(t, Config{Kind: HTTP, URL: "http://" + addr + "/", Timeout: limit}, "GET")
}

var goodIMAP = map[string]string{
	"LOGIN": "%t OK in\r\n", "EXAMINE": "* 1 EXISTS\r\n%t OK [READ-ONLY] done\r\n", "LOGOUT": "* BYE\r\n%t OK bye\r\n",
}

func TestIMAP(t *testing.T) {
	t.Parallel()
	const greeting = "* OK ready\r\n"
	for name, tc := range map[string]struct {
		greeting string
		answers  map[string]string
		want     string
	}{
		"works":           {greeting, goodIMAP, ""},
		"hangs at once":   {"", goodIMAP, "greeting: not done within"},
		"hangs at LOGIN":  {greeting, with(goodIMAP, "LOGIN", ""), "LOGIN: not done within"},
		"password":        {greeting, with(goodIMAP, "LOGIN", "%t NO wrong\r\n"), "LOGIN: NO wrong"},
		"mailbox is gone": {greeting, with(goodIMAP, "EXAMINE", "%t NO no such mailbox\r\n"), "SELECT: NO no such"},
		"hangs at SELECT": {greeting, with(goodIMAP, "EXAMINE", "* 1 EXISTS\r\n"), "SELECT: not done within"},
		"says goodbye":    {"* BYE overloaded\r\n", goodIMAP, "greeting: * BYE overloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, Config{
				Kind: IMAP, Address: script(t, tc.greeting, tc.answers), User: `jo"e`, PasswordFile: secretFile(t), Timeout: limit,
			}, tc.want)
		})
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "Welcome to webmail") })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "Oops... internal error") })
	mux.HandleFunc("/500", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	for path, want := range map[string]string{"/good": "", "/broken": `"Welcome" is not in it`, "/500": "500", "/hang": "page: not done within", "/none": "404"} {
		check(t, Config{Kind: HTTP, URL: srv.URL + path, Expect: "Welcome", Timeout: limit}, want)
	}
	// The name may point at the other site: address says which one is meant.
	check(t, Config{Kind: HTTP, URL: "http://webmail.example.net/good", Address: srv.Listener.Addr().String(), Expect: "Welcome", Timeout: limit}, "")
	secure := httptest.NewTLSServer(mux)
	t.Cleanup(secure.Close)
	check(t, Config{Kind: HTTP, URL: secure.URL + "/good", Timeout: limit}, "certificate")
	check(t, Config{Kind: HTTP, URL: secure.URL + "/good", InsecureTLS: true, Timeout: limit}, "")
}

func TestRedis(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ answer, want string }{
		"works":      {"+PONG\r\n", ""},
		"loads":      {"-LOADING Redis is loading the dataset in memory\r\n", "PING: -LOADING"},
		"disk fails": {"-MISCONF Errors writing to the AOF file\r\n", "PING: -MISCONF"},
		"hangs":      {"", "PING: not done within"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, Config{Kind: Redis, Address: script(t, "", map[string]string{"PING": tc.answer}), Timeout: limit}, tc.want)
		})
	}
	check(t, Config{
		Kind: Redis, Address: script(t, "", map[string]string{"AUTH": "", "SECRET": "-WRONGPASS invalid\r\n"}), PasswordFile: secretFile(t), Timeout: limit,
	}, "AUTH: -WRONGPASS")
}

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, Config{Kind: Disk, Path: dir, MinFree: 1, Timeout: 10 * time.Second}, "")
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("the probe left %v, %v", left, err)
	}
	check(t, Config{Kind: Disk, Path: filepath.Join(dir, "gone"), Timeout: limit}, "no such file")
	check(t, Config{Kind: Disk, Path: "/proc", Timeout: limit}, "create")
}

// TestHangingDisk: one try waits for a disk that hangs, the next ones say so.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	p := &diskProbe{c: Config{Path: t.TempDir()}, since: time.Now().Add(-time.Minute)}
	if err := p.try(t.Context()); err == nil || !strings.Contains(err.Error(), "has not answered for 1m0s") {
		t.Errorf("reason %v", err)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		command      []string
		expect, want string
	}{
		"works":       {[]string{"true"}, "", ""},
		"fails":       {[]string{"sh", "-c", "echo replication lags >&2; exit 3"}, "", "exit status 3: replication lags"},
		"hangs":       {[]string{"sh", "-c", "sleep 60 & wait"}, "", "run: not done within"},
		"says enough": {[]string{"echo", "all is well"}, "well", ""},
		"is silent":   {[]string{"true"}, "well", `"well" is not in its output`},
		"is missing":  {[]string{"/nonexistent"}, "", "no such file"},
		"babbles":     {[]string{"sh", "-c", "head -c 1000000 /dev/zero"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, Config{Kind: Command, Command: tc.command, Expect: tc.expect, Timeout: time.Second}, tc.want)
		})
	}
}

// TestSetNamesEveryFailure: all probes run at once, and each that fails is named.
func TestSetNamesEveryFailure(t *testing.T) {
	t.Parallel()
	hang := script(t, "", nil)
	s, err := New([]Config{
		{Name: "first", Address: hang, Timeout: limit}, {Kind: Command, Command: []string{"true"}, Timeout: time.Second}, {Name: "third", Address: hang, Timeout: limit},
	})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err = s.Probe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "first: banner") || !strings.Contains(err.Error(), "third: banner") || strings.Contains(err.Error(), "command") {
		t.Errorf("reasons %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("two limits of %s one after the other: %s", limit, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestHysteresis(t *testing.T) {
	t.Parallel()
	var h Hysteresis
	for i, step := range []struct {
		results string // + and -
		well    bool   // after the last
	}{
		{"--", true}, {"+", true}, {"--", true}, {"-", false}, // three in a row
		{"+++++++++", false}, {"-", false}, {"+++++++++", false}, {"+", true}, // ten in a row
		{"--+--+--", true},
	} {
		well := true
		for _, r := range step.results {
			well = h.Observe(r == '+')
		}
		if well != step.well {
			t.Errorf("step %d, %s: well %v", i, step.results, well)
		}
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	list := []Config{
		{Name: "own"}, {Name: "both", Site: "a"}, {Name: "self", Site: "a", From: FromSelf}, {Name: "peer", Site: "a", From: FromPeer}, {Name: "other", Site: "b"},
	}
	for who, want := range map[[2]string]string{
		{"a", "a"}: "own both self", {"b", "a"}: "both peer", {"b", "b"}: "own other", {"a", "b"}: "other",
	} {
		var got []string
		for _, c := range About(list, who[0], who[1]) {
			got = append(got, c.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s about %s: %q, want %q", who[0], who[1], got, want)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		c    Config
		keys []string
	}{
		{Config{Kind: "x"}, []string{"kind:"}},
		{Config{Address: "x", Recipient: "a b", From: "x", Timeout: time.Hour}, []string{"address:", "recipient:", "from:", "timeout:"}},
		{Config{Kind: Mail, TLS: "x"}, []string{"address:", "user:", "password_file:", "lmtp:", "recipient:", "tls:"}},
		{Config{Kind: HTTP, URL: "ftp://x", Address: "x"}, []string{"url:", "address:"}},
		{Config{Kind: Disk, Path: "x", MinFree: 99}, []string{"path:", "min_free_percent:"}},
		{Config{Kind: Command}, []string{"command:"}},
	} {
		err := tc.c.Validate()
		for _, k := range tc.keys {
			if err == nil || !strings.Contains(err.Error(), k) {
				t.Errorf("%+v: no word of %s in: %v", tc.c, k, err)
			}
		}
	}
}

// FuzzDialogue: whatever a server says, the probe ends.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte("* OK\r\np1 OK\r\n* SEARCH 1\r\np2 OK\r\n"))
	f.Add([]byte("* 1 FETCH (BODY[] {5}\r\nabcde)\r\np1 OK\r\n"))
	f.Add([]byte("* {999999999}\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(in)
			_ = far.Close()
		}()
		s := &session{conn: &conn{Conn: deafTo{near}, stop: func() bool { return true }}}
		s.reset()
		uids, err := s.search("X", "y", "")
		if err == nil && !strings.Contains(string(in), "p1 OK") {
			t.Errorf("%q ended well from %q", uids, in)
		}
		_ = near.Close()
	})
}

// deafTo does not mind that nobody reads.
type deafTo struct{ net.Conn }

// Write implements net.Conn.
func (deafTo) Write(p []byte) (int, error) { return len(p), nil }
