package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/lab/powercut"
	"understudy/integration/require"
)

// crashSettings make small files and short waits, so that a crash finds the
// spool in many different states.
func crashSettings() lab.Settings {
	return lab.Settings{
		"smtp.queue.segment_bytes": "8MiB",
		"smtp.queue.spill_bytes":   "64KiB",
		"smtp.queue.retry_first":   "1s",
		"smtp.queue.retry_max":     "2s",
		"smtp.queue.erase_after":   "1m",
	}
}

// TestKill kills the daemon at random moments under load, 200 times (LAB_KILLS
// changes that), also while it starts. At the end every message that was
// answered 250 has arrived, with its body as it was.
func TestKill(t *testing.T) {
	sink := lab.StartSink(t, lab.SinkConfig{Chunking: true, Keep: true})
	backup := lab.NewUnderstudy(t, "smtp://"+sink.Addr, crashSettings())
	load := newLoad(t, backup.SMTP, mail(rand.Uint64(), 400<<10))
	sink.SetAnswer(moody())
	for range rounds(t, 200) {
		backup.Launch()
		if rand.IntN(5) == 0 {
			load.during(func() { pause(t, rand.N(60*time.Millisecond)) }, backup.Kill)
			continue
		}
		backup.WaitReady()
		load.during(func() { pause(t, 10*time.Millisecond+rand.N(140*time.Millisecond)) }, backup.Kill)
	}
	sink.SetAnswer(nil)
	backup.Start()
	finish(t, backup, load.ledger, sink)
}

// TestPowerCut does the same on a disk that forgets what was not synced,
// directory entries included, or keeps a random part of it.
func TestPowerCut(t *testing.T) {
	require.Root(t)
	require.Kernel(t, require.FUSE)
	disk, dir := powercut.NewDisk(), filepath.Join(lab.Dir(t), "disk")
	settings := crashSettings()
	settings["data_dir"] = dir
	sink := lab.StartSink(t, lab.SinkConfig{Chunking: true, Keep: true})
	backup := lab.NewUnderstudy(t, "smtp://"+sink.Addr, settings)
	load := newLoad(t, backup.SMTP, mail(rand.Uint64(), 200<<10))
	sink.SetAnswer(moody())
	mounted := mountDisk(t, disk, dir)
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for i := range rounds(t, 60) {
		backup.Start()
		load.during(func() { pause(t, 20*time.Millisecond+rand.N(200*time.Millisecond)) }, func() {
			// Every other time nothing that was not synced survives.
			disk.Cut(rnd, 0.5*float64(i%2))
			backup.Kill()
		})
		if err := mounted.Close(); err != nil {
			t.Fatal(err)
		}
		mounted = mountDisk(t, disk, dir)
	}
	t.Logf("%d syncs had something to do", disk.Syncs())
	sink.SetAnswer(nil)
	backup.Start()
	finish(t, backup, load.ledger, sink)
	if err := mounted.Close(); err != nil {
		t.Fatal(err)
	}
}

func mountDisk(t *testing.T, disk *powercut.Disk, dir string) *powercut.Mounted {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := powercut.Mount(disk, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() }) // for a test that failed: Close may be called again
	return m
}

// finish flushes the queue and compares what was promised with what arrived.
func finish(t *testing.T, backup *lab.Understudy, ledger *lab.Ledger, sink *lab.Sink) {
	t.Helper()
	out, code := backup.CLI("queue", "flush", "--wait")
	if code != 0 {
		t.Errorf("flush ended with code %d:\n%.2000s", code, out)
	}
	waitEmpty(t, backup, time.Minute)
	backup.Stop()
	audit(t, ledger, sink.Bodies(), true)
	if n := ledger.Acked(); n < rounds(t, 60) {
		t.Errorf("only %d messages were acknowledged: this was no load", n)
	}
}

// moody is a next hop that refuses for a while now and then: mail is delivered,
// deferred and queued all at once.
func moody() lab.Answer {
	return func(stage, _ string) string {
		switch {
		case stage == "connect" && rand.IntN(4) == 0:
			return "421 4.3.2 not now"
		case stage == "RCPT" && rand.IntN(8) == 0:
			return "451 4.2.0 mailbox busy"
		case stage == "message" && rand.IntN(10) == 0:
			return "452 4.2.2 mailbox full"
		}
		return ""
	}
}

// load is several senders at once, with one book.
type load struct {
	t      *testing.T
	addr   string
	mail   lab.Mail
	ledger *lab.Ledger
	next   atomic.Int64
}

func newLoad(t *testing.T, addr string, mail lab.Mail) *load {
	t.Helper()
	return &load{t: t, addr: addr, mail: mail, ledger: lab.NewLedger()}
}

