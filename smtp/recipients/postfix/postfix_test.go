package postfix_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/smtp"
	"understudy/smtp/recipients/postfix"
)

// book is a Recipients with a few addresses.
type book struct{}

func (book) Lookup(_ context.Context, a string) (smtp.Disposition, error) {
	switch a {
	case "user@example.com", "user+ext@example.com":
		return smtp.Exists, nil
	case "stale@example.com":
		return smtp.Unsure, nil
	case "broken@example.com":
		return smtp.Unknown, errors.New("no")
	}
	return smtp.Unknown, nil
}

type world struct {
	t                 *testing.T
	socketmap, policy string
}

func start(t *testing.T) *world {
	t.Helper()
	domains, err := smtp.NewDomains([]string{"example.com", "noroute.example", "broken.example"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := postfix.NewServer(postfix.DefaultConfig(), postfix.Deps{
		Domains: domains, Recipients: book{}, Logger: slog.New(slog.DiscardHandler),
		Route: func(_ context.Context, domain string) (string, error) {
			switch domain {
			case "noroute.example":
				return "", nil
			case "broken.example":
				return "", errors.New("no view yet")
			}
			return "smtp://mx1.example.net:2525", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	serve := func(f func(context.Context, net.Listener) error) string {
		l, err := postfix.Listen(t.Context(), "inet:127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- f(ctx, l) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	return &world{t, serve(s.ServeSocketmap), serve(s.ServePolicy)}
}

// ask sends all bytes at once and returns all that comes back.
func (w *world) ask(addr, request string) string {
	w.t.Helper()
	c, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	// A server that has seen enough closes, and what it did not read resets.
	if _, err := io.WriteString(c, request); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		w.t.Fatal(err)
	}
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.CloseWrite()
	}
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatal(err)
	}
	return string(b)
}

func netstring(s string) string { return fmt.Sprintf("%d:%s,", len(s), s) }

func TestSocketmap(t *testing.T) {
	t.Parallel()
	w := start(t)
	for _, tc := range []struct{ request, want string }{
		{"domains example.com", "OK example.com"},
		{"domains EXAMPLE.com", "OK EXAMPLE.com"},
		{"domains other.example", "NOTFOUND "},
		{"domains ", "NOTFOUND "},
		{"recipients user@example.com", "OK user@example.com"},
		{"recipients user+ext@example.com", "OK user+ext@example.com"},
		{"recipients nobody@example.com", "NOTFOUND "},
		{"recipients stale@example.com", "TEMP recipient cannot be verified now"},
		{"recipients broken@example.com", "TEMP recipient cannot be verified now"},
		{"recipients postmaster@example.com", "OK postmaster@example.com"},
		{"recipients @example.com", "NOTFOUND "},
		{"recipients user", "NOTFOUND "},
		{"recipients user@other.example", "NOTFOUND "},
		{"route user@example.com", "OK smtp:[mx1.example.net]:2525"},
		{`route "a@b"@EXAMPLE.com`, "OK smtp:[mx1.example.net]:2525"},
		{"route user@other.example", "NOTFOUND "},
		{"route user@", "NOTFOUND "},
		{"route example.com", "OK smtp:[mx1.example.net]:2525"},
		{"route noroute.example", "NOTFOUND "},
		{"route broken.example", "TEMP there is no route at the moment"},
		{"route other.example", "NOTFOUND "},
		{"route *", "NOTFOUND "},
		{"nothing key", "PERM no such map: nothing"},
	} {
		if got := w.ask(w.socketmap, netstring(tc.request)); got != netstring(tc.want) {
			t.Errorf("%s: got %q, want %q", tc.request, got, netstring(tc.want))
		}
	}
	// Several requests on one connection.
	if got := w.ask(w.socketmap, netstring("domains example.com")+netstring("domains x")); got != netstring("OK example.com")+netstring("NOTFOUND ") {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"x", ":x,", "01:x,", "5:abc", "3:abc", "19:domains example.com;", "99999999999999999999:", "3:abc,", "-1:x,", strings.Repeat("1", 1<<20)} {
		if got := w.ask(w.socketmap, bad); got != "" {
			t.Errorf("%.20q: got %q", bad, got)
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	w := start(t)
	request := func(state, recipient string) string {
		return "request=smtpd_access_policy\nprotocol_state=" + state + "\nprotocol_name=ESMTP\nsender=a@b\nrecipient=" + recipient + "\nclient_address=192.0.2.1\n\n"
	}
	for _, tc := range []struct{ request, want string }{
		{request("RCPT", "user@example.com"), "action=DUNNO\n\n"},
		{request("RCPT", "nobody@example.com"), "action=550 5.1.1 User unknown\n\n"},
		{request("RCPT", "stale@example.com"), "action=450 4.1.1 Recipient cannot be verified now, please try later\n\n"},
		{request("RCPT", "broken@example.com"), "action=450 4.1.1 Recipient cannot be verified now, please try later\n\n"},
		{request("RCPT", "x@other.example"), "action=DUNNO\n\n"},
		{request("RCPT", "Postmaster@example.com"), "action=DUNNO\n\n"},
		{request("RCPT", ""), "action=DUNNO\n\n"},
		{request("DATA", "nobody@example.com"), "action=DUNNO\n\n"},
		{request("RCPT", "user@example.com") + request("RCPT", "nobody@example.com"), "action=DUNNO\n\naction=550 5.1.1 User unknown\n\n"},
		{"\n", ""},
		{"request=other\n\n", ""},
		{"no equals sign\n\n", ""},
		{"request=smtpd_access_policy\n", ""},
		{"a=" + strings.Repeat("x", 1<<20), ""},
		{strings.Repeat("a=b\n", 1000), ""},
	} {
		if got := w.ask(w.policy, tc.request); got != tc.want {
			t.Errorf("%.80q: got %q, want %q", tc.request, got, tc.want)
		}
	}
}

// Postfix itself asks.
func TestSocketmapByPostmap(t *testing.T) {
	t.Parallel()
	postmap, err := exec.LookPath("postmap")
	if err != nil {
		if postmap, err = exec.LookPath("/usr/sbin/postmap"); err != nil {
			t.Skip("no postmap here")
		}
	}
	w := start(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte("compatibility_level = 3.6\nmaillog_file = /dev/stdout\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, key, want string
		ok              bool
	}{
		{"recipients", "user@example.com", "user@example.com", true},
		{"recipients", "nobody@example.com", "", false},
		{"recipients", "stale@example.com", "", false},
		{"route", "example.com", "smtp:[mx1.example.net]:2525", true},
		{"route", "user@example.com", "smtp:[mx1.example.net]:2525", true},
		{"domains", "example.com", "example.com", true},
	} {
		cmd := exec.CommandContext(t.Context(), postmap, "-c", dir, "-q", tc.key, "socketmap:inet:"+w.socketmap+":"+tc.name)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); (err == nil) != tc.ok || tc.ok && got != tc.want {
			t.Errorf("%s %s: %q %v", tc.name, tc.key, got, err)
		} else if tc.key == "stale@example.com" && !strings.Contains(got, "cannot be verified") {
			t.Errorf("%s: no temporary failure: %q", tc.key, got)
		}
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"smtp://mx1.example.net:25": "smtp:[mx1.example.net]:25",
		"smtp://mx1.example.net":    "smtp:[mx1.example.net]:25",
		"smtp://[2001:db8::1]:26":   "smtp:[ipv6:2001:db8::1]:26",
		"lmtp://127.0.0.1:24":       "lmtp:[127.0.0.1]:24",
		"lmtp:///run/dovecot/lmtp":  "lmtp:unix:/run/dovecot/lmtp",
		"smtp:///x":                 "",
		"http://x":                  "",
		"mx1":                       "",
		"smtp://%":                  "",
	} {
		got, err := postfix.Transport(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q %v, want %q", in, got, err, want)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := postfix.Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postfix.Listen(t.Context(), "unix:"+path); err == nil {
		t.Error("took the socket of a living server")
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false) // as after a crash
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = postfix.Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := postfix.Listen(t.Context(), "unix:"+path); err == nil {
		t.Error("removed what is no socket")
	}
	cfg := postfix.DefaultConfig()
	cfg.Socketmap = []string{"x", "unix:rel", "inet:1"}
	cfg.MaxConnections = 0
	if err := cfg.Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("faults: %v", err)
	}
}
