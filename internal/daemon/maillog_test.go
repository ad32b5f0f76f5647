package daemon

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestMailLogHasPostfixForm(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newMailHandler(&b, slog.LevelInfo, false))
	for _, tc := range []struct {
		name string
		log  func()
		want string
	}{
		{"delivery", func() {
			log.Info("delivery", "queue_id", "0ABC", "from", "a@x", "to", "b@y", "relay", "mx1[192.0.2.1]:25",
				"delay", 0.4, "dsn", "2.0.0", "status", "sent", "reply", "250 2.0.0 Ok: queued as 77")
		}, "understudy/relay[PID]: 0ABC: from=<a@x>, to=<b@y>, relay=mx1[192.0.2.1]:25, delay=0.4, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 77)"},
		{
			"queued", func() { log.Info("queued", "queue_id", "0ABC", "from", "", "size", 512, "nrcpt", 2) },
			"understudy/queue[PID]: 0ABC: from=<>, size=512, nrcpt=2 (queue active)",
		},
		{"removed", func() { log.Info("removed", "queue_id", "0ABC") }, "understudy/queue[PID]: 0ABC: removed"},
		{"reject", func() {
			log.Info("reject", "stage", "RCPT", "client", "", "addr", "192.0.2.9", "code", 550, "enhanced", "5.1.1",
				"reason", "Recipient address rejected: no such user", "from", "a@x", "to", "n@y", "proto", "ESMTP", "helo", "h")
		}, "understudy/smtpd[PID]: NOQUEUE: reject: RCPT from unknown[192.0.2.9]: 550 5.1.1 <n@y>: Recipient address rejected: no such user; from=<a@x> to=<n@y> proto=ESMTP helo=<h>"},
		{
			"other", func() {
				log.With("site", "b").WithGroup("hop").Warn("hop is down", "name", "mx1", "err", "no route to host")
			},
			`understudy/daemon[PID]: warning: hop is down: site=b, hop.name=mx1, hop.err="no route to host"`,
		},
		{
			"forged line", func() { log.Info("removed", "queue_id", "0A\nNov 24 forged\x1b[2J") },
			"understudy/queue[PID]: 0A?Nov 24 forged?[2J: removed",
		},
		{"below the level", func() { log.Debug("noise") }, ""},
	} {
		b.Reset()
		tc.log()
		got := regexp.MustCompile(`\[\d+\]: `).ReplaceAllString(strings.TrimSuffix(b.String(), "\n"), "[PID]: ")
		// Only the first bracket is the process id; addresses keep theirs.
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

func TestMailLogStampsLinesOfAFile(t *testing.T) {
	var b bytes.Buffer
	slog.New(newMailHandler(&b, slog.LevelInfo, true)).Info("removed", "queue_id", "0A")
	if !regexp.MustCompile(`^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ understudy/queue\[\d+\]: 0A: removed\n$`).Match(b.Bytes()) {
		t.Errorf("line %q", b.String())
	}
}
