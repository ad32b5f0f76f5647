package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/imapsync"
	"understudy/integration/lab"
	"understudy/integration/mailpair"
)

// cutter is a line that breaks once, before or after the n-th tagged answer.
type cutter struct {
	addr     string
	upstream string
	after    bool
	left     atomic.Int64 // answers until it breaks; negative: it does not
	cut      atomic.Bool
	done     sync.WaitGroup
}

func newCutter(t *testing.T, upstream string) *cutter {
	t.Helper()
	l := lab.Listen(t, "127.0.0.1:0")
	c := &cutter{addr: l.Addr().String(), upstream: upstream}
	c.left.Store(-1)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = l.Close(); c.done.Wait() })
	c.done.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := (&net.Dialer{}).DialContext(ctx, "tcp", upstream)
			if err != nil {
				_ = near.Close()
				return
			}
			end := func() { _ = near.Close(); _ = far.Close() }
			context.AfterFunc(ctx, end)
			c.done.Go(func() { _, _ = io.Copy(far, near); end() })
			c.done.Go(func() { c.answers(near, far); end() })
		}
	})
	return c
}

// arm breaks the line at the n-th answer from now on.
func (c *cutter) arm(n int64, after bool) {
	c.after = after
	c.cut.Store(false)
	c.left.Store(n)
}

var tagged = regexp.MustCompile(`^[A-Za-z]*[0-9]+ (OK|NO|BAD)[ \r\n]`)

// answers carries what the server says, line by line.
func (c *cutter) answers(near, far net.Conn) {
	r := bufio.NewReaderSize(far, 64<<10)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && len(line) == 0 {
			return
		}
		now := tagged.Match(line) && c.left.Add(-1) == 0
		if now && !c.after {
			c.cut.Store(true)
			return
		}
		if _, err := near.Write(line); err != nil {
			return
		}
		if now {
			c.cut.Store(true)
			return
		}
	}
}

// TestMailsyncCuts breaks the line before and after every answer of either server, in
// a first copy and in a pass that has everything to do. The passes after it leave each
// message once on both sides.
func TestMailsyncCuts(t *testing.T) {
	t.Parallel()
	m := newMailSync(t)
	m.cfg.Guard.Off = true
	m.cfg.SharedValidity = true // both INBOXes of an account are of one second
	var lines [2]*cutter
	for s := range lines {
		lines[s] = newCutter(t, m.server[s].Addr)
		m.addr[s] = lines[s].addr
	}
	m.connect()
	step := int64(5)
	if os.Getenv("LAB_SEEDS") != "" {
		step = 1
	}
	runs, cuts := 0, 0
	for _, phase := range []string{"first", "delta"} {
		for _, s := range []imapsync.Side{imapsync.A, imapsync.B} {
			for n := int64(1); ; n += step {
				before, after := false, false
				for _, late := range []bool{false, true} {
					runs++
					hit := m.cutOnce(lines[s], fmt.Sprintf("%s-%s-%d-%v", phase, s, n, late), phase == "delta", n, late)
					if hit {
						cuts++
					}
					before, after = before || hit && !late, after || hit && late
				}
				if !before && !after {
					break
				}
			}
		}
	}
	if cuts < 20 {
		t.Errorf("the line broke %d times: that is not every answer", cuts)
	}
	t.Logf("%d runs, the line broke in %d of them", runs, cuts)
}

