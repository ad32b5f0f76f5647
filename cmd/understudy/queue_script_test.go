package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"understudy/internal/admin"
	"understudy/smtp"
	"understudy/smtp/queue"
)

// TestQueueScripts runs testdata/admin: stories of an operator, against the real
// admin server with a queue in memory whose next hop answers by domain.
func TestQueueScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/admin",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "audited": audited, "fill": fillQueue, "takes": takes,
		},
		Setup: func(env *testscript.Env) error {
			d, err := startAdminServer()
			if err != nil {
				return err
			}
			env.Defer(d.stop)
			env.Values[scriptDaemon{}] = d
			env.Setenv(socketVariable, d.socket)
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// scriptDaemon finds a script's server among its values.
type scriptDaemon struct{}

// testDaemon is an admin server with everything behind it in memory.
type testDaemon struct {
	socket string
	fake   *admin.Fake
	stop   func()

	allow atomic.Bool

	mu  sync.Mutex
	log strings.Builder
	hop admin.Hop
}

// Write collects the log.
func (d *testDaemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

func startAdminServer() (*testDaemon, error) {
	dir, err := os.MkdirTemp("", "understudy") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	d := &testDaemon{socket: filepath.Join(dir, "admin.sock"), fake: &admin.Fake{}}
	d.hop = admin.Hop{Name: "smtp://mx1.example.net:25", State: admin.HopPaused, Reason: "554 5.7.1 relay access denied"}
	d.allow.Store(true)
	d.fake.OnFlush = d.deliver
	d.fill()
	srv, err := admin.New(admin.Config{Socket: d.socket, Mode: "0660"}, admin.Deps{
		Logger: testLogger(d), Queue: d.fake, Archive: d.fake, Rules: d.fake, Hops: d, Recipients: d, Status: d,
		AllowBody: d.allow.Load,
	})
	if err != nil {
		return nil, err
	}
	if err := srv.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			panic(err) // no test is at hand here
		}
		_ = os.RemoveAll(dir)
	})
	return d, nil
}

// fill queues the cast: one message for each way a delivery can end, and two that
// are not to be delivered. D's subject and error try to fool a terminal.
func (d *testDaemon) fill() {
	ago := func(t time.Duration) time.Time { return time.Now().Add(-t) }
	rcpt := func(a ...string) (out []queue.RecipientStatus) {
		for _, s := range a {
			out = append(out, queue.RecipientStatus{Address: s})
		}
		return out
	}
	hop := "smtp://mx1.example.net:25"
	d.fake.Add(queue.Summary{ID: "A1", Sender: "ann@example.org", Recipients: rcpt("jane@good.example", "joe@good.example"), Received: ago(3 * time.Hour), NextHop: hop},
		[]byte("From: Ann <ann@example.org>\r\nTo: jane@good.example\r\nSubject: =?utf-8?q?Your_c=C3=B6de?=\r\nContent-Type: text/html\r\n\r\n<p>The code is <b>482913</b></p><script>x()</script>\r\n"))
	d.fake.Add(queue.Summary{ID: "B2", Sender: "", Recipients: rcpt("jane@slow.example"), Received: ago(2 * time.Hour), NextHop: hop, NextAttempt: time.Now().Add(time.Hour), Attempts: 3, LastError: "450 4.2.1 mailbox busy"},
		[]byte("Subject: hello\r\n\r\nbody\r\n"))
	d.fake.Add(queue.Summary{ID: "C3", Sender: "bob@example.org", Recipients: rcpt("joe@no.example"), Received: ago(time.Hour), NextHop: hop, SizeBytes: 5 << 20},
		[]byte("Subject: bye\r\n\r\nbody\r\n"))
	d.fake.Add(queue.Summary{ID: "D4", Sender: "evil\x1b[2J@example.org", Recipients: rcpt("jane@good.example"), Received: ago(time.Minute), State: queue.Held, Reason: "filter \x1b]0;owned\x07", NextHop: hop},
		[]byte("Subject: \x1b[31mred\r\n\r\nbell \x07\r\n"))
	d.fake.Add(queue.Summary{ID: "E5", Sender: "ann@example.org", Recipients: []queue.RecipientStatus{{Address: "gone@good.example", State: queue.RecipientRefused, Code: 550, Enhanced: "5.1.1", Text: "no such user", Relay: "mx1.example.net[192.0.2.1]:25", At: ago(time.Minute)}}, Received: ago(48 * time.Hour), State: queue.Refused, LastError: "550 5.1.1 no such user", NextHop: hop},
		[]byte("Subject: refused\r\n\r\nbody\r\n"))
}

// deliver plays the next hop.
func (d *testDaemon) deliver(id string) {
	m, err := d.fake.Show(context.Background(), id)
	if err != nil {
		return
	}
	relay := "mx1.example.net[192.0.2.1]:25"
	switch smtp.Domain(m.Recipients[0].Address) {
	case "slow.example":
		d.fake.Answer(id, smtp.Deferred, 450, "4.2.1", "mailbox busy", relay)
	case "no.example":
		d.fake.Answer(id, smtp.Refused, 550, "5.1.1", "no such user", relay)
	default:
		d.fake.Answer(id, smtp.Delivered, 250, "2.0.0", "queued as 77", relay)
	}
}

