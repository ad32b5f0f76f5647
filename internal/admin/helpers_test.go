package admin

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"understudy/smtp/queue"
)

// logBuffer collects log lines of a server.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// running is a server with everything behind it and a client.
type running struct {
	*Client
	cfg  Config
	log  *logBuffer
	srv  *Server
	http *http.Client
	stop func() error
}

// socketPath is short enough for sun_path whatever the test is called.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "admin.sock")
}

// start runs a server until the test ends.
func start(t *testing.T, deps Deps, edit ...func(*Config)) *running {
	t.Helper()
	r := &running{log: &logBuffer{}, cfg: Config{Socket: socketPath(t), Mode: "0660"}}
	for _, fn := range edit {
		fn(&r.cfg)
	}
	deps.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	srv, err := New(r.cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	r.srv = srv
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	r.Client = NewClient(r.cfg.Socket)
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.cfg.Socket)
	}}}
	t.Cleanup(func() {
		r.Close()
		r.http.CloseIdleConnections()
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return r
}

// fill puts n messages into a new Fake, one a minute, the last just now.
func fill(n int) *Fake {
	f := &Fake{}
	for i := range n {
		body := fmt.Sprintf("From: a@example.org\r\nTo: user%d@example.com\r\nSubject: code %d\r\n\r\nYour code is %06d\r\n", i, i, i)
		f.Add(queue.Summary{
			ID: fmt.Sprintf("M%06d", i), Sender: "a@example.org",
			Recipients: []queue.RecipientStatus{{Address: fmt.Sprintf("user%d@example.com", i)}},
			Received:   time.Now().Add(-time.Duration(n-i) * time.Minute),
			NextHop:    "smtp://mx1.example.net:25",
		}, []byte(body))
	}
	return f
}

// full is every part, all fakes.
func full(f *Fake) Deps {
	return Deps{
		Queue: f, Archive: f, Rules: f,
		Hops: &fakeHops{}, Recipients: fakeRecipients{}, Status: fakeStatus{},
		AllowBody: func() bool { return true },
	}
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

type fakeHops struct {
	mu      sync.Mutex
	hops    []Hop
	resumed []string
	// onResume changes a hop when it is resumed.
	onResume func(*Hop)
}

func (f *fakeHops) Hops(context.Context) ([]Hop, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Hop(nil), f.hops...), nil
}

func (f *fakeHops) Resume(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.hops {
		if f.hops[i].Name == name {
			f.resumed = append(f.resumed, name)
			if f.onResume != nil {
				f.onResume(&f.hops[i])
			}
			return nil
		}
	}
	return NotFound("next hop " + name)
}

type fakeRecipients struct{}

func (fakeRecipients) Explain(_ context.Context, address string) (RecipientAnswer, error) {
	return RecipientAnswer{Address: address, Disposition: "exists", Reason: "listed in the file"}, nil
}

func (fakeRecipients) Approve(_ context.Context, source string) error {
	switch source {
	case "file":
		return nil
	case "sql":
		return Conflict("source sql waits for no approval")
	}
	return NotFound("source " + source)
}

type fakeStatus struct{}

func (fakeStatus) Status(context.Context) (StatusReport, error) {
	return StatusReport{Version: "test", Site: "b", PID: os.Getpid()}, nil
}
