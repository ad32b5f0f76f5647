// Command bench-imap brings the same mailboxes together with understudy, mbsync,
// interimap and dsync, in turn, in one run, between two Dovecots on this machine, and
// with a floor: a FETCH of everything written into MULTIAPPENDs, with no state and no
// check. Ratios within one run count; times depend on the machine.
//
// It needs root, Dovecot, isync and interimap:
//
//	go run ./integration/bench-imap -out docs/results/bench-imap.md
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"understudy/imapsync"
	"understudy/imapsync/imapstore"
	"understudy/imapsync/wire"
	"understudy/integration/lab"
	"understudy/integration/mailpair"
	"understudy/integration/servers"
)

type options struct {
	out       string
	only      string
	rows      string
	rounds    int
	big       int
	accounts  int
	bigMiB    int
	smallWide int
}

func main() { os.Exit(realMain()) }

func realMain() int {
	var o options
	flag.StringVar(&o.out, "out", "", "write the table to this file as well (Markdown)")
	flag.StringVar(&o.only, "only", "", "tools besides the floor, by name")
	flag.StringVar(&o.rows, "rows", "", "only rows whose name contains this")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds per cell; the median counts")
	flag.IntVar(&o.big, "messages", 10_000, "messages of the large account")
	flag.IntVar(&o.smallWide, "wide", 2_000, "messages of the account copied over the slow line")
	flag.IntVar(&o.accounts, "accounts", 1_000, "accounts of the idle sweep")
	flag.IntVar(&o.bigMiB, "big", 1_024, "size of the large message in MiB")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	text, err := bench(ctx, o)
	_, _ = os.Stdout.WriteString(text)
	if err == nil && o.out != "" {
		err = os.WriteFile(o.out, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-imap:", err)
		return 1
	}
	return 0
}

// labPair is two servers and what lies in front of them.
type labPair struct {
	h       *lab.Program
	servers [2]*servers.Mailbox
	relays  [2]*relay
	addr    [2]string
	slow    string // side B behind 40 ms
	dir     string
}

const rtt = 40 * time.Millisecond

func bench(ctx context.Context, o options) (text string, err error) {
	h := lab.NewProgram(ctx, "bench-imap")
	defer func() {
		if e := h.End(recover()); err == nil {
			err = e
		}
	}()
	l := &labPair{h: h, dir: lab.Dir(h)}
	if err := os.Setenv(lab.BinaryEnv, filepath.Join(l.dir, "understudy")); err != nil {
		return "", err
	}
	lab.Binary(h)
	for i := range l.servers {
		l.servers[i] = servers.DovecotIMAP(h, "ssl = no")
		l.relays[i] = newRelay(h, l.servers[i].Addr)
	}
	l.slow = lab.StartDelay(h, "", l.relays[1].addr, rtt).Addr
	l.line(false)
	b := &table{o: o, goals: make(map[string]string), limit: make(map[string]func(map[string]sample) bool)}
	l.copies(b, o)
	l.changes(b, o)
	l.connected(b, o)
	l.memory(b, o)
	l.sweep(b, o)
	return b.markdown(), nil
}

// line puts side B behind the slow line, or next door.
func (l *labPair) line(slow bool) {
	l.addr = [2]string{l.relays[0].addr, l.relays[1].addr}
	if slow {
		l.addr[1] = l.slow
	}
}

// seed fills side A of a template account, whose files are copied for each run.
func (l *labPair) seed(name string, n int) {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	mail := mailpair.Corpus(rnd, name, n)
	for i, f := range folders {
		part := mail[i*n/len(folders) : (i+1)*n/len(folders)]
		if err := mailpair.Load(l.h.Context(), l.servers[0].Addr, name, f, part); err != nil {
			l.h.Fatalf("seed: %v", err)
		}
	}
}

// account copies the template to a new user of side A; side B is blank.
func (l *labPair) account(template, user string) (dir string) {
	mail := func(u string) string { return filepath.Join(l.servers[0].Dir, "mail", u) }
	if out, err := exec.CommandContext(l.h.Context(), "cp", "-a", mail(template), mail(user)).CombinedOutput(); err != nil {
		l.h.Fatalf("copy account: %v %s", err, out)
	}
	dir = filepath.Join(l.dir, user)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.h.Fatalf("%v", err)
	}
	return dir
}

