package integration

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/integration/lab"
	"understudy/integration/mailpair"
	"understudy/integration/servers"
)

// mailDir is where a Dovecot keeps our account.
func (m *mailSync) mailDir(s imapsync.Side) string {
	return filepath.Join(m.server[s].Dir, "mail", m.user)
}

// doveadm runs Dovecot's own tool at one side.
func (m *mailSync) doveadm(s imapsync.Side, args ...string) {
	m.t.Helper()
	args = append([]string{"-c", filepath.Join(m.server[s].Dir, "dovecot.conf")}, args...)
	if out, err := exec.CommandContext(m.t.Context(), "doveadm", args...).CombinedOutput(); err != nil {
		m.t.Fatalf("doveadm %v: %v\n%s", args, err, out)
	}
}

// sums are the bodies of an account, as a multiset.
func sums(all mailpair.Mailboxes) map[string]int {
	out := make(map[string]int)
	for _, f := range all {
		for _, m := range f.Messages {
			out[m.Sum]++
		}
	}
	return out
}

// still checks that both sides hold exactly the mail of before.
func (m *mailSync) still(before mailpair.Mailboxes) {
	m.t.Helper()
	if after := m.equal(); !maps.Equal(sums(before), sums(after)) {
		m.t.Errorf("%d messages before, %d after, or not the same ones", before.Total(), after.Total())
	}
}

// afterLease runs passes until the lease of another base has run out.
func (m *mailSync) afterLease() (report imapsync.Report) {
	m.t.Helper()
	lab.Wait(m.t, 20*time.Second, "the lease runs out", func() (err error) {
		report, err = m.try(imapsync.PassOptions{})
		if err != nil && !errors.Is(err, imapsync.ErrBusy) {
			m.t.Fatal(err)
		}
		return err
	})
	return report
}

func copied(r imapsync.Report) int {
	return r.Sides[imapsync.A].Appended + r.Sides[imapsync.B].Appended
}

func deletedBy(r imapsync.Report) int {
	return r.Sides[imapsync.A].Deleted + r.Sides[imapsync.B].Deleted
}

// TestMailsyncScenarios is the table of what mailbox synchronisers do not survive,
// on real Dovecots.
func TestMailsyncScenarios(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		tell func(t *testing.T, m *mailSync)
	}{
		{"state lost", stateLost},
		{"one side blank", sideBlank},
		{"folder emptied", folderEmptied},
		{"folder renamed", folderRenamed},
		{"folder deleted", folderDeleted},
		{"folder deleted while mail came", folderDeletedAndMail},
		{"uidvalidity changed", validityChanged},
		{"moved", movedHundred},
		{"bytes unchanged", bytesUnchanged},
		{"restored from backup", restoredFromBackup},
		{"seeded by file copy", seededByCopy},
		{"over quota", overQuota},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.name == "over quota" { // it has servers of its own
				row.tell(t, nil)
				return
			}
			m := newMailSync(t)
			m.cfg.Lease = time.Second
			row.tell(t, m)
		})
	}
}

func stateLost(t *testing.T, m *mailSync) {
	t.Helper()
	m.seeded(300)
	before := m.equal()
	if err := os.Remove(m.base); err != nil {
		t.Fatal(err)
	}
	report := m.afterLease()
	m.still(before)
	if report.Paired != 300 || copied(report) != 0 || deletedBy(report) != 0 {
		t.Errorf("%+v", report)
	}
	if again := m.pass(); again.Changes() != 0 || !again.Clean() {
		t.Errorf("again: %+v", again)
	}
}

func sideBlank(t *testing.T, m *mailSync) {
	t.Helper()
	m.seeded(300)
	before := m.equal()
	m.server[imapsync.A].Kill()
	if err := os.RemoveAll(m.mailDir(imapsync.A)); err != nil {
		t.Fatal(err)
	}
	m.server[imapsync.A].Start()
	report := m.settle()
	m.still(before)
	if !report.Clean() {
		t.Errorf("%+v", report)
	}
}

func emptied(t *testing.T, m *mailSync, commands ...string) mailpair.Mailboxes {
	t.Helper()
	m.seeded(300)
	before := m.equal()
	m.do(imapsync.A, commands...)
	report := m.pass()
	if len(report.Holds) != 1 || report.Holds[0].Messages != 75 || report.Holds[0].Folder != "Archive" || deletedBy(report) != 0 {
		t.Fatalf("not held: %+v", report)
	}
	if b := m.read(imapsync.B); b.Total() != 300 {
		t.Fatalf("%d messages on B", b.Total())
	}
	return before
}

