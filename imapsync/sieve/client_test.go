package sieve

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"understudy/imapsync/wire"
)

// play serves one connection: script is what the server sends, and "<" lines what
// it must read first, in order.
func play(t *testing.T, script ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's own
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // a test's own
		r := bufio.NewReader(conn)
		for _, step := range script {
			if want, ok := strings.CutPrefix(step, "<"); ok {
				line, err := r.ReadString('\n')
				if err != nil || strings.TrimRight(line, "\r\n") != want {
					t.Errorf("the client sent %q, %v, want %q", line, err, want)
					return
				}
				continue
			}
			if _, err := io.WriteString(conn, step); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, conn) // until the client leaves
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) (*Client, error) {
	t.Helper()
	c, err := Dial(t.Context(), addr, wire.Config{Address: "imap://127.0.0.1"}, wire.Login{User: "joe", Secret: "pw"})
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

const greeting = "\"IMPLEMENTATION\" \"x\"\r\n\"SASL\" \"LOGIN PLAIN\"\r\n\"SIEVE\" \"fileinto\"\r\nOK \"ready\"\r\n"

func TestDialogue(t *testing.T) {
	t.Parallel()
	c, err := dial(t, play(
		t, greeting,
		`<AUTHENTICATE "PLAIN" "AGpvZQBwdw=="`, "OK\r\n",
		"<LISTSCRIPTS", "\"one\"\r\n\"t\\\"wo\" ACTIVE\r\n{5}\r\nthree\r\nOK \"done\"\r\n",
		`<GETSCRIPT "t\"wo"`, "{12}\r\nkeep;\r\n\"x\"\r\n\r\nOK\r\n",
		`<PUTSCRIPT "new" {4+}`, "<stop", "NO (QUOTA/MAXSIZE) \"too long\"\r\n",
		`<SETACTIVE ""`, "OK (WARNINGS) {4}\r\nfine\r\n",
		`<DELETESCRIPT "one"`, "BYE \"going down\"\r\n",
	))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	names, active, err := c.List(ctx)
	if diff := cmp.Diff([]string{"one", `t"wo`, "three"}, names); diff != "" || active != `t"wo` || err != nil {
		t.Errorf("list: %v, active %q\n%s", err, active, diff)
	}
	if text, err := c.Get(ctx, `t"wo`); text != "keep;\r\n\"x\"\r\n" || err != nil {
		t.Errorf("get: %q, %v", text, err)
	}
	var refusal *RefusalError
	if err := c.Put(ctx, "new", "stop"); !errors.As(err, &refusal) || !strings.Contains(refusal.Text, "too long") {
		t.Errorf("put: %v", err)
	}
	if err := c.Activate(ctx, ""); err != nil {
		t.Errorf("activate: %v", err)
	}
	if err := c.Delete(ctx, "one"); err == nil || errors.As(err, &refusal) || !strings.Contains(err.Error(), "going down") {
		t.Errorf("delete: %v", err)
	}
}

// What a broken or hostile server sends ends the session with an error, soon and
// in bounded memory.
func TestHostileServers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script []string
		want   string
	}{
		"no greeting":         {[]string{"* OK IMAP4rev1 ready\r\n"}, "not ManageSieve"},
		"endless line":        {[]string{`"` + strings.Repeat("x", 1<<20)}, "quoted string without end"},
		"huge literal":        {[]string{"{4000000000}\r\n"}, "not ManageSieve"},
		"negative literal":    {[]string{"{-1}\r\n"}, "not ManageSieve"},
		"endless capability":  {[]string{strings.Repeat("\"X\" \"y\"\r\n", 200)}, "too many capabilities"},
		"no mechanism":        {[]string{"\"SASL\" \"GSSAPI\"\r\nOK\r\n"}, `offers "GSSAPI"`},
		"wrong password":      {[]string{greeting, `<AUTHENTICATE "PLAIN" "AGpvZQBwdw=="`, "NO \"bad\"\r\n"}, "refused: bad"},
		"challenge for ever":  {[]string{greeting, strings.Repeat("\"\"\r\n", 50)}, ""},
		"line in plain text":  {[]string{"\"STARTTLS\"\r\nOK\r\n", "<STARTTLS", "OK\r\n\"SASL\" \"PLAIN\"\r\n"}, ""},
		"closes without word": {[]string{"\"SASL\" \"PLAIN\"\r\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			addr := play(t, tc.script...)
			c, err := Dial(ctx, addr, wire.Config{Address: "imap://127.0.0.1"}, wire.Login{User: "joe", Secret: "pw"})
			if err == nil {
				_ = c.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q", err, tc.want)
			}
		})
	}
}

func TestPlainTextOnlyHere(t *testing.T) {
	t.Parallel()
	addr := play(t, greeting)
	_, err := Dial(t.Context(), addr, wire.Config{Address: "imap://192.0.2.1"}, wire.Login{User: "joe", Secret: "pw"})
	if err == nil || !strings.Contains(err.Error(), "plain text is not permitted") {
		t.Errorf("error %v", err)
	}
}
