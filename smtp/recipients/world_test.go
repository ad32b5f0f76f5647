package recipients

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/smtp"
)

// raised is a smtp.Alarms that remembers.
type raised struct {
	mu sync.Mutex
	m  map[string]string
}

func (r *raised) Raise(key, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = make(map[string]string)
	}
	r.m[key] = text
}

func (r *raised) Clear(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, key)
}

func (r *raised) keys() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(r.m)), " ")
}

func (r *raised) text(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[key]
}

// logs is a log that tests read.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is what a Directory stands in.
type world struct {
	t      *testing.T
	alarms *raised
	logs   *logs
	deps   Deps
}

func newWorld(t *testing.T) *world {
	t.Helper()
	domains, err := smtp.NewDomains([]string{"example.com", "bücher.example", "stale.example"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, alarms: &raised{}, logs: &logs{}}
	w.deps = Deps{
		Domains: domains, Hostname: "mx2.example.com", Dir: filepath.Join(t.TempDir(), "recipients"),
		Logger: slog.New(slog.NewTextHandler(w.logs, nil)), Alarms: w.alarms,
	}
	return w
}

func (w *world) open(cfg Config) *Directory {
	w.t.Helper()
	d, err := New(cfg, w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// run runs d until the returned function is called, or the test ends.
func (w *world) run(d *Directory) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func write(t *testing.T, path, text string) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, d *Directory, want map[string]smtp.Disposition) {
	t.Helper()
	for address, disposition := range want {
		got, err := d.Lookup(t.Context(), address)
		if err != nil || got != disposition {
			ex, _ := d.Explain(t.Context(), address)
			t.Errorf("%s: %s %v, want %s: %+v", address, got, err, disposition, ex)
		}
	}
}

// waitFor polls until ok, at most 20 s.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
		<-tick.C
	}
}