func folderEmptied(t *testing.T, m *mailSync) {
	t.Helper()
	before := emptied(t, m, `SELECT Archive`, `STORE 1:* +FLAGS.SILENT (\Deleted)`, `EXPUNGE`)
	if err := m.with(func(a *imapsync.Account) error { return a.Reject("") }); err != nil {
		t.Fatal(err)
	}
	m.settle()
	m.still(before)
	m.do(imapsync.A, `SELECT Archive`, `STORE 1:* +FLAGS.SILENT (\Deleted)`, `EXPUNGE`)
	if report := m.pass(); len(report.Holds) != 1 {
		t.Fatalf("not held again: %+v", report)
	}
	if err := m.with(func(a *imapsync.Account) error { return a.Approve("") }); err != nil {
		t.Fatal(err)
	}
	m.settle()
	if n := m.equal().Total(); n != 225 {
		t.Errorf("%d messages after the approval", n)
	}
}

func folderDeleted(t *testing.T, m *mailSync) {
	t.Helper()
	emptied(t, m, `DELETE Archive`)
	if err := m.with(func(a *imapsync.Account) error { return a.Approve("") }); err != nil {
		t.Fatal(err)
	}
	m.settle()
	after := m.equal()
	if n := after.Total(); n != 225 || after["Archive"] != nil {
		t.Errorf("%d messages after the approval; Archive: %v", n, after["Archive"] != nil)
	}
}

func folderDeletedAndMail(t *testing.T, m *mailSync) {
	t.Helper()
	m.cfg.Guard.Off = true
	m.seeded(40)
	m.do(imapsync.A, `DELETE Archive`)
	late := mailpair.NewMail(rand.New(rand.NewPCG(1, 2)), "late", 500)
	m.load(imapsync.B, "Archive", []mailpair.Mail{late})
	m.settle()
	after := m.equal()
	if f := after["Archive"]; f == nil || !slices.ContainsFunc(f.Messages, func(x mailpair.Message) bool { return x.ID == "late" }) {
		t.Errorf("the new message is not in Archive: %+v", f)
	}
}

func folderRenamed(t *testing.T, m *mailSync) {
	t.Helper()
	m.seeded(300)
	before := m.equal()
	m.do(imapsync.A, `RENAME Archive "Old mail"`, `UNSUBSCRIBE Archive`, `SUBSCRIBE "Old mail"`)
	report := m.settleSum()
	m.still(before)
	if now := m.read(imapsync.B); now["Archive"] != nil || now["Old mail"] == nil {
		t.Errorf("folders on B: %v", slices.Sorted(maps.Keys(now)))
	}
	if report.Sides[imapsync.B].FoldersRenamed != 1 || copied(report) != 0 {
		t.Errorf("%+v", report)
	}
}

// settleSum settles and returns the first report, in which the work was.
func (m *mailSync) settleSum() imapsync.Report {
	m.t.Helper()
	first := m.pass()
	m.settle()
	return first
}

func validityChanged(t *testing.T, m *mailSync) {
	t.Helper()
	m.seeded(300)
	before := m.equal()
	for _, folder := range []string{"INBOX", "Archive"} {
		m.doveadm(imapsync.A, "mailbox", "update", "-u", m.user, "--uid-validity", fmt.Sprint(time.Now().Unix()+1000), folder)
	}
	m.connect()
	report := m.settleSum()
	m.still(before)
	if copied(report) != 0 || deletedBy(report) != 0 || report.Paired != 150 {
		t.Errorf("%+v", report)
	}
	in, out := m.stores[imapsync.B].Traffic()
	// 150 messages have about 380 KiB; what is allowed is keys: headers and sizes.
	if in+out > 64<<10 {
		t.Errorf("%d bytes from B, %d bytes to B", in, out)
	}
}

func movedHundred(t *testing.T, m *mailSync) {
	t.Helper()
	m.seeded(600)
	before := m.equal()
	m.do(imapsync.A, `SELECT INBOX`, `UID MOVE 1:100 Archive`)
	a, b := m.traffic(imapsync.A), m.traffic(imapsync.B)
	report := m.pass()
	a, b = m.traffic(imapsync.A)-a, m.traffic(imapsync.B)-b
	m.still(before)
	if report.Sides[imapsync.B].Moved != 100 || copied(report) != 0 || !report.Clean() {
		t.Errorf("%+v", report)
	}
	// Side A tells what moved (size, date and identity of 100 messages); side B, which
	// moves, must not see a body.
	if b >= 20<<10 || a >= 30<<10 {
		t.Errorf("%d bytes with A, %d with B", a, b)
	}
	t.Logf("a move of 100 messages: %d bytes with A, %d with B, in %d rounds", a, b, report.Rounds)
}