// cutOnce is one account's life with one break; it says whether the line broke.
func (m *mailSync) cutOnce(line *cutter, user string, delta bool, n int64, after bool) bool {
	m.t.Helper()
	m.user, m.base = user, filepath.Join(filepath.Dir(m.base), user+".db")
	m.connect()
	rnd := rand.New(rand.NewPCG(uint64(n), 5))
	batch := func(prefix string, count int) []mailpair.Mail {
		var out []mailpair.Mail
		for i := range count {
			out = append(out, mailpair.NewMail(rnd, fmt.Sprintf("%s-%d", prefix, i), 300+rnd.IntN(500)))
		}
		return out
	}
	m.load(imapsync.A, "INBOX", batch("a", 12))
	m.load(imapsync.A, "Archive", batch("archive", 5))
	m.load(imapsync.B, "INBOX", batch("b", 7))
	want := 24
	if delta {
		m.settle()
		m.do(imapsync.A, "SELECT INBOX", "UID MOVE 1:4 Archive", `UID STORE 5:6 +FLAGS (\Flagged)`, `UID STORE 7 +FLAGS (\Deleted)`, "UID EXPUNGE 7", "UID COPY 8 Archive")
		m.do(imapsync.B, "SELECT Archive", `UID STORE 2 +FLAGS ($Work)`, `UID STORE 1 +FLAGS (\Deleted)`, "UID EXPUNGE 1", `CREATE New`)
		m.load(imapsync.A, "New", batch("new", 3))
		m.load(imapsync.B, "INBOX", batch("late", 3))
		want += -1 + 1 - 1 + 6
	}
	line.arm(n, after)
	_, _ = m.try(imapsync.PassOptions{}) // it may fail; the next ones may not
	line.left.Store(-1)
	hit := line.cut.Load()
	m.settle()
	all := m.equal()
	if all.Total() != want {
		m.t.Errorf("%s: %d messages, want %d", user, all.Total(), want)
	}
	for sum, count := range sums(all) {
		if count > 2 || count == 2 && !delta {
			m.t.Errorf("%s: %s is there %d times", user, sum, count)
		}
	}
	return hit
}

// TestMailsyncKill kills the process that synchronises, at random moments of a first
// copy and of what follows, and starts it again: nothing is lost, nothing comes twice.
// LAB_KILLS says how often.
func TestMailsyncKill(t *testing.T) {
	t.Parallel()
	m := newMailSync(t)
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
	mail := mailpair.Corpus(rnd, "kill", 1500)
	m.load(imapsync.A, "INBOX", mail[:900])
	m.load(imapsync.A, "Archive", mail[900:])
	dir := lab.Dir(t)
	files := map[string]string{
		"secret":   "secret\n",
		"accounts": mailUser + "\n",
		"us.yaml": fmt.Sprintf(`site: a
primary: a
data_dir: %[1]s/data
mailsync:
  sites:
    a: {address: "imap://%[2]s"}
    b: {address: "imap://%[3]s"}
  auth: {mechanism: plain, master: master, password_file: %[1]s/secret}
  accounts: {file: %[1]s/accounts}
`, dir, m.server[0].Addr, m.server[1].Addr),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := lab.Binary(t)
	run := func(kill time.Duration) bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, "-c", filepath.Join(dir, "us.yaml"), "mailsync", "run", "--all", "--once")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if kill > 0 {
			timer := time.AfterFunc(kill, cancel) // SIGKILL
			defer timer.Stop()
		}
		err := cmd.Wait()
		if err != nil && ctx.Err() == nil {
			t.Fatalf("mailsync run: %v\n%s", err, out.String())
		}
		return err == nil
	}
	killed, want := 0, len(mail)
	for i := range rounds(t, 12) {
		if i%4 == 3 { // some work besides
			extra := mailpair.Corpus(rnd, fmt.Sprintf("extra-%d", i), 40)
			m.load(imapsync.Side(i%2), "INBOX", extra)
			want += len(extra)
			m.do(imapsync.B, "SELECT INBOX", "UID MOVE 1:5 Sent")
		}
		if i == 0 {
			m.do(imapsync.B, "CREATE Sent")
		}
		// After a kill a pass first waits two seconds for what the server has in its hands.
		wait := time.Duration(0)
		if killed > 0 && i%3 != 0 {
			wait = 2 * time.Second
		}
		if !run(wait + 20*time.Millisecond + rand.N(250*time.Millisecond)) {
			killed++
		}
	}
	run(0)
	run(0)
	all := m.equal()
	if all.Total() != want {
		t.Errorf("%d messages, want %d", all.Total(), want)
	}
	for sum, n := range sums(all) {
		if n != 1 {
			t.Errorf("%s is there %d times", sum, n)
		}
	}
	if killed == 0 {
		t.Error("nothing was killed")
	}
	t.Logf("%d kills, %d messages", killed, want)
}
