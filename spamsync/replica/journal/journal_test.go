package journal_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/integration/lab"
	"understudy/integration/servers"
	"understudy/spamsync/replica/journal"
	"understudy/spamsync/replica/stream"
)

// follower is a journal at work.
type follower struct {
	*journal.Journal
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func follow(t *testing.T, dir string, redis *servers.KeyValue, c journal.Config) *follower {
	t.Helper()
	j, err := journal.Open(journal.Options{Dir: dir, Config: c})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{Journal: j, t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { f.ended <- j.Run(ctx, stream.Options{Addr: redis.Addr}) }()
	t.Cleanup(f.stop)
	f.wait("the journal follows", func(s journal.Status) bool { return s.Following })
	return f
}

func (f *follower) wait(what string, ok func(journal.Status) bool) {
	f.t.Helper()
	lab.Wait(f.t, 10*time.Second, what, func() error {
		if s := f.Status(); !ok(s) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func (f *follower) stop() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	f.cancel = nil
	if err := errors.Join(<-f.ended, f.Close()); err != nil {
		f.t.Error(err)
	}
}

func now(t *testing.T, r *servers.KeyValue) stream.Point {
	t.Helper()
	info, err := stream.FetchInfo(t.Context(), stream.Options{Addr: r.Addr})
	if err != nil {
		t.Fatal(err)
	}
	return info.Now
}

// sets are the values of the SET commands between two places.
func (f *follower) sets(from, to stream.Point) (string, error) {
	it, err := f.Journal.Open(f.t.Context(), from, to)
	if err != nil {
		return "", err
	}
	var out []string
	for {
		cmd, err := it.Next(f.t.Context())
		if errors.Is(err, io.EOF) {
			return strings.Join(out, " "), it.Close()
		}
		if err != nil {
			return "", err
		}
		if cmd.Is("SET") {
			v := string(cmd.Args[2])
			out = append(out, fmt.Sprintf("%s", v[:min(len(v), 10)]))
		}
	}
}

func (f *follower) want(from, to stream.Point, want string) {
	f.t.Helper()
	got, err := f.sets(from, to)
	if err != nil || got != want {
		f.t.Errorf("from %v to %v: %q, %v; want %q", from, to, got, err, want)
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := servers.Redis(t, "--repl-backlog-size", "8mb", "--repl-backlog-ttl", "0")
	f := follow(t, dir, r, journal.DefaultConfig())
	start := now(t, r)
	r.Do("SET", "k", "1")
	r.Do("SET", "k", "2")
	middle := now(t, r)
	r.Do("SET", "k", "3")
	f.want(start, now(t, r), "1 2 3")
	f.want(middle, now(t, r), "3")
	f.want(start, middle, "1 2")
	f.want(middle, middle, "")

	// A command beyond a record, and a restart of the daemon in the middle.
	r.Do("SET", "k", strings.Repeat("4", 900_000))
	big := now(t, r)
	f.want(middle, big, "3 4444444444")
	f.stop()
	r.Do("SET", "k", "5")
	f = follow(t, dir, r, journal.DefaultConfig())
	f.want(start, now(t, r), "1 2 3 4444444444 5")
	f.want(big, now(t, r), "5")

	// The server dies after a save and comes back at it: both lives are kept.
	r.Do("SAVE")
	saved := now(t, r)
	r.Do("SET", "k", "lost")
	f.want(saved, now(t, r), "lost")
	r.Kill()
	r.Start()
	r.Do("SET", "k", "again")
	end := now(t, r)
	if end.ID == saved.ID {
		t.Fatal("the server kept its id")
	}
	f.want(saved, end, "lost again")
	f.want(start, end, "1 2 3 4444444444 5 lost again")
	if s := f.Status(); len(s.Gaps) > 0 || s.First.ID != start.ID || s.First.Offset > start.Offset {
		t.Errorf("%+v", s)
	}

	// It comes back from nothing: that is a gap, and it is remembered.
	r.Kill()
	if err := os.Remove(filepath.Join(r.Dir, "dump.rdb")); err != nil {
		t.Fatal(err)
	}
	r.Start()
	r.Do("SET", "k", "new")
	f.wait("it follows again", func(s journal.Status) bool { return s.Following && len(s.Gaps) == 1 })
	afterGap := now(t, r)
	r.Do("SET", "k", "newer")
	f.want(afterGap, now(t, r), "newer")
	f.stop()
	f = follow(t, dir, r, journal.DefaultConfig())
	var gap *journal.GapError
	if _, err := f.sets(start, now(t, r)); !errors.As(err, &gap) || !errors.Is(err, stream.ErrNotCovered) {
		t.Errorf("across a gap: %v", err)
	} else if len(gap.Gaps) != 1 || gap.Gaps[0].After.ID != end.ID {
		t.Errorf("%+v", gap)
	}
	f.want(start, end, "1 2 3 4444444444 5 lost again") // before the gap
	if _, err := f.sets(stream.Point{ID: "elsewhere"}, stream.Point{}); !errors.As(err, &gap) {
		t.Errorf("from elsewhere: %v", err)
	}
}
