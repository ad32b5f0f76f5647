package integration

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/require"
)

// storyMessages is how many messages a story carries, about 600 MB in all.
const storyMessages = 1000

// flushLimit is how long the next hop may wait for all of them once it is back.
const flushLimit = 60 * time.Second

// TestStoryPostfix is what a backup MX is for: the primary, a real Postfix, is
// stopped; 1,000 messages of every kind are sent by three different clients;
// Postfix is started again, the queue is flushed, and every message has arrived
// once, with its body as it was.
func TestStoryPostfix(t *testing.T) {
	require.Root(t)
	require.Command(t, "postfix", "smtp-source", "swaks")
	primary := lab.NewPostfix(t, lab.PostfixConfig{Domain: "example.test"})
	primary.Start() // it was there,
	primary.Stop()  // and it is gone
	ledger, backup := tell(t, "smtp://"+primary.Addr)
	start := time.Now()
	primary.Start()
	flush(t, backup, start)
	lab.Wait(t, flushLimit, "Postfix delivers to the mailbox", func() error {
		if n := primary.Queued(); n > 0 {
			return fmt.Errorf("%d messages are in Postfix's queue", n)
		}
		return nil
	})
	audit(t, ledger, primary.Delivered(), false)
}

// TestStoryDovecot is the same with Dovecot's LMTP as the next hop.
func TestStoryDovecot(t *testing.T) {
	require.Root(t)
	require.Command(t, "dovecot", "/usr/lib/dovecot/lmtp", "smtp-source", "swaks")
	primary := lab.NewDovecot(t)
	primary.Start()
	primary.Stop()
	ledger, backup := tell(t, "lmtp://"+primary.LMTP)
	start := time.Now()
	primary.Start()
	flush(t, backup, start)
	audit(t, ledger, primary.Delivered("alice"), false)
}

// TestDovecotSocket hands mail to Dovecot over its unix socket.
func TestDovecotSocket(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Command(t, "dovecot", "/usr/lib/dovecot/lmtp")
	primary := lab.NewDovecot(t)
	primary.Start()
	backup := lab.NewUnderstudy(t, "lmtp://"+primary.Socket, nil)
	backup.Start()
	ledger := lab.NewLedger()
	sendSome(t, backup.SMTP, mail(3, 100<<10), ledger, 0, 40)
	waitEmpty(t, backup, flushLimit)
	audit(t, ledger, primary.Delivered("alice"), false)
	backup.Stop()
}

// tell starts a backup whose next hop is dead, and sends it the story's mail.
func tell(t *testing.T, toPeer string) (*lab.Ledger, *lab.Understudy) {
	t.Helper()
	backup := lab.NewUnderstudy(t, toPeer, nil)
	backup.Start()
	ledger := lab.NewLedger()
	start := time.Now()
	sendStory(t, backup.SMTP, ledger)
	t.Logf("%d messages accepted in %v", ledger.Acked(), time.Since(start).Round(time.Millisecond))
	if ledger.Acked() != storyMessages {
		t.Fatalf("%d of %d messages were accepted", ledger.Acked(), storyMessages)
	}
	var bytes int64
	list := backup.Queue()
	for _, q := range list {
		bytes += q.SizeBytes
	}
	t.Logf("%d messages, %d MB in the queue", len(list), bytes/1e6)
	if len(list) != storyMessages || bytes < 500e6 {
		t.Fatalf("the queue holds %d messages of %d bytes", len(list), bytes)
	}
	return ledger, backup
}

// flush hands everything over and checks that nothing is left.
func flush(t *testing.T, backup *lab.Understudy, since time.Time) {
	t.Helper()
	out, code := backup.CLI("queue", "flush", "--wait")
	took := time.Since(since)
	t.Logf("flushed %v after the primary's start", took.Round(time.Millisecond))
	if left := backup.Queue(); code != 0 || len(left) != 0 {
		t.Errorf("flush ended with code %d and %d messages left:\n%.2000s", code, len(left), out)
	}
	if took > flushLimit {
		t.Errorf("the flush took %v, want %v at most", took, flushLimit)
	}
}

// sendStory sends the story's messages: a third each by smtp-source, by the
// lab's client with DATA and with BDAT, and every twentieth by swaks.
func sendStory(t *testing.T, addr string, ledger *lab.Ledger) {
	t.Helper()
	ids := make(chan int)
	var workers sync.WaitGroup
	for range 6 {
		workers.Go(func() {
			for id := range ids {
				if err := sendOne(t, addr, ledger, id); err != nil {
					t.Errorf("message %d: %v", id, err)
				}
			}
		})
	}
	for id := range storyMessages {
		ids <- id
	}
	close(ids)
	workers.Wait()
}

func sendOne(t *testing.T, addr string, ledger *lab.Ledger, id int) error {
	t.Helper()
	story := mail(1, 0)
	switch {
	case id%20 == 0:
		m := story.Message(id, lab.Line)
		err := lab.SwaksSend(t.Context(), addr, m)
		ledger.Record(m, err)
		return err
	case id%3 == 0:
		m := story.Message(id, lab.EmptyLine)
		err := lab.SourceSend(t.Context(), addr, m)
		ledger.Record(m, err)
		return err
	}
	c, err := lab.Dial(t.Context(), addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var m lab.Message
	if id%3 == 1 {
		m = story.Message(id, lab.Line)
		err = c.Send(m)
	} else {
		m = story.Message(id, lab.Open)
		err = c.SendChunks(m, 200<<10)
	}
	ledger.Record(m, err)
	return err
}

// TestStoryNeedsIntactMail shows that the story's comparison would notice.
func TestStoryNeedsIntactMail(t *testing.T) {
	t.Parallel()
	ledger := lab.NewLedger()
	m := mail(1, 10<<10).Message(1, lab.Line)
	ledger.Record(m, nil)
	ledger.Record(mail(1, 10<<10).Message(2, lab.Line), nil)
	ledger.Record(mail(1, 10<<10).Message(3, lab.Line), errors.New("cut"))
	changed := m
	changed.Text = append(append([]byte(nil), m.Text...), "more\r\n"...)
	if a := ledger.Audit(map[int][]lab.Sum{1: {changed.Sum()}}); a.Intact() || len(a.Lost) != 1 || len(a.Altered) != 1 {
		t.Errorf("audit says %v", a)
	}
}
