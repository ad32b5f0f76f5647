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
	it, err := f.Open(f.t.Context(), from, to)
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
			out = append(out, v[:min(len(v), 10)])
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

// A server that changes its id on being promoted goes on where it was.
func TestPromotion(t *testing.T) {
	t.Parallel()
	master := servers.Redis(t, "--repl-backlog-ttl", "0")
	host, port, _ := strings.Cut(master.Addr, ":")
	r := servers.Redis(t, "--replicaof", host+" "+port, "--repl-backlog-ttl", "0")
	lab.Wait(t, 10*time.Second, "the replica follows", func() error {
		info, err := stream.FetchInfo(t.Context(), stream.Options{Addr: r.Addr})
		if err == nil && !info.LinkUp {
			err = errors.New("not yet")
		}
		return err
	})
	f := follow(t, t.TempDir(), r, journal.DefaultConfig())
	start := now(t, r)
	master.Do("SET", "k", "1")
	lab.Wait(t, 10*time.Second, "the replica has it", func() error {
		if v := r.Client.Get(t.Context(), "k").Val(); v != "1" {
			return errors.New(v)
		}
		return nil
	})
	fork := now(t, r)
	r.Do("REPLICAOF", "NO", "ONE")
	r.Do("SET", "k", "2")
	end := now(t, r)
	if end.ID == fork.ID {
		t.Fatal("the id stayed")
	}
	f.want(start, end, "1 2")
	f.want(fork, end, "2")
	// The same place, once only the new id is left of it.
	f.want(stream.Point{ID: end.ID, Offset: fork.Offset}, end, "2")
	if s := f.Status(); len(s.Gaps) > 0 || s.End.ID != end.ID {
		t.Errorf("%+v", s)
	}
}

// The oldest go first, and what is gone is said to be gone.
func TestTrim(t *testing.T) {
	t.Parallel()
	r := servers.Redis(t, "--repl-backlog-ttl", "0")
	c := journal.DefaultConfig()
	c.MaxBytes = 4 << 20
	dir := t.TempDir()
	f := follow(t, dir, r, c)
	start := now(t, r)
	var late stream.Point
	for i := range 120 {
		r.Do("SET", "k", fmt.Sprintf("%03d", i)+strings.Repeat("x", 100_000))
		if i == 110 {
			late = now(t, r)
		}
	}
	end := now(t, r)
	if got, err := f.sets(late, end); err != nil || strings.Count(got, " ") != 8 {
		t.Errorf("the newest: %q, %v", got, err)
	}
	s := f.Status()
	if s.Bytes > c.MaxBytes || s.First.Offset <= start.Offset || s.First.ID != start.ID {
		t.Errorf("%+v", s)
	}
	var gap *journal.GapError
	if _, err := f.sets(start, end); !errors.As(err, &gap) || gap.First != s.First {
		t.Errorf("the oldest: %v, first is %v", err, s.First)
	}
	first, err := f.sets(s.First, end)
	if err != nil {
		t.Errorf("from the first: %v", err)
	}
	f.stop()
	f = follow(t, dir, r, c)
	if again, err := f.sets(f.Status().First, end); err != nil || again != first {
		t.Errorf("after a restart: %q, %v; want %q", again, err, first)
	}
}

// A journal that has not got there yet says so, and not that the bytes are gone.
func TestBehind(t *testing.T) {
	t.Parallel()
	r := servers.Redis(t)
	f := follow(t, t.TempDir(), r, journal.DefaultConfig())
	at := now(t, r)
	_, err := f.sets(at, stream.Point{ID: at.ID, Offset: at.Offset + 1_000_000})
	if !errors.Is(err, journal.ErrBehind) || errors.Is(err, stream.ErrNotCovered) {
		t.Error(err)
	}
}
