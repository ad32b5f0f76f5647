//go:build soak

package integration

import (
	"math/rand/v2"
	"testing"

	"understudy/imapsync"
	"understudy/integration/mailpair"
	"understudy/integration/servers"
)

// TestMailsyncOverQuota fails since markers are written in each pass: a full side
// cannot take one, and the pass ends there.
func TestMailsyncOverQuota(t *testing.T) {
	t.Parallel()
	m := onServers(t, servers.DovecotIMAP(t, "ssl = no"), servers.DovecotIMAP(t, "ssl = no", "mail_plugins = quota",
		"plugin {", "quota = maildir:User quota", "quota_rule = *:storage=100K", "}"))
	mail := mailpair.Corpus(rand.New(rand.NewPCG(5, 5)), "q", 60)
	m.load(imapsync.A, "INBOX", mail)
	report := m.pass()
	if len(report.Faults) == 0 || report.Faults[0].Kind != "over-quota" || deletedBy(report) != 0 || report.Clean() {
		t.Errorf("%+v", report)
	}
	if n := m.read(imapsync.A).Total(); n != 60 {
		t.Errorf("%d messages left on A", n)
	}
	b := m.read(imapsync.B).Total()
	if b == 0 || b == 60 {
		t.Errorf("%d messages on B", b)
	}
	// Somebody makes room: the rest follows, nothing twice.
	m.do(imapsync.A, `SELECT INBOX`, `UID STORE 1:40 +FLAGS.SILENT (\Deleted)`, `UID EXPUNGE 1:40`)
	m.cfg.Guard.Off = true
	m.settle()
	for sum, n := range sums(m.read(imapsync.B)) {
		if n != 1 {
			t.Errorf("%s is there %d times", sum, n)
		}
	}
}
