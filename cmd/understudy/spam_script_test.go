package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"understudy/internal/admin"
	"understudy/spamsync/learn"
)

// TestSpamScripts runs testdata/spam: what an operator asks of the filter, against
// the real admin server with a filter in memory behind it.
func TestSpamScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/spam",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			// now changes what the filter is like: full, quiet (nothing learns) or well.
			"now": func(ts *testscript.TestScript, _ bool, args []string) {
				f, ok := ts.Value(scriptFilter{}).(*fakeSpam)
				if !ok || len(args) != 1 {
					ts.Fatalf("usage: now full|quiet|well")
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				f.mood = args[0]
			},
		},
		Setup: func(env *testscript.Env) error {
			f := &fakeSpam{seen: map[string]string{}}
			socket, stop, err := serveSpam(f)
			if err != nil {
				return err
			}
			env.Defer(stop)
			env.Values[scriptFilter{}] = f
			env.Setenv(socketVariable, socket)
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// scriptFilter finds a script's filter among its values.
type scriptFilter struct{}

// fakeSpam is an admin.Spam in memory. It takes the word "offer" for spam.
type fakeSpam struct {
	mu   sync.Mutex
	mood string
	seen map[string]string // messages by class
}

var _ admin.Spam = (*fakeSpam)(nil)

func (f *fakeSpam) SpamStatus(context.Context) (admin.SpamStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	st := admin.SpamStatus{Engine: "rspamd", OnFailure: "builtin", Greylist: 3}
	if f.mood != "quiet" {
		st.Learn = &learn.Status{Waiting: len(f.seen), Remembered: 7, Paused: at, Reason: "redis is\x1b[31m read-only"}
		st.Parity = &admin.SpamParity{At: at, Result: "noise", Summary: "noise; 0 of 50 messages judged differently beyond the noise"}
	}
	return st, nil
}

func (f *fakeSpam) Learn(_ context.Context, class string, message io.Reader) (learn.Added, error) {
	raw, err := io.ReadAll(message)
	if err != nil {
		return "", fmt.Errorf("read message: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.mood == "full":
		return "", learn.ErrFull
	case f.mood == "quiet":
		return "", admin.Conflict("nothing learns here: set spam.learn.engine")
	case len(raw) == 0:
		return "", learn.ErrEmpty
	case strings.Contains(string(raw), "endless"):
		return "", learn.ErrTooLong
	case f.seen[string(raw)] == class:
		return learn.Waits, nil
	}
	f.seen[string(raw)] = class
	return learn.Queued, nil
}

func (f *fakeSpam) CheckSpam(_ context.Context, q admin.SpamQuestion, message []byte) (admin.SpamAnswer, error) {
	out := admin.SpamAnswer{Engine: "rspamd", Action: "no action", Required: 15}
	if strings.Contains(string(message), "offer") {
		out.Action, out.Score, out.Text, out.Remembered = "reject", 16.5, "Spam message rejected", true
		why := fmt.Sprintf("said %s [%s] from %s to %s", q.HELO, q.Client, q.Sender, strings.Join(q.Recipients, " "))
		out.Symbols = []admin.SpamSymbol{{Name: "WORD", Score: 16.5, Why: why}}
	}
	return out, nil
}

// serveSpam serves f on a socket of its own.
func serveSpam(f admin.Spam) (socket string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "understudy") // a socket's path must be short
	if err != nil {
		return "", nil, err
	}
	fake := &admin.Fake{}
	socket = filepath.Join(dir, "admin.sock")
	srv, err := admin.New(admin.Config{Socket: socket, Mode: "0660"}, admin.Deps{
		Logger: slog.New(slog.DiscardHandler), Queue: fake, Spam: f,
	})
	if err == nil {
		err = srv.Listen()
	}
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	return socket, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			panic(err) // no test is at hand here
		}
		_ = os.RemoveAll(dir)
	}), nil
}