// Hops implements admin.Hops.
func (d *testDaemon) Hops(context.Context) ([]admin.Hop, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return []admin.Hop{d.hop}, nil
}

// Resume implements admin.Hops.
func (d *testDaemon) Resume(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name != d.hop.Name {
		return admin.NotFound("next hop " + name)
	}
	d.hop.State, d.hop.Reason = admin.HopUp, ""
	return nil
}

// Explain implements admin.Recipients.
func (d *testDaemon) Explain(_ context.Context, address string) (admin.RecipientAnswer, error) {
	a := admin.RecipientAnswer{Address: address, Disposition: "exists", Reason: "listed in source file"}
	if strings.HasPrefix(address, "nobody@") {
		a.Disposition, a.Reply, a.Reason = "unknown", "550 5.1.1 no such user", "no source lists it, and all are fresh"
		a.Sources = []admin.RecipientSource{{Name: "file", Answer: "unknown", Entries: 12}}
	}
	return a, nil
}

// Approve implements admin.Recipients.
func (d *testDaemon) Approve(_ context.Context, source string) error {
	if source != "sql" {
		return admin.NotFound("source " + source)
	}
	return nil
}

// Status implements admin.Status.
func (d *testDaemon) Status(ctx context.Context) (admin.StatusReport, error) {
	st, err := d.fake.Stats(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	return admin.StatusReport{
		Version: "1.0-test", Site: "b", Role: "standby", Active: "a", Epoch: 7, Started: time.Now().Add(-time.Hour), PID: 42,
		Listeners: []admin.Listener{{Name: "smtp", Address: "127.0.0.1:2525"}}, Queue: &st, Hops: []admin.Hop{d.hop},
		Sources: []admin.RecipientSource{{Name: "sql", Entries: 100, Pending: "60 instead of 100 addresses"}},
		Alarms:  []admin.Alarm{{Key: "hop:mx1", Text: "paused \x1b[5mblink", Since: time.Now()}},
	}, err
}

// audited wants a pattern in the daemon's audit lines: "audited action=delete".
func audited(ts *testscript.TestScript, neg bool, args []string) {
	d := ts.Value(scriptDaemon{}).(*testDaemon)
	d.mu.Lock()
	log := d.log.String()
	d.mu.Unlock()
	for line := range strings.SplitSeq(log, "\n") {
		found := strings.Contains(line, "msg=audit")
		for _, a := range args {
			found = found && strings.Contains(line, a)
		}
		if found && !neg {
			return
		}
		if found {
			ts.Fatalf("audited: %s", line)
		}
	}
	if !neg {
		ts.Fatalf("not audited: %v in\n%s", args, log)
	}
}

// fillQueue adds messages: "fill 100000"; "fill off" forbids reading bodies.
func fillQueue(ts *testscript.TestScript, _ bool, args []string) {
	d := ts.Value(scriptDaemon{}).(*testDaemon)
	if args[0] == "off" {
		d.allow.Store(false)
		return
	}
	var n int
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		ts.Fatalf("fill: %v", err)
	}
	now := time.Now()
	for i := range n {
		d.fake.Add(queue.Summary{
			ID: fmt.Sprintf("F%015d", i), Sender: fmt.Sprintf("sender%d@example.org", i), Received: now.Add(-time.Duration(n-i) * time.Millisecond),
			Recipients: []queue.RecipientStatus{{Address: fmt.Sprintf("recipient%d@good.example", i), Code: 450, Enhanced: "4.2.1", Text: "mailbox busy", Relay: "mx1.example.net[192.0.2.1]:25", At: now}},
			LastError:  "450 4.2.1 mailbox busy", NextHop: "smtp://mx1.example.net:25", NextAttempt: now, Attempts: 1,
		}, nil)
	}
}

// takes bounds the time of a command, generously: "takes 5s understudy queue list".
func takes(ts *testscript.TestScript, _ bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		ts.Fatalf("takes: %v", err)
	}
	began := time.Now()
	ts.Check(ts.Exec(args[1], args[2:]...))
	took := time.Since(began)
	ts.Logf("%v took %v", args[1:], took)
	if took > limit {
		ts.Fatalf("%v took %v, more than %v", args[1:], took, limit)
	}
}

// TestOperatorIsTold checks what an operator without a daemon, or without the
// right to ask it, reads.
func TestOperatorIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out, errs strings.Builder
	a := &app{In: strings.NewReader(""), Out: &out, Err: &errs}
	if code := a.run(t.Context(), []string{"queue", "--socket", filepath.Join(dir, "none.sock"), "list"}); code != exitUnreachable {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"none.sock", "systemctl status understudy"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("lacks %q: %s", want, errs.String())
		}
	}
}

// testLogger logs to w as text.
func testLogger(w *testDaemon) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
