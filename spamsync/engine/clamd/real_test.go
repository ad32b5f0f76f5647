package clamd

import (
	"fmt"
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

// A real clamd with one signature of our own, no downloaded ones: it finds what the
// signature says, within an attachment too, and says when a message is too long.
func TestRealClamd(t *testing.T) {
	t.Parallel()
	require.Command(t, "clamd")
	path, err := require.Find("clamd")
	if err != nil {
		t.Fatal(err)
	}
	dir := enginetest.Dir(t)
	addr := enginetest.FreePort(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	const marker = "UNDERSTUDY-MALWARE-MARKER"
	for name, text := range map[string]string{
		"own.ndb":    fmt.Sprintf("Lab.Marker-1:0:*:%x\n", marker), // any file type, any offset
		"clamd.conf": fmt.Sprintf("Foreground yes\nDatabaseDirectory %s\nTCPAddr %s\nTCPSocket %s\nStreamMaxLength 1M\nOfficialDatabaseOnly no\n", dir, host, port),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := enginetest.StartProcess(t, dir, path, "--config-file="+filepath.Join(dir, "clamd.conf"))
	server.WaitFor(t, addr, 20*time.Second)
	f := newFilter(t, addr, Options{AcceptOversize: true})
	if err := f.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	attached := "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n" +
		"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		"eCBVTkRFUlNUVURZLU1BTFdBUkUtTUFSS0VSIHg=\r\n--b--\r\n" // "x " + marker + " x"
	for _, tc := range []struct {
		name, message string
		action        smtp.Action
		symbol        string
	}{
		{"clean", enginetest.Message(1, "hello"), smtp.Accept, ""},
		{"marked", enginetest.Message(2, marker), smtp.Reject, "CLAMD_Lab.Marker-1.UNOFFICIAL"},
		{"marked attachment", "From: a@example.org\r\nMIME-Version: 1.0\r\n" + attached, smtp.Reject, "CLAMD_Lab.Marker-1.UNOFFICIAL"},
		{"empty", "", smtp.Accept, ""},
		{"too long", "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100_000), smtp.Accept, "CLAMD_OVERSIZE"},
	} {
		v, err := f.Check(t.Context(), enginetest.Envelope(), strings.NewReader(tc.message))
		symbol := ""
		if len(v.Symbols) > 0 {
			symbol = v.Symbols[0].Name
		}
		if err != nil || v.Action != tc.action || symbol != tc.symbol {
			t.Errorf("%s: %+v, %v", tc.name, v, err)
		}
	}
	server.Stop()
	if v, err := f.Check(t.Context(), enginetest.Envelope(), strings.NewReader("Subject: x\r\n\r\n")); err == nil {
		t.Errorf("a verdict of a clamd that is gone: %+v", v)
	}
}