func (l *labPair) drop(user string) {
	for _, s := range l.servers {
		_ = os.RemoveAll(filepath.Join(s.Dir, "mail", user))
	}
}

// copies are full copies, next door and over the slow line.
func (l *labPair) copies(b *table, o options) {
	for _, row := range []struct {
		name string
		n    int
		slow bool
		goal float64
	}{{"full copy", o.big, false, 1.6}, {"full copy, 40 ms", o.smallWide, true, 1.3}} {
		name := fmt.Sprintf("%s, %d messages", row.name, row.n)
		if !strings.Contains(name, o.rows) {
			continue
		}
		template := fmt.Sprintf("seed%d", row.n)
		l.seed(template, row.n)
		l.line(row.slow)
		for round := range o.rounds {
			for _, t := range tools(o.only) {
				if row.slow && t.name == "dsync" {
					continue
				}
				user := fmt.Sprintf("c%d%v%s%d", row.n, row.slow, t.name, round)
				s := l.run(t, l.account(template, user), user)
				b.add(name, t.name, s)
				if t.name == "understudy" && round == 0 {
					l.check(user)
				}
				l.drop(user)
			}
		}
		b.goals[name] = fmt.Sprintf("at most %.1f x floor", row.goal)
		b.limit[name] = func(m map[string]sample) bool {
			return m["understudy"].took.Seconds() <= row.goal*m["floor"].took.Seconds()
		}
	}
}

// check compares both sides with other eyes.
func (l *labPair) check(user string) {
	a, err := mailpair.Read(l.h.Context(), l.servers[0].Addr, user)
	if err != nil {
		l.h.Fatalf("read: %v", err)
	}
	z, err := mailpair.Read(l.h.Context(), l.servers[1].Addr, user)
	if err != nil {
		l.h.Fatalf("read: %v", err)
	}
	if diff := mailpair.Diff(a, z); len(diff) > 0 {
		l.h.Fatalf("understudy left differences: %v", diff[:min(3, len(diff))])
	}
}

// changes are a pass with nothing to do, one with a day's work, and a move, over 40 ms.
func (l *labPair) changes(b *table, o options) {
	noop := fmt.Sprintf("nothing changed, %d messages, 40 ms", o.big)
	const delta, move = "100 new, 200 flags, 50 expunges a side, 40 ms", "move of 100 messages, 40 ms"
	if !strings.Contains(noop+delta+move, o.rows) {
		return
	}
	template := fmt.Sprintf("seed%d", o.big)
	if _, err := os.Stat(filepath.Join(l.servers[0].Dir, "mail", template)); err != nil {
		l.seed(template, o.big)
	}
	for _, t := range tools(o.only) {
		if t.name == "floor" {
			continue
		}
		user := "d" + t.name
		dir := l.account(template, user)
		l.line(false)
		l.run(t, dir, user)
		l.run(t, dir, user)
		l.line(t.name != "dsync")
		for round := range o.rounds {
			b.add(noop, t.name, l.run(t, dir, user))
			for i, s := range l.servers {
				l.work(s.Addr, user, uint64(round*2+i))
			}
			b.add(delta, t.name, l.run(t, dir, user))
			l.run(t, dir, user)
			l.do(l.servers[0].Addr, user, "SELECT Archive", "MOVE 1:100 Sent")
			b.add(move, t.name, l.run(t, dir, user))
			l.run(t, dir, user)
		}
		l.drop(user)
	}
	b.goals[noop], b.goals[delta], b.goals[move] = "0.2 s, 3 KiB", "0.6 s", "under 20 KiB with B"
	b.limit[noop] = func(m map[string]sample) bool {
		return m["understudy"].took <= 200*time.Millisecond && m["understudy"].bytes <= 3<<10
	}
	b.limit[delta] = func(m map[string]sample) bool { return m["understudy"].took <= 600*time.Millisecond }
	b.limit[move] = func(m map[string]sample) bool { return m["understudy"].bytes < 20<<10 }
}