func bytesUnchanged(t *testing.T, m *mailSync) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(9, 9))
	mail := mailpair.Corpus(rnd, "corpus", 201)
	awkward := mailpair.NewMail(rnd, "awkward", 300)
	awkward.Body = append(awkward.Body, "\r\nx DELETE INBOX\r\n{10+}\r\n.\r\n\r\nlast line without an end"...)
	eight := mailpair.NewMail(rnd, "eight", 300)
	eight.Body = append(eight.Body, "gr\xfc\xdfe und \xe2\x82\xac \xff\xfe\r\n"...)
	mail = append(mail, awkward, eight)
	m.load(imapsync.A, "Gr&APYA3w-e/&ZeVnLA- &- 'more'", nil)
	m.load(imapsync.A, "INBOX", mail)
	before := m.read(imapsync.A)
	m.settle()
	m.still(before)
}

func restoredFromBackup(t *testing.T, m *mailSync) {
	t.Helper()
	m.seeded(200)
	backup := filepath.Join(lab.Dir(t), "backup")
	m.server[imapsync.A].Kill()
	copyTree(t, m.mailDir(imapsync.A), backup)
	m.server[imapsync.A].Start()
	m.connect()
	m.load(imapsync.A, "INBOX", mailpair.Corpus(rand.New(rand.NewPCG(5, 5)), "later", 30))
	m.do(imapsync.B, `SELECT Archive`, `STORE 1:5 +FLAGS.SILENT (\Flagged)`)
	m.settle()
	before := m.equal()
	m.server[imapsync.A].Kill()
	if err := os.RemoveAll(m.mailDir(imapsync.A)); err != nil {
		t.Fatal(err)
	}
	copyTree(t, backup, m.mailDir(imapsync.A))
	m.server[imapsync.A].Start()
	m.connect()
	// Mail that came after the restore gets UIDs that others had before.
	fresh := mailpair.NewMail(rand.New(rand.NewPCG(6, 6)), "after-restore", 700)
	m.load(imapsync.A, "INBOX", []mailpair.Mail{fresh})
	report := m.settleSum()
	if deletedBy(report) != 0 {
		t.Errorf("%+v", report)
	}
	after := m.equal()
	if after.Total() != before.Total()+1 {
		t.Errorf("%d messages before, %d after", before.Total(), after.Total())
	}
	for sum := range sums(before) {
		if sums(after)[sum] != 1 {
			t.Errorf("a message is there %d times", sums(after)[sum])
		}
	}
}

func seededByCopy(t *testing.T, m *mailSync) {
	t.Helper()
	m.load(imapsync.A, "INBOX", mailpair.Corpus(rand.New(rand.NewPCG(5, 5)), "copy", 20))
	m.server[imapsync.A].Kill()
	m.server[imapsync.B].Kill()
	if err := os.RemoveAll(m.mailDir(imapsync.B)); err != nil {
		t.Fatal(err)
	}
	copyTree(t, m.mailDir(imapsync.A), m.mailDir(imapsync.B))
	m.server[imapsync.A].Start()
	m.server[imapsync.B].Start()
	// Both sites received mail on their own meanwhile: one UID, two messages.
	rnd := rand.New(rand.NewPCG(6, 6))
	m.load(imapsync.A, "INBOX", []mailpair.Mail{mailpair.NewMail(rnd, "on-a", 700)})
	m.load(imapsync.B, "INBOX", []mailpair.Mail{mailpair.NewMail(rnd, "on-b", 700)})
	report := m.pass()
	if len(report.Faults) != 1 || report.Faults[0].Kind != "same-uidvalidity" || !strings.Contains(report.Faults[0].Text, "doveadm mailbox update") {
		t.Fatalf("%+v", report)
	}
	if a, b := m.read(imapsync.A).Total(), m.read(imapsync.B).Total(); a != 21 || b != 21 {
		t.Fatalf("%d and %d messages", a, b)
	}
	// The remedy that the fault names.
	m.doveadm(imapsync.B, "mailbox", "update", "-u", m.user, "--uid-validity", fmt.Sprint(time.Now().Unix()+1000), "INBOX")
	m.connect()
	m.settle()
	if n := m.equal().Total(); n != 22 {
		t.Errorf("%d messages after the remedy, want 22", n)
	}
}

// copyTree copies a directory as a backup would.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
}

func overQuota(t *testing.T, _ *mailSync) {
	t.Helper()
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
