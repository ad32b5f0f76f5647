//go:build soak

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sync/errgroup"

	"understudy/imapsync"
	"understudy/integration/lab"
	"understudy/integration/mailpair"
)

func flagList(f imap.Flag) []imap.Flag { return []imap.Flag{f} }

// chaosSetting is how two sites live while people work on both.
type chaosSetting struct {
	name      string
	rtt       time.Duration
	parted    bool // no passes meanwhile
	perSecond float64
}

var chaosSettings = []chaosSetting{
	{name: "live", perSecond: 10},
	{name: "wan", rtt: 40 * time.Millisecond, perSecond: 10},
	{name: "part", parted: true, perSecond: 20},
}

// seeds are the histories of each setting: one, or LAB_SEEDS of them.
func seeds(t *testing.T) []uint64 {
	t.Helper()
	n := 1
	if text := os.Getenv("LAB_SEEDS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("LAB_SEEDS: %v", err)
		}
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = uint64(i + 1)
	}
	return list
}

// chaosTime is how long people work: long enough for a few hundred deeds; 12 s each
// where there are many seeds.
func chaosTime() time.Duration {
	if os.Getenv("LAB_SEEDS") != "" {
		return 12 * time.Second
	}
	return 6 * time.Second
}

// TestMailsyncChaos lets two people a side append, flag, move, copy, delete and
// rename while passes run: on one machine, over 40 ms, and during a partition that
// heals later. Afterwards nothing is lost, doubled or back from the dead, no flag is
// lost, and the sides are equal.
//
// Broken on purpose, it fails: with findMoves switched off in the planner, moved
// messages lose flags and are doubled.
func TestMailsyncChaos(t *testing.T) {
	t.Parallel()
	for _, setting := range chaosSettings {
		t.Run(setting.name, func(t *testing.T) {
			t.Parallel()
			for _, seed := range seeds(t) {
				t.Run(fmt.Sprint(seed), func(t *testing.T) { chaos(t, setting, seed) })
			}
		})
	}
}

func chaos(t *testing.T, setting chaosSetting, seed uint64) {
	t.Helper()
	m := newMailSync(t)
	m.cfg.Guard.Off = true
	rnd := rand.New(rand.NewPCG(seed, 3))
	for i, folder := range []string{"INBOX", "F1", "F2", "R1", "R2"} {
		var mail []mailpair.Mail
		for j := range 40 {
			mail = append(mail, mailpair.NewMail(rnd, fmt.Sprintf("seed-%d-%d", i, j), 400+rnd.IntN(2000)))
		}
		m.load(imapsync.A, folder, mail)
	}
	m.settle()
	seedsNow := m.equal()
	if setting.rtt > 0 {
		m.addr[imapsync.B] = lab.StartDelay(t, "", m.server[imapsync.B].Addr, setting.rtt).Addr
		m.connect()
	}
	p := newPeople(t)
	ctx, cancel := context.WithTimeout(t.Context(), chaosTime())
	defer cancel()
	var g errgroup.Group
	for i := range 4 {
		s := imapsync.Side(i % 2)
		g.Go(func() error { return p.act(ctx, m.server[s].Addr, s, seed*10+uint64(i), setting.perSecond) })
	}
	var passes []passed
	all, broken := 0, 0
	for ctx.Err() == nil && !setting.parted {
		start := time.Now()
		report, err := m.try(imapsync.PassOptions{})
		all++
		for _, note := range report.Notes {
			t.Logf("pass: %s", note)
		}
		if report.Paired > 3 {
			t.Logf("pass %d paired %d", all, report.Paired)
		}
		if err != nil {
			// A session of the synchroniser ends like others when a folder is renamed.
			t.Logf("pass: %v", err)
			broken++
		} else if len(report.Faults) == 0 {
			// What was done before it began is known at both sides, also where people
			// were faster than its last round.
			passes = append(passes, passed{start, time.Now()})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("people: %v", err)
	}
	last := m.settle()
	if len(last.Faults)+len(last.Holds) > 0 {
		t.Errorf("the last pass: %+v", last)
	}
	now := m.equal()
	if t.Failed() { // would another session have seen it?
		for s, store := range m.stores {
			list, err := store.List(t.Context())
			t.Logf("old session of side %s: %v %+v", imapsync.Side(s), err, list.Boxes)
		}
		m.connect()
		t.Logf("a pass with new sessions: %+v", m.pass())
	}
	v := judge(p.deeds, passes, seedsNow, now)
	if len(v.faults) > 0 {
		t.Errorf("%v\n%s", v, strings.Join(v.faults[:min(len(v.faults), 8)], "\n"))
	}
	m.complaints()
	if len(p.deeds) < 30 {
		t.Errorf("only %d deeds: this was no chaos", len(p.deeds))
	}
	t.Logf("%v; %d passes, %d of them without a fault, %d broken off", v, all, len(passes), broken)
}

// complaints shows what the servers did not like.
func (m *mailSync) complaints() {
	m.t.Helper()
	for s, server := range m.server {
		text, err := os.ReadFile(filepath.Join(server.Dir, "mail.log"))
		if err != nil {
			m.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "Error:") || strings.Contains(line, "Panic:") || strings.Contains(line, "reappeared") {
				m.t.Logf("server %s: %s", imapsync.Side(s), line)
			}
		}
	}
}
