package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"understudy/integration/lab"
)

// TestMain gives the understudy binary a place, so that it is built once, by
// the first story that needs it.
func TestMain(m *testing.M) {
	os.Exit(withBinary(m.Run))
}

func withBinary(run func() int) int {
	dir, err := os.MkdirTemp("", "labbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Setenv(lab.BinaryEnv, filepath.Join(dir, "understudy")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// rounds is how often a test of crashes crashes: LAB_KILLS, else usual.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("LAB_KILLS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("LAB_KILLS: %v", err)
	}
	return n
}

// mail makes the messages of a story.
func mail(seed uint64, maxBytes int) lab.Mail {
	return lab.Mail{Seed: seed, From: "sender@ext.test", To: "alice@example.test", MaxBytes: maxBytes}
}

// dial connects to a server that must be there.
func dial(t *testing.T, addr string) *lab.Client {
	t.Helper()
	c, err := lab.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Abort)
	return c
}

// sendSome sends messages from to to-1 over one connection and books them.
func sendSome(t *testing.T, addr string, mail lab.Mail, ledger *lab.Ledger, from, to int) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	for id := from; id < to; id++ {
		m := mail.Message(id, lab.Line)
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
		ledger.Record(m, nil)
	}
}

// waitEmpty waits until understudy's queue holds nothing.
func waitEmpty(t *testing.T, u *lab.Understudy, limit time.Duration) {
	t.Helper()
	lab.Wait(t, limit, "the queue is empty", func() error {
		if list := u.Queue(); len(list) > 0 {
			return fmt.Errorf("%d messages are left, the first one %+v", len(list), list[0])
		}
		return nil
	})
}

// audit compares the book with what arrived. After a crash a message may have
// come twice; without one it may not.
func audit(t *testing.T, ledger *lab.Ledger, arrived map[int][]lab.Sum, crashed bool) {
	t.Helper()
	a := ledger.Audit(arrived)
	if !a.Intact() || !crashed && len(a.Twice) > 0 {
		t.Errorf("of %d acknowledged messages: %v", ledger.Acked(), a)
	}
	t.Logf("%d acknowledged, %d different ones arrived: %v", ledger.Acked(), len(arrived), a)
}