func (l *labPair) do(addr, user string, commands ...string) {
	r, err := mailpair.DialRaw(l.h.Context(), addr, user)
	if err != nil {
		l.h.Fatalf("%v", err)
	}
	defer r.Close()
	for _, c := range commands {
		if _, err := r.Do("%s", c); err != nil {
			l.h.Fatalf("%v", err)
		}
	}
}

// work is what one side's people did meanwhile.
func (l *labPair) work(addr, user string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 77))
	if err := mailpair.Load(l.h.Context(), addr, user, "INBOX", mailpair.Corpus(rnd, fmt.Sprintf("work%d-", seed), 100)); err != nil {
		l.h.Fatalf("%v", err)
	}
	from := 200 + int(seed)*300
	l.do(addr, user, "SELECT Work",
		fmt.Sprintf(`UID STORE %d:%d +FLAGS.SILENT (\Answered)`, from, from+199),
		fmt.Sprintf(`UID STORE %d:%d +FLAGS.SILENT (\Deleted)`, from+200, from+249), fmt.Sprintf("UID EXPUNGE %d:%d", from+200, from+249))
}

// connected is a pass with nothing to do on open connections: continuous mode.
func (l *labPair) connected(b *table, o options) {
	const name = "nothing changed, connected, 40 ms"
	if !strings.Contains(name, o.rows) {
		return
	}
	l.seed("small", 500)
	l.line(true)
	stores := [2]*imapstore.Store{}
	for i, addr := range l.addr {
		stores[i] = imapstore.New(imapstore.Options{
			Server: wire.Config{Address: "imap://" + addr},
			Login:  func() (wire.Login, error) { return wire.Login{User: "small", Secret: "x"}, nil },
		})
		defer func() { _ = stores[i].Close() }()
	}
	account, err := imapsync.Open(filepath.Join(l.dir, "small.db"), imapsync.DefaultConfig(), imapsync.Deps{})
	if err != nil {
		l.h.Fatalf("%v", err)
	}
	defer func() { _ = account.Close() }()
	for i := range 3 + o.rounds {
		before, start := l.relays[1].bytes.Load(), time.Now()
		report, err := account.Pass(l.h.Context(), imapsync.Sides{A: stores[0], B: stores[1]}, imapsync.PassOptions{})
		if err != nil {
			l.h.Fatalf("%v", err)
		}
		if i < 3 {
			continue
		}
		if !report.Clean() || report.Changes() != 0 {
			l.h.Fatalf("%+v", report)
		}
		b.add(name, "understudy", sample{took: time.Since(start), bytes: l.relays[1].bytes.Load() - before})
	}
	b.goals[name] = "1 round trip"
	b.limit[name] = func(m map[string]sample) bool { return m["understudy"].took < 2*rtt }
}

// memory is the largest resident size with a huge message passing.
func (l *labPair) memory(b *table, o options) {
	name := fmt.Sprintf("memory, a message of %d MiB", o.bigMiB)
	if !strings.Contains(name, o.rows) {
		return
	}
	rnd := rand.New(rand.NewPCG(8, 8))
	big := mailpair.NewMail(rnd, "big", 1<<20)
	line := big.Body[len(big.Body)-64<<10:]
	for len(big.Body) < o.bigMiB<<20 {
		big.Body = append(big.Body, line...)
	}
	if err := mailpair.Load(l.h.Context(), l.servers[0].Addr, "big", "INBOX", []mailpair.Mail{big}); err != nil {
		l.h.Fatalf("%v", err)
	}
	big.Body = nil
	dir := filepath.Join(l.dir, "bigdir")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.h.Fatalf("%v", err)
	}
	l.line(false)
	b.add(name, "understudy", l.run(tools("understudy")[1], dir, "big"))
	l.drop("big")
	b.goals[name] = "64 MiB"
	b.limit[name] = func(m map[string]sample) bool { return m["understudy"].maxKB <= 64<<10 }
}

