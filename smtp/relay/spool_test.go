package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"understudy/smtp"
	"understudy/smtp/queue"
	"understudy/smtp/relay"
	"understudy/smtp/wire"
)

type noAlarms struct{}

func (noAlarms) Raise(string, string) {}
func (noAlarms) Clear(string)         {}

// mailbox is the primary: our own strict server, and all it was given.
type mailbox struct {
	mu  sync.Mutex
	got map[string][][]byte
}

type mailSession struct {
	box  *mailbox
	from string
}

func (b *mailbox) Connect(context.Context, *wire.Conn) (wire.Session, error) {
	return &mailSession{box: b}, nil
}
func (s *mailSession) Hello(string, bool) error                      { return nil }
func (s *mailSession) Reset()                                        {}
func (s *mailSession) Logout() error                                 { return nil }
func (s *mailSession) Mail(from string, _ *gosmtp.MailOptions) error { s.from = from; return nil }
func (s *mailSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "no") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.got[s.from] = append(s.box.got[s.from], b)
	return nil
}

func (b *mailbox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

// The spool, the relay and our own server together: mail is queued while the
// primary is away, and arrives byte for byte within two seconds of its return.
func TestFromSpoolToServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := queue.DefaultConfig()
	cfg.Dir, cfg.ReserveBytes = t.TempDir(), 1<<20
	log := slog.New(slog.DiscardHandler)
	spool, err := queue.Open(cfg, queue.Deps{Logger: log, Alarms: noAlarms{}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hop, err := relay.ParseHop("smtp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var up atomic.Bool
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !up.Load() {
			return nil, errors.New("connection refused")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	rl, err := relay.New(relay.DefaultConfig(), relay.Deps{
		Queue: spool, Hostname: "mx2.test", Logger: log, Alarms: noAlarms{},
		Hops: func() ([]relay.Hop, <-chan struct{}) { return []relay.Hop{hop}, nil }, Dial: dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	run := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	run("spool", spool.Run)
	run("relay", rl.Run)
	defer wg.Wait()
	defer cancel()

	const messages = 200
	want := map[string][]byte{}
	for i := range messages {
		from, body := fmt.Sprintf("m%d@src.test", i), content(i)
		d, err := spool.Create(ctx, int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write(body); err != nil {
			t.Fatal(err)
		}
		header := []byte("Received: from test\r\n")
		env := &smtp.Envelope{Received: time.Now(), Sender: from, Recipients: []smtp.Recipient{{Address: "u@x.test"}, {Address: "no@x.test"}}}
		if err := d.Commit(ctx, env, header); err != nil {
			t.Fatal(err)
		}
		want[from] = append(header, body...)
	}

	box := &mailbox{got: map[string][][]byte{}}
	srv, err := wire.NewServer(wire.DefaultServerConfig(), "mx1.test", nil, box, log)
	if err != nil {
		t.Fatal(err)
	}
	run("server", func(ctx context.Context) error { return srv.Serve(ctx, l) })
	up.Store(true)
	back := time.Now()
	wait := func(what string, cond func() bool) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for !cond() {
			if time.Since(back) > 60*time.Second {
				st, _ := rl.Status(ctx)
				list, _ := spool.List(ctx, queue.Selection{})
				t.Fatalf("not within a minute: %s; %d arrived; %+v; %d in the queue", what, box.count(), st, len(list))
			}
			<-tick.C
		}
	}
	wait("first delivery", func() bool { return box.count() > 0 })
	if d := time.Since(back); d > 2*time.Second {
		t.Errorf("first delivery after %v", d)
	}
	wait("all delivered", func() bool { return box.count() == messages })
	wait("all recorded", func() bool {
		list, err := spool.List(ctx, queue.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for _, m := range list {
			if m.State == queue.Refused {
				refused++
			}
		}
		return refused == messages
	})
	for from, body := range want {
		if got := box.got[from]; len(got) != 1 || !bytes.Equal(got[0], body) {
			t.Errorf("%s arrived %d times, or altered", from, len(got))
		}
	}
	stop, done := context.WithTimeout(ctx, 5*time.Second)
	defer done()
	if err := srv.Shutdown(stop); err != nil {
		t.Error(err)
	}
}

// content is a body that is hard to keep as it is.
func content(i int) []byte {
	b := fmt.Appendf(nil, "Subject: %d\r\n\r\n.\r\n..dots\r\n\xe4\xf6\xfc\r\n", i)
	b = append(b, bytes.Repeat([]byte("0123456789\r\n"), i*i)...)
	if i%3 == 0 {
		b = append(b, "no newline at the end"...)
	}
	return b
}
