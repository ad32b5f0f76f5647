package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/wire"
	"understudy/integration/lab"
	"understudy/integration/mailpair"
	"understudy/integration/servers"
)

// mailUser is whose mailboxes the stories of the synchroniser are about.
const mailUser = "eva"

// mailSync is one account on two servers, and the base between them.
type mailSync struct {
	t      *testing.T
	user   string
	server [2]*servers.Mailbox
	// addr is where the synchroniser connects; people connect to server[s].Addr.
	addr   [2]string
	base   string
	cfg    imapsync.Config
	stores [2]*imapstore.Store
}

// newMailSync starts two Dovecots without TLS.
func newMailSync(t *testing.T) *mailSync {
	t.Helper()
	return onServers(t, servers.DovecotIMAP(t, "ssl = no"), servers.DovecotIMAP(t, "ssl = no"))
}

func onServers(t *testing.T, a, b *servers.Mailbox) *mailSync {
	t.Helper()
	m := &mailSync{t: t, user: mailUser, server: [2]*servers.Mailbox{a, b}, addr: [2]string{a.Addr, b.Addr}, cfg: imapsync.DefaultConfig()}
	m.base = filepath.Join(lab.Dir(t), "eva.db")
	m.connect()
	t.Cleanup(m.disconnect)
	m.begin()
	return m
}

// begin makes both INBOXes, not within one second: servers take UIDVALIDITY from the
// clock, and one that is the same at both sites is refused.
func (m *mailSync) begin() {
	m.t.Helper()
	m.do(imapsync.A, "SELECT INBOX")
	second := time.Now().Unix()
	lab.Wait(m.t, 5*time.Second, "next second", func() error {
		if time.Now().Unix() == second {
			return errors.New("not yet")
		}
		return nil
	})
	m.do(imapsync.B, "SELECT INBOX")
}

// connect makes stores for the present addresses.
func (m *mailSync) connect() {
	m.disconnect()
	for s, addr := range m.addr {
		m.stores[s] = imapstore.New(imapstore.Options{
			Server: wire.Config{Address: "imap://" + addr},
			Login:  func() (wire.Login, error) { return wire.Login{User: m.user, Master: "master", Secret: "secret"}, nil },
		})
	}
}

func (m *mailSync) disconnect() {
	for _, s := range m.stores {
		if s != nil {
			_ = s.Close()
		}
	}
}

// traffic counts the bytes with one side, both directions.
func (m *mailSync) traffic(s imapsync.Side) int64 {
	in, out := m.stores[s].Traffic()
	return in + out
}

// with opens the base.
func (m *mailSync) with(f func(*imapsync.Account) error) error {
	account, err := imapsync.Open(m.base, m.cfg, imapsync.Deps{})
	if err != nil {
		return err
	}
	err = f(account)
	if e := account.Close(); err == nil {
		err = e
	}
	return err
}

// try runs one pass.
func (m *mailSync) try(opt imapsync.PassOptions) (report imapsync.Report, err error) {
	err = m.with(func(a *imapsync.Account) error {
		report, err = a.Pass(m.t.Context(), imapsync.Sides{A: m.stores[imapsync.A], B: m.stores[imapsync.B]}, opt)
		return err
	})
	return report, err
}

// pass runs one pass, which must not fail.
func (m *mailSync) pass() imapsync.Report {
	m.t.Helper()
	report, err := m.try(imapsync.PassOptions{})
	if err != nil {
		m.t.Fatalf("pass: %v (%+v)", err, report)
	}
	return report
}

// settle runs passes until one changes nothing.
func (m *mailSync) settle() imapsync.Report {
	m.t.Helper()
	var report imapsync.Report
	for range 8 {
		if report = m.pass(); report.Converged && report.Changes() == 0 {
			return report
		}
	}
	m.t.Fatalf("passes still change something: %+v", report)
	return report
}

// load stores messages on one side.
func (m *mailSync) load(s imapsync.Side, folder string, mail []mailpair.Mail) {
	m.t.Helper()
	if err := mailpair.Load(m.t.Context(), m.server[s].Addr, m.user, folder, mail); err != nil {
		m.t.Fatal(err)
	}
}

// raw is a connection of a person to one side.
func (m *mailSync) raw(s imapsync.Side) *mailpair.Raw {
	m.t.Helper()
	r, err := mailpair.DialRaw(m.t.Context(), m.server[s].Addr, m.user)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(r.Close)
	return r
}

// do runs commands on one side.
func (m *mailSync) do(s imapsync.Side, commands ...string) {
	m.t.Helper()
	r := m.raw(s)
	defer r.Close()
	for _, c := range commands {
		if _, err := r.Do("%s", c); err != nil {
			m.t.Fatal(err)
		}
	}
}

// read is what one side has.
func (m *mailSync) read(s imapsync.Side) mailpair.Mailboxes {
	m.t.Helper()
	all, err := mailpair.Read(m.t.Context(), m.server[s].Addr, m.user)
	if err != nil {
		m.t.Fatalf("read side %s: %v", s, err)
	}
	return all
}

// equal reports what the two sides differ in, and returns side A.
func (m *mailSync) equal() mailpair.Mailboxes {
	m.t.Helper()
	a := m.read(imapsync.A)
	if diff := mailpair.Diff(a, m.read(imapsync.B)); len(diff) > 0 {
		m.t.Errorf("the sides differ:\n%s", strings.Join(diff[:min(len(diff), 20)], "\n"))
	}
	return a
}

// seeded has n messages in four folders on side A, synchronised.
func (m *mailSync) seeded(n int) []string {
	m.t.Helper()
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	folders := []string{"INBOX", "Archive", "Lists/go", "Sent"}
	for i, f := range folders {
		var mail []mailpair.Mail
		for j := i; j < n; j += len(folders) {
			mail = append(mail, mailpair.NewMail(rnd, fmt.Sprintf("seed-%d", j), 1000+rnd.IntN(3000)))
		}
		m.load(imapsync.A, f, mail)
	}
	if report := m.pass(); !report.Clean() {
		m.t.Fatalf("first pass: %+v", report)
	}
	if got := m.equal().Total(); got != n {
		m.t.Fatalf("%d messages after the first pass, want %d", got, n)
	}
	return folders
}

// TestMailsyncFirstCopy fills a blank side and finds both equal, byte for byte.
func TestMailsyncFirstCopy(t *testing.T) {
	t.Parallel()
	m := newMailSync(t)
	m.seeded(300)
	if report := m.pass(); report.Changes() != 0 || report.Rounds != 1 || !report.Clean() {
		t.Errorf("a second pass: %+v", report)
	}
}