// sweep is one pass over accounts in which nothing happened.
func (l *labPair) sweep(b *table, o options) {
	name := fmt.Sprintf("sweep of %d idle accounts, 16 workers", o.accounts)
	if !strings.Contains(name, o.rows) {
		return
	}
	var users []string
	for i := range o.accounts {
		users = append(users, fmt.Sprintf("idle%d", i))
	}
	for _, u := range users {
		if err := mailpair.Load(l.h.Context(), l.servers[0].Addr, u, "INBOX", mailpair.Corpus(rand.New(rand.NewPCG(1, 1)), u, 1)); err != nil {
			l.h.Fatalf("%v", err)
		}
	}
	dir := filepath.Join(l.dir, "sweepdir")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.h.Fatalf("%v", err)
	}
	l.line(false)
	sweep := tool{"understudy", func(l *labPair, dir, users string) []string {
		return []string{lab.Binary(l.h), "-c", l.config(dir, users), "mailsync", "run", "--all", "--once", "-j", "16"}
	}}
	all := strings.Join(users, "\n")
	l.run(sweep, dir, all)
	b.add(name, "understudy", l.run(sweep, dir, all))
	b.goals[name] = "60 s"
	b.limit[name] = func(m map[string]sample) bool { return m["understudy"].took <= time.Minute }
}

// table collects samples.
type table struct {
	o     options
	order []string
	cells map[string]map[string][]sample
	goals map[string]string
	limit map[string]func(map[string]sample) bool
}

func (b *table) add(row, tool string, s sample) {
	if b.cells == nil {
		b.cells = make(map[string]map[string][]sample)
	}
	if b.cells[row] == nil {
		b.cells[row] = make(map[string][]sample)
		b.order = append(b.order, row)
	}
	b.cells[row][tool] = append(b.cells[row][tool], s)
	fmt.Fprintf(os.Stderr, "%-50s %-10s %7.3f s %9d bytes %6d KiB\n", row, tool, s.took.Seconds(), s.bytes, s.maxKB)
}

func median(list []sample) sample {
	list = slices.Clone(list)
	slices.SortFunc(list, func(x, y sample) int { return int(x.took - y.took) })
	return list[len(list)/2]
}

func (b *table) markdown() string {
	var t strings.Builder
	fmt.Fprintf(&t, "# Mailbox synchronisers in one run\n\n%s; %s/%s, %d CPUs. Command: `go run ./integration/bench-imap %s`.\n",
		time.Now().Format("2006-01-02 15:04 MST"), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), strings.Join(os.Args[1:], " "))
	t.WriteString("Medians. Two Dovecots on loopback, Maildir, mail_fsync=never; bytes are those with side B, both directions.\n" +
		"dsync talks through a pipe: its bytes are not counted and the slow line does not slow it.\n\n" +
		"| row | goal | understudy | floor | mbsync | interimap | dsync | |\n|---|---|---|---|---|---|---|---|\n")
	for _, row := range b.order {
		m := make(map[string]sample)
		for tool, list := range b.cells[row] {
			m[tool] = median(list)
		}
		verdict := "miss"
		if _, measured := m["understudy"]; !measured {
			verdict = "not measured"
		} else if b.limit[row](m) {
			verdict = "hit"
		}
		fmt.Fprintf(&t, "| %s | %s |", row, b.goals[row])
		for _, tool := range []string{"understudy", "floor", "mbsync", "interimap", "dsync"} {
			s, ok := m[tool]
			if !ok {
				t.WriteString(" – |")
				continue
			}
			fmt.Fprintf(&t, " %.3f s", s.took.Seconds())
			if s.bytes > 0 && tool != "floor" && tool != "dsync" {
				fmt.Fprintf(&t, ", %.1f KiB", float64(s.bytes)/1024)
			}
			if strings.HasPrefix(row, "memory") {
				fmt.Fprintf(&t, ", %.1f MiB resident", float64(s.maxKB)/1024)
			}
			t.WriteString(" |")
		}
		fmt.Fprintf(&t, " %s |\n", verdict)
	}
	return t.String()
}
