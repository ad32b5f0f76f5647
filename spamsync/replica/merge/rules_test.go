package merge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/spamsync"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// What package spamsync writes is known here: its keys merge, none is unknown, and
// a message taught at both sites counts once.
func TestBuiltinsOwnKeys(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	b.do("SADD", "BAYES_SPAM_keys", "RS")
	fork := a.now()
	for i, s := range []*site{a, b} {
		state := spamsync.NewRedis(s.server.Client, s.server.Client, time.Second, time.Hour)
		for _, err := range []error{
			errorOf(state.Learn(t.Context(), "both", spamsync.Spam, []uint64{1, 2, 3})),
			errorOf(state.Learn(t.Context(), "only"+s.name, spamsync.Spam, []uint64{1, 10 + uint64(i)})),
			errorOf(state.Learn(t.Context(), "moved"+s.name, spamsync.Spam, []uint64{5})),
			errorOf(state.Learn(t.Context(), "moved"+s.name, spamsync.Ham, []uint64{5})),
			errorOf(state.Learn(t.Context(), "forgotten"+s.name, spamsync.Spam, []uint64{6})),
			errorOf(state.Learn(t.Context(), "forgotten"+s.name, spamsync.Unlearned, []uint64{6})),
			errorOf(state.Touch(t.Context(), "g", time.UnixMilli(2000-int64(i)), time.Hour)),
			state.Add(t.Context(), []spamsync.Counter{{Key: "r", Field: "f", Delta: 5, TTL: time.Hour}}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	report, err := a.mergeInto(b, fork)
	if err != nil || report.UnknownCommands > 0 || len(report.Notes) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if l := report.Learns; l.Double != 1 || l.Unnamed != 0 {
		t.Errorf("%+v", l)
	}
	state := spamsync.NewRedis(b.server.Client, b.server.Client, time.Second, time.Hour)
	counts, learned, err := state.Tokens(t.Context(), []uint64{1, 2, 5, 6, 10, 11})
	want := []spamsync.Pair{{Spam: 3}, {Spam: 1}, {Ham: 2}, {}, {Spam: 1}, {Spam: 1}}
	if err != nil || learned != (spamsync.Pair{Spam: 3, Ham: 2}) || fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("%v of %v, %v; want %v", counts, learned, err, want)
	}
	if first, err := state.First(t.Context(), "g"); err != nil || first.UnixMilli() != 1999 {
		t.Errorf("%v, %v", first, err)
	}
	if groups, err := state.Counters(t.Context(), []string{"r"}); err != nil || groups[0]["f"] != 10 {
		t.Errorf("%v, %v", groups, err)
	}
	for k, v := range b.values() {
		if strings.HasPrefix(k, "us:") && k != "us:{b1}:l" && strings.HasSuffix(v, "true") {
			t.Errorf("%s lives for ever", k)
		}
	}
}

func errorOf[T any](_ T, err error) error { return err }

// Rspamd from 3.8 on teaches in scripts, whose effects are one transaction, and has
// several hashes of limited size.
func TestLaterRspamd(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	fork := a.now()
	teach := func(s *site, d int, class, hash string, at int64) {
		field, total := "S", "learns_spam"
		if class == "ham" {
			field, total = "H", "learns_ham"
		}
		cmds := [][]any{
			words("SADD", "BAYES_"+strings.ToUpper(class)+"_keys", "RS"), words("HSET", "RS", "version", "2"), words("HINCRBY", "RS", total, 1),
		}
		for _, token := range tokensOf(d) {
			key := fmt.Sprintf("RS_%d", token)
			cmds = append(cmds, words("HINCRBY", key, field, 1), words("PEXPIREAT", key, farAway+at))
		}
		s.tx(cmds...)
		s.tx(words("HSET", hash, fmt.Sprintf("digest%d", d), class))
	}
	teach(b, 1, "spam", "learned_ids", 10)
	teach(a, 1, "spam", "learned_idsX", 11)
	teach(a, 2, "ham", "learned_idsX", 12)
	a.do("DEL", "learned_idsX") // rotated away
	report, err := a.mergeInto(b, fork)
	if err != nil || report.UnknownCommands > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if got := b.server.Client.HGetAll(t.Context(), "RS").Val(); got["learns_spam"] != "1" || got["learns_ham"] != "1" {
		t.Errorf("%v", got)
	}
	if got := b.server.Client.HGet(t.Context(), "RS_1001", "S").Val(); got != "1" {
		t.Errorf("the double learn counts %s", got)
	}
	// A class nobody here knows is refused before anything is written.
	before := b.state()
	teach(a, 3, "spam", "learned_ids", 13)
	a.do("HSET", "learned_ids", "digest4", "transactional")
	if _, err := a.mergeInto(b, fork); !errors.Is(err, merge.ErrLayout) {
		t.Error(err)
	}
	if after := b.state(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("something was written: %v", after)
	}
}

// What no rule covers is not applied but kept, in a form that redis-cli takes; a key
// that holds something else on home is named; what one site deleted stays.
func TestWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	for _, s := range []*site{a, b} {
		s.do("SADD", "BAYES_SPAM_keys", "RS", "RSold")
		s.do("HINCRBY", "RS_1", "S", 1)
		s.do("HINCRBY", "RS_2", "S", 7)
	}
	fork := a.now()
	a.do("SET", "session:1", "x")
	a.do("LPUSH", "queue", "job")
	a.do("HSET", "RS_1", "S", "100") // absolute: no delta
	b.do("SET", "us:c:1", "a string")
	a.counter(1, 5, 10)
	a.counter(2, 5, 10)
	a.do("DEL", "RS_2")
	a.do("SREM", "BAYES_SPAM_keys", "RSold")
	a.do("FLUSHDB")
	before := b.state()
	var kept bytes.Buffer
	o := merge.Options{
		Home: b.server.Client, Follower: a.server.Client, Source: stream.Backlog{Options: a.options()}, Fork: fork,
		Origin: "a", Target: "b", Keep: &kept, DryRun: true,
	}
	preview, err := merge.Merge(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if after := b.state(); fmt.Sprint(after) != fmt.Sprint(before) || b.server.Client.Exists(t.Context(), "us:merge:a").Val() != 0 {
		t.Error("a preview wrote")
	}
	kept.Reset()
	o.DryRun = false
	report, err := merge.Merge(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if report.UnknownCommands != 4 || len(report.Unknown) != 4 || preview.UnknownCommands != 4 || preview.Commands != report.Commands {
		t.Errorf("%+v\n%+v", report, preview)
	}
	reader := stream.NewReader(&kept, stream.Point{}, stream.UnknownDB, false, 0)
	var got []string
	for {
		cmd, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d", bytes.Join(cmd.Args, []byte(" ")), cmd.DB))
	}
	if text := strings.Join(got, ", "); text != "SELECT 0 0, SET session:1 x 0, LPUSH queue job 0, HSET RS_1 S 100 0, FLUSHDB 0" {
		t.Errorf("kept %s", text)
	}
	c := b.server.Client
	if c.Get(t.Context(), "us:c:1").Val() != "a string" || c.HGet(t.Context(), "us:c:2", "n").Val() != "5" ||
		c.HGet(t.Context(), "RS_1", "S").Val() != "1" || c.HGet(t.Context(), "RS_2", "S").Val() != "7" || c.SCard(t.Context(), "BAYES_SPAM_keys").Val() != 2 {
		t.Errorf("%v", b.state())
	}
	if len(report.Notes) == 0 || !strings.Contains(strings.Join(report.Notes, " "), "something else") {
		t.Errorf("notes %q", report.Notes)
	}
}

// A life that is over by the time of the merge ends the follower's key, and no key
// of home that lives longer or for ever.
func TestLivesThatAreOver(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a"), newSite(t, "b")
	b.do("HINCRBY", "us:c:forever", "n", 1)
	b.do("HINCRBY", "us:c:long", "n", 1)
	b.do("PEXPIREAT", "us:c:long", farAway)
	fork := a.now()
	soon := time.Now().Add(50 * time.Millisecond).UnixMilli()
	for _, k := range []string{"forever", "long", "new"} {
		a.tx(words("HINCRBY", "us:c:"+k, "n", 1), words("PEXPIREAT", "us:c:"+k, soon))
	}
	for time.Now().UnixMilli() <= soon {
		a.do("PING")
	}
	if _, err := a.mergeInto(b, fork); err != nil {
		t.Fatal(err)
	}
	if got := b.values(); got["us:c:forever"] != "n=2 , for ever: true" || got["us:c:long"] != "n=2 , for ever: false" || got["us:c:new"] != "" {
		t.Errorf("%v", got)
	}
}

// gone is a source without the commands, lost one that cannot be asked.
type gone struct{ err error }

func (g gone) Open(context.Context, stream.Point, stream.Point) (stream.Iterator, error) {
	return nil, g.err
}

func TestFirstOf(t *testing.T) {
	t.Parallel()
	notCovered := gone{fmt.Errorf("backlog: %w", stream.ErrNotCovered)}
	lost := gone{errStopped}
	p := stream.Point{ID: "x", Offset: 1}
	_, err := merge.FirstOf(notCovered, notCovered).Open(t.Context(), p, p)
	var e *merge.NotCoveredError
	if !errors.As(err, &e) || len(e.Reasons) != 2 || !errors.Is(err, stream.ErrNotCovered) {
		t.Error(err)
	}
	// Unknown is not gone.
	var unknown *merge.NotCoveredError
	if _, err := merge.FirstOf(notCovered, lost).Open(t.Context(), p, p); errors.As(err, &unknown) || !errors.Is(err, errStopped) {
		t.Error(err)
	}
}

// Bytes that are gone are not merged around; two merges at once do not mix.
func TestRefusals(t *testing.T) {
	t.Parallel()
	a, b := newSite(t, "a", "--repl-backlog-size", "16kb"), newSite(t, "b")
	b.do("SADD", "BAYES_SPAM_keys", "RS")
	fork := a.now()
	for i := range 40 {
		a.do("SET", "k", strings.Repeat("x", 1000*i))
	}
	if _, err := a.mergeInto(b, fork); !errors.Is(err, stream.ErrNotCovered) {
		t.Error(err)
	}
	if b.server.Client.DBSize(t.Context()).Val() != 1 {
		t.Error("something was written")
	}
	fork = a.now()
	for i := range 40 {
		a.counter(i, 1, 10)
	}
	moved := false
	_, err := merge.Merge(t.Context(), merge.Options{
		Home: b.server.Client, Source: stream.Backlog{Options: a.options()}, Fork: fork, Origin: "a", Target: "b", BatchCommands: 10,
		OnBatch: func(merge.Report) {
			if moved {
				return
			}
			moved = true
			other := redis.NewClient(&redis.Options{Addr: b.server.Addr})
			defer func() { _ = other.Close() }()
			if _, err := merge.Merge(t.Context(), merge.Options{
				Home: other, Source: stream.Backlog{Options: a.options()}, Fork: fork, Origin: "a", Target: "b",
			}); err != nil {
				t.Error(err)
			}
		},
	})
	if !errors.Is(err, merge.ErrBusy) {
		t.Error(err)
	}
	for i := range 40 {
		if n := b.server.Client.HGet(t.Context(), fmt.Sprintf("us:c:%d", i), "n").Val(); n != "1" {
			t.Errorf("counter %d is %s", i, n)
		}
	}
}

// spoken is a source of commands that are written down: pieces of histories.
type spoken []struct{ id, raw string }

func (s spoken) Open(context.Context, stream.Point, stream.Point) (stream.Iterator, error) {
	return &spokenIterator{left: s}, nil
}

type spokenIterator struct {
	left spoken
	r    *stream.Reader
}

func (s *spokenIterator) Next(ctx context.Context) (stream.Command, error) {
	for {
		if s.r != nil {
			if cmd, err := s.r.Next(); err == nil || !errors.Is(err, io.EOF) {
				return cmd, err
			}
		}
		if len(s.left) == 0 {
			return stream.Command{}, io.EOF
		}
		s.r = stream.NewReader(strings.NewReader(s.left[0].raw), stream.Point{ID: s.left[0].id, Offset: 100}, 0, false, 0)
		s.left = s.left[1:]
	}
}

func (s *spokenIterator) Close() error { return nil }

// A transaction that a crash cut in two did not happen, at the end of the stream or
// before the server's next life.
func TestCutTransactions(t *testing.T) {
	t.Parallel()
	b := newSite(t, "b")
	b.do("SADD", "BAYES_SPAM_keys", "RS")
	multi, exec := "*1\r\n$5\r\nMULTI\r\n", "*1\r\n$4\r\nEXEC\r\n"
	incr := func(key string) string {
		return fmt.Sprintf("*4\r\n$7\r\nHINCRBY\r\n$%d\r\n%s\r\n$1\r\nn\r\n$1\r\n1\r\n", len("us:c:")+len(key), "us:c:"+key)
	}
	report, err := merge.Merge(t.Context(), merge.Options{
		Home: b.server.Client, Fork: stream.Point{ID: "x", Offset: 100}, Origin: "a", Target: "b",
		Source: spoken{
			{"x", multi + incr("1") + exec + multi + incr("cut")},
			{"z", incr("2") + multi + incr("3") + exec + multi + incr("end")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := b.values()
	if len(got) != 4 || got["us:c:1"] == "" || got["us:c:2"] == "" || got["us:c:3"] == "" {
		t.Errorf("%v", got)
	}
	if want := int64(100 + len(incr("2")+multi+incr("3")+exec)); report.To != (stream.Point{ID: "z", Offset: want}) {
		t.Errorf("it ends at %v, want %d: the mark stands outside a transaction", report.To, want)
	}
}
