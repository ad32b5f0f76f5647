package integration

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"understudy/imapsync"
	"understudy/integration/mailpair"
	"understudy/integration/servers"
)

// TestMailsyncMixed keeps a Dovecot and a Cyrus equal: a first copy both ways, then
// moves, flags, deletions and a new folder on either.
func TestMailsyncMixed(t *testing.T) {
	t.Parallel()
	m := onServers(t, servers.DovecotIMAP(t, "ssl = no"), servers.Cyrus(t))
	m.cfg.Guard.Off = true
	rnd := rand.New(rand.NewPCG(4, 4))
	batch := func(name string, n int) (out []mailpair.Mail) {
		for i := range n {
			out = append(out, mailpair.NewMail(rnd, fmt.Sprintf("%s-%d", name, i), 300+rnd.IntN(3000)))
		}
		return out
	}
	m.load(imapsync.A, "INBOX", batch("dovecot", 60))
	m.load(imapsync.A, "Archive", batch("archive", 40))
	m.load(imapsync.B, "INBOX", batch("cyrus", 30))
	m.settle()
	if n := m.equal().Total(); n != 130 {
		t.Fatalf("%d messages, want 130", n)
	}
	m.do(imapsync.A, "SELECT INBOX", "UID MOVE 1:20 Archive", `UID STORE 21:25 +FLAGS.SILENT (\Flagged $Work)`)
	m.do(imapsync.B, "SELECT Archive", `UID STORE 1:3 +FLAGS.SILENT (\Deleted)`, "UID EXPUNGE 1:3", "UID MOVE 4:8 INBOX")
	m.load(imapsync.B, "New", batch("new", 5))
	report := m.settleSum()
	if n := m.equal().Total(); n != 132 {
		t.Errorf("%d messages, want 132", n)
	}
	if report.Sides[imapsync.B].Moved != 20 || report.Sides[imapsync.A].Moved != 5 {
		t.Errorf("moved: %+v", report.Sides)
	}
}
