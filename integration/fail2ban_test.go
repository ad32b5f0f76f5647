package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"understudy/integration/require"
)

// refusals are lines as the daemon writes them to a file and to the journal; the
// last one is a 4xx, whose client was asked to come back.
const refusals = `Nov 24 14:10:00 mx2 understudy/smtpd[71]: NOQUEUE: reject: RCPT from unknown[192.0.2.9]: 550 5.1.1 <x@example.com>: Recipient address rejected: User unknown; from=<a@example.net> to=<x@example.com> proto=ESMTP helo=<h>
Nov 24 14:10:01 mx2 understudy[71]: understudy/smtpd[71]: NOQUEUE: reject: RCPT from mail.example.net[2001:db8::9]: 554 5.7.1 <y@example.org>: Relay access denied; from=<> to=<y@example.org> proto=ESMTPS helo=<h>
Nov 24 14:10:02 mx2 understudy/smtpd[71]: NOQUEUE: reject: RCPT from unknown[192.0.2.10]: 450 4.1.1 <x@example.com>: Recipient address rejected: try again later; from=<a@example.net> to=<x@example.com> proto=ESMTP helo=<h>
`

// TestFail2banFilter runs the shipped filter over refusals.
func TestFail2banFilter(t *testing.T) {
	require.Command(t, "fail2ban-regex")
	dir := t.TempDir()
	for name, from := range map[string]string{
		"understudy.conf": "../docs/fail2ban/understudy.conf",
		"common.conf":     "/etc/fail2ban/filter.d/common.conf",
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte(refusals), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "fail2ban-regex", log, filepath.Join(dir, "understudy.conf")).CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-regex: %v\n%s", err, out)
	}
	if !regexp.MustCompile(`Lines: 3 lines, 0 ignored, 2 matched, 1 missed`).Match(out) {
		t.Errorf("the filter did not match the two 5xx and leave the 4xx:\n%s", out)
	}
}