// during sends while wait waits, calls end, and waits until all senders noticed.
func (l *load) during(wait, end func()) {
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for i := range 6 {
		senders.Go(func() { l.send(i, stop) })
	}
	wait()
	end()
	close(stop)
	senders.Wait()
}

// send sends messages until stop is closed; where the connection breaks, it
// makes a new one.
func (l *load) send(sender int, stop <-chan struct{}) {
	for !closed(stop) {
		c, err := lab.Dial(l.t.Context(), l.addr)
		if err != nil {
			pause(l.t, time.Millisecond)
			continue
		}
		for err == nil && !closed(stop) {
			id := int(l.next.Add(1))
			if sender%2 == 0 {
				m := l.mail.Message(id, lab.Line)
				err = c.Send(m)
				l.ledger.Record(m, err)
			} else {
				m := l.mail.Message(id, lab.Open)
				err = c.SendChunks(m, 20<<10)
				l.ledger.Record(m, err)
			}
		}
		var refused *lab.ReplyError
		if errors.As(err, &refused) && refused.Code/100 == 5 {
			l.t.Errorf("refused for good: %v", err)
		}
		c.Abort()
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pause lets the load run for a while.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// TestFullFileSystem fills the file system that the spool is on: new mail is
// answered 452, nothing is lost, and the daemon recovers by itself when space
// returns, whether somebody made room or the mail was delivered.
func TestFullFileSystem(t *testing.T) {
	t.Parallel()
	require.Root(t)
	require.Kernel(t, require.Mount)
	dir := filepath.Join(lab.Dir(t), "small")
	mountTmpfs(t, dir, "96m")
	hop := lab.FreeAddr(t)
	backup := lab.NewUnderstudy(t, "smtp://"+hop, lab.Settings{
		"data_dir":                 dir,
		"smtp.queue.segment_bytes": "4MiB",
		"smtp.queue.spill_bytes":   "512KiB",
		"smtp.queue.reserve_bytes": "12MiB",
		"smtp.queue.erase_after":   "1m",
	})
	ballast := filepath.Join(dir, "ballast")
	fillFile(t, ballast, 40<<20)
	backup.Start()
	ledger, id := lab.NewLedger(), 0
	fill := func() {
		t.Helper()
		lab.Wait(t, time.Minute, "the file system is full", func() error {
			id++
			return tryOne(t, backup.SMTP, ledger, id)
		})
	}
	fill()
	before := ledger.Acked()
	removeFile(t, ballast)
	accepts(t, backup.SMTP, ledger, &id)
	fill()
	if ledger.Acked() < before+10 {
		t.Errorf("only %d messages fitted into 40 MiB of new room", ledger.Acked()-before)
	}
	// Somebody else takes the last byte, reserve included.
	fillFile(t, ballast, 96<<20)
	fill()
	removeFile(t, ballast)
	sink := lab.StartSink(t, lab.SinkConfig{Addr: hop, Chunking: true, Keep: true})
	accepts(t, backup.SMTP, ledger, &id)
	_, _ = backup.CLI("queue", "flush", "--wait")
	waitEmpty(t, backup, time.Minute)
	audit(t, ledger, sink.Bodies(), false)
	// What was delivered makes room: as much as at the start fits again.
	again := ledger.Acked()
	sink.Close()
	lab.Wait(t, time.Minute, "delivered mail makes room", func() error {
		id++
		_ = tryOne(t, backup.SMTP, ledger, id)
		if got := ledger.Acked() - again; got < before {
			return fmt.Errorf("%d messages fitted, want the %d of the start", got, before)
		}
		return nil
	})
	backup.Stop()
}

// tryOne sends one message and returns nil when the answer was 452.
func tryOne(t *testing.T, addr string, ledger *lab.Ledger, id int) error {
	t.Helper()
	c, err := lab.Dial(t.Context(), addr)
	if err != nil {
		return err
	}
	defer c.Close()
	m := mail(9, 1<<20).Message(id, lab.Line)
	err = c.Send(m)
	ledger.Record(m, err)
	var refused *lab.ReplyError
	switch {
	case err == nil:
		return errors.New("accepted")
	case errors.As(err, &refused) && refused.Code == 452:
		return nil
	default:
		t.Errorf("answered neither 250 nor 452: %v", err)
		return err
	}
}

// accepts waits until a message is accepted again.
func accepts(t *testing.T, addr string, ledger *lab.Ledger, id *int) {
	t.Helper()
	lab.Wait(t, 30*time.Second, "mail is accepted again", func() error {
		*id++
		if err := tryOne(t, addr, ledger, *id); err == nil {
			return fmt.Errorf("still 452")
		}
		return nil
	})
}
