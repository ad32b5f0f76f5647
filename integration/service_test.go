package integration

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/integration/lab"
)

// TestRestartKeepsQueue stops the daemon in good order with mail in the queue:
// the same messages, under the same ids, are there afterwards, and arrive once.
func TestRestartKeepsQueue(t *testing.T) {
	t.Parallel()
	hop := lab.FreeAddr(t)
	backup := lab.NewUnderstudy(t, "smtp://"+hop, nil)
	backup.Start()
	ledger := lab.NewLedger()
	sendSome(t, backup.SMTP, mail(2, 2<<20), ledger, 0, 60)
	before := backup.Queue()
	backup.Stop()
	backup.Start()
	after := backup.Queue()
	ids := func(list []lab.Queued) []string {
		var all []string
		for _, q := range list {
			all = append(all, q.ID)
		}
		slices.Sort(all)
		return all
	}
	if len(after) != 60 || !slices.Equal(ids(before), ids(after)) {
		t.Fatalf("before the restart %d messages, after it %d", len(before), len(after))
	}
	sink := lab.StartSink(t, lab.SinkConfig{Addr: hop, Keep: true})
	if out, code := backup.CLI("queue", "flush", "--wait"); code != 0 {
		t.Errorf("flush ended with code %d:\n%s", code, out)
	}
	waitEmpty(t, backup, 10*time.Second)
	audit(t, ledger, sink.Bodies(), false)
}

// TestTerminateFinishesData sends SIGTERM in the middle of a message: idle
// clients hear 421, the message may finish, is answered 250, and is kept.
func TestTerminateFinishesData(t *testing.T) {
	t.Parallel()
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), nil)
	backup.Start()
	idle, busy := dial(t, backup.SMTP), dial(t, backup.SMTP)
	m := mail(4, 100<<10).Message(1, lab.Line)
	if err := busy.Start(m); err != nil {
		t.Fatal(err)
	}
	wire := bytes.ReplaceAll(m.Text, []byte("\r\n."), []byte("\r\n.."))
	if err := busy.Write(wire[:len(wire)/2]); err != nil {
		t.Fatal(err)
	}
	backup.Signal(syscall.SIGTERM)
	if _, err := idle.Expect(421); err != nil {
		t.Errorf("the idle client: %v", err)
	}
	if err := busy.Write(append(wire[len(wire)/2:], ".\r\n"...)); err != nil {
		t.Fatal(err)
	}
	if _, err := busy.Expect(250); err != nil {
		t.Fatalf("the message in flight: %v", err)
	}
	select {
	case <-backup.Ended():
	case <-time.After(20 * time.Second):
		t.Fatal("the daemon runs on after SIGTERM")
	}
	backup.Start()
	if n := len(backup.Queue()); n != 1 {
		t.Errorf("%d messages are in the queue after the restart, want the one", n)
	}
}

// TestReload changes the configuration and sends SIGHUP; a broken file leaves
// the old configuration in force and is complained about.
func TestReload(t *testing.T) {
	t.Parallel()
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), nil)
	backup.Start()
	accepted := func(domain string) bool {
		c := dial(t, backup.SMTP)
		defer c.Close()
		if _, err := c.Command(250, "MAIL FROM:<sender@ext.test>"); err != nil {
			t.Fatal(err)
		}
		_, err := c.Command(250, "RCPT TO:<alice@%s>", domain)
		return err == nil
	}
	reload := func() {
		t.Helper()
		backup.Notify.Forget()
		backup.Signal(syscall.SIGHUP)
	}
	if !accepted("example.test") || accepted("second.test") {
		t.Fatal("the first configuration is not in force")
	}
	backup.AddRecipient("@second.test")
	backup.Set(lab.Settings{"domains": []string{"example.test", "second.test"}})
	reload()
	lab.Wait(t, 10*time.Second, "the new domain is served", func() error {
		if !accepted("second.test") {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	backup.Set(lab.Settings{"domains": []string{"example.test"}, "smtp.no_such_key": "1"})
	reload()
	lab.Wait(t, 10*time.Second, "the broken file is complained about", func() error {
		text, err := os.ReadFile(backup.Log())
		if err == nil && !strings.Contains(string(text), "no_such_key") {
			err = os.ErrDeadlineExceeded
		}
		return err
	})
	if !accepted("second.test") {
		t.Error("a broken file replaced the configuration")
	}
}

// TestServiceManager listens to what the daemon tells systemd (sd_notify(3)).
func TestServiceManager(t *testing.T) {
	t.Parallel()
	backup := lab.NewUnderstudy(t, "smtp://"+lab.FreeAddr(t), nil)
	backup.Watchdog = 200 * time.Millisecond
	backup.Start()
	// READY=1 is a promise: the port greets without a second try.
	dial(t, backup.SMTP).Close()
	if !backup.Notify.Wait("WATCHDOG=1", 10*time.Second) {
		t.Error("the watchdog is not fed")
	}
	backup.Stop()
	told := backup.Notify.Told()
	ready, stopping := slices.Index(told, "READY=1"), slices.Index(told, "STOPPING=1")
	if ready < 0 || stopping < ready {
		t.Errorf("told %q", told)
	}
}
