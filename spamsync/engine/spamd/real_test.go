package spamd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/integration/require"
	"understudy/smtp"
	"understudy/spamsync/engine/enginetest"
)

// A real SpamAssassin, without network tests, judges over all three commands.
func TestRealSpamd(t *testing.T) {
	t.Parallel()
	require.Command(t, "spamd")
	path, err := require.Find("spamd")
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		t.Skip("spamd takes a second to start")
	}
	dir := enginetest.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "local.cf"), []byte("required_score 5.0\nuse_bayes 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pres, err := filepath.Glob("/etc/spamassassin/*.pre")
	if err != nil {
		t.Fatal(err)
	}
	for _, pre := range pres {
		raw, err := os.ReadFile(pre)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(pre)), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	addr := enginetest.FreePort(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	server := enginetest.StartProcess(t, dir, path, "-L", "-x", "-s", "stderr", "-H", dir, "-i", host, "-p", port, "-m", "1",
		"--siteconfigpath="+dir, "-r", filepath.Join(dir, "pid"))
	server.WaitFor(t, addr, time.Minute)

	const head = "From: a@example.org\r\nTo: b@example.com\r\nSubject: hello\r\nDate: Mon, 21 Sep 2026 14:13:20 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n"
	const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
	for _, command := range []string{Check, Symbols, Headers} {
		filter := newFilter(t, addr, Options{Command: command, RejectScore: 100, Hostname: "mx2.example.com", Timeout: 20 * time.Second})
		v, err := filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(head+"Nothing to sell here, and no end of the line"))
		if err != nil || v.Action != smtp.Accept || v.Spam || v.Required != 5 {
			t.Errorf("%s: clean: %+v, %v", command, v, err)
		}
		v, err = filter.Check(t.Context(), enginetest.Envelope(), strings.NewReader(head+gtube))
		if err != nil || v.Action != smtp.Reject || v.Score < 900 || !v.Spam {
			t.Errorf("%s: GTUBE: %+v, %v", command, v, err)
		}
		names := ""
		for _, s := range v.Symbols {
			names += s.Name + " "
		}
		if strings.Contains(names, "GTUBE") != (command != Check) {
			t.Errorf("%s: symbols %q", command, names)
		}
	}
	mark := newFilter(t, addr, Options{Command: Headers, Timeout: 20 * time.Second})
	v, err := mark.Check(t.Context(), enginetest.Envelope(), strings.NewReader(head+gtube))
	if err != nil || v.Action != smtp.Accept || !v.Spam || !strings.Contains(v.Header, "X-Spam-Flag: YES\r\n") || !strings.Contains(v.Header, "X-Spam-Status: Yes, score=") ||
		strings.Contains(v.Header, "Envelope") {
		t.Errorf("%+v, %v", v, err)
	}
}
