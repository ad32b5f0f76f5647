package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/spamsync/replica/stream"
)

const (
	defaultBatch = 2000
	// maxBatchBytes also ends a batch.
	maxBatchBytes = 4 << 20
	// batchTimeout is how long home may take to read or to answer a batch.
	batchTimeout = 10 * time.Second
	// maxUnknown bounds the keys a report names.
	maxUnknown = 1000
)

// Fields of a mark.
const (
	markFork  = "fork"
	markPlace = "place"
)

// Merge replays what Options name. It may be called again at any time, also for
// the same fork with a later To: it goes on where the last one stopped. Two at once
// into the same home are ErrBusy for one of them. ErrNotCovered (of stream) and
// ErrLayout promise that this call wrote nothing.
func Merge(ctx context.Context, o Options) (Report, error) {
	started := time.Now()
	if o.Origin == "" || o.Target == "" || o.Origin == o.Target {
		return Report{}, fmt.Errorf("merge: origin %q and target %q", o.Origin, o.Target)
	}
	o.BatchCommands = cmp.Or(o.BatchCommands, defaultBatch)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &merger{
		Options: o, keys: newKeys(o.Layout), mark: ownMark + o.Origin,
		report: Report{
			Origin: o.Origin, Target: o.Target, DryRun: o.DryRun, Fork: o.Fork, From: o.Fork,
			Kinds: make(map[string]KindReport),
		},
		unknown: make(map[UnknownKey]int), kept: stream.UnknownDB,
	}
	m.Home = ownClient(o.Home)
	err := errors.Join(m.run(ctx), m.Home.Close())
	m.report.Took = time.Since(started)
	if err != nil {
		return m.report, fmt.Errorf("merge %s into %s: %w", o.Origin, o.Target, err)
	}
	return m.report, nil
}

// ownClient is a client to the same server for a merge: it waits as long as a batch may
// take, also over a slow line, and repeats nothing by itself: a transaction without
// an answer may have happened, and its mark says so.
func ownClient(c *redis.Client) *redis.Client {
	o := c.Options()
	return redis.NewClient(&redis.Options{
		Network: o.Network, Addr: o.Addr, Dialer: o.Dialer, TLSConfig: o.TLSConfig, DB: o.DB, Protocol: o.Protocol,
		Username: o.Username, Password: o.Password,
		CredentialsProvider: o.CredentialsProvider, CredentialsProviderContext: o.CredentialsProviderContext,
		MaxRetries: -1, DialerRetries: 1, PoolSize: 2, ContextTimeoutEnabled: true, DialTimeout: o.DialTimeout,
		ReadTimeout: max(o.ReadTimeout, batchTimeout), WriteTimeout: max(o.WriteTimeout, batchTimeout),
	})
}

// merger is one merge at work.
type merger struct {
	Options
	keys   keys
	mark   string
	index  *index
	report Report
	// place is what the mark on home says; zero where there is none. stale: what is
	// left there belongs to another fork.
	place   stream.Point
	stale   bool
	unknown map[UnknownKey]int // place in report.Unknown
	kept    int                // database of the last command that was kept
}

func (m *merger) run(ctx context.Context) error {
	if err := m.resume(ctx); err != nil {
		return err
	}
	if err := m.lookAhead(ctx); err != nil {
		return err
	}
	if m.index.commands == 0 {
		m.report.To = m.report.From
		return nil
	}
	it, err := m.Source.Open(ctx, m.report.From, m.index.end)
	if err != nil {
		return err
	}
	return errors.Join(m.replay(ctx, it), it.Close())
}

// resume reads the mark of an earlier merge of the same fork.
func (m *merger) resume(ctx context.Context) error {
	place, err := m.readMark(ctx, m.Home)
	if err != nil {
		return err
	}
	if place.IsZero() {
		if err := m.checkHome(ctx); err != nil {
			return err
		}
	}
	if !place.IsZero() {
		m.report.From, m.report.Resumed = place, true
	}
	m.place = place
	m.stale = place.IsZero()
	return nil
}

// checkHome refuses a home that lost everything: what is replayed there would be all
// it has, and the follower would then take it over.
func (m *merger) checkHome(ctx context.Context) error {
	text, err := m.Home.Info(ctx, "replication", "keyspace").Result()
	if err != nil {
		return fmt.Errorf("look at home: %w", err)
	}
	info, err := stream.ParseInfo(text)
	if err != nil {
		return fmt.Errorf("look at home: %w", err)
	}
	if info.Now.ID != m.Fork.ID && info.Before.ID != m.Fork.ID && !strings.Contains(text, "\ndb") {
		return fmt.Errorf("%w: it does not know %v", ErrHomeEmpty, m.Fork)
	}
	return nil
}

// readMark returns the place of the mark; zero where it belongs to another fork.
func (m *merger) readMark(ctx context.Context, c redis.Cmdable) (stream.Point, error) {
	got, err := c.HMGet(ctx, m.mark, markFork, markPlace).Result()
	if err != nil {
		return stream.Point{}, fmt.Errorf("read mark: %w", err)
	}
	fork, _ := got[0].(string)
	place, _ := got[1].(string)
	if fork != m.Fork.String() {
		return stream.Point{}, nil
	}
	return stream.ParsePoint(place)
}

// lookAhead reads the stream for the first time.
func (m *merger) lookAhead(ctx context.Context) error {
	it, err := m.Source.Open(ctx, m.report.From, m.To)
	if err != nil {
		return err
	}
	u := &units{it: it, db: m.DB}
	m.index, err = buildIndex(ctx, m.keys, u, m.Target)
	if err := errors.Join(err, it.Close()); err != nil {
		return fmt.Errorf("look ahead: %w", err)
	}
	m.report.Learns.Unnamed, m.report.Learns.Ambiguous = m.index.unnamed, m.index.ambiguous
	if u.unknownDB && !m.oneDB(ctx) {
		m.note(fmt.Sprintf("the stream does not say which database its first commands belong to; %d was taken", m.DB))
	}
	if n := m.index.ambiguous; n > 0 {
		m.note(fmt.Sprintf("%d learned messages could be told apart by their order only", n))
	}
	return nil
}

// oneDB says that the follower has data in the database DB only.
func (m *merger) oneDB(ctx context.Context) bool {
	if m.Follower == nil {
		return false
	}
	text, err := m.Follower.Info(ctx, "keyspace").Result()
	if err != nil {
		return false
	}
	own := "db" + strconv.Itoa(m.DB) + ":"
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "db") && !strings.HasPrefix(line, own) {
			return false
		}
	}
	return true
}

func (m *merger) note(text string) {
	if !slices.Contains(m.report.Notes, text) {
		m.report.Notes = append(m.report.Notes, text)
	}
}

// replay reads the stream for the second time, and writes it to home.
func (m *merger) replay(ctx context.Context, it stream.Iterator) error {
	u := &units{it: it, db: m.DB}
	b := newBatch(m.keys, m.mark, m.DryRun)
	size := int64(0)
	for {
		un, err := u.next(ctx)
		if errors.Is(err, io.EOF) {
			return m.flush(ctx, b)
		}
		if err != nil {
			return err
		}
		if len(un.cmds) > 0 && un.db != b.db && b.size > 0 || b.size >= m.BatchCommands || size > maxBatchBytes {
			if err := m.flush(ctx, b); err != nil {
				return err
			}
			b, size = newBatch(m.keys, m.mark, m.DryRun), 0
		}
		m.report.Commands += un.raw
		m.report.Bytes += un.bytes
		size += un.bytes
		b.end = un.end
		b.units++
		if un.from == m.Target {
			m.report.Returned += int64(len(un.cmds))
			continue
		}
		if len(un.cmds) > 0 {
			b.db = un.db
			b.size += len(un.cmds)
		}
		if err := m.unit(ctx, b, un); err != nil {
			return err
		}
	}
}

// unit puts one unit into the batch.
func (m *merger) unit(ctx context.Context, b *batch, un unit) error {
	l, ok, err := m.keys.learnOf(un)
	if err != nil {
		return err
	}
	if ok && !l.own {
		l.digest = m.index.digests[l.end]
	}
	if ok && l.digest != "" {
		if known := m.index.messages[messageID(un.db, l.digest)]; known != nil {
			known.left--
			b.learn(l, known)
			b.count(kindNumber).Commands += int64(len(un.cmds))
			for _, cmd := range un.cmds {
				if k := m.keys.kind(cmd.Args[1]); k == kindSet || k == kindNumber && cmd.Is("HSET") {
					b.apply(m.index, nil, cmd)
				}
			}
			return nil
		}
	}
	counts := func(key string) int64 { return m.followerCount(ctx, key) }
	for _, cmd := range un.cmds {
		if cmd.DB != b.db {
			// A transaction over two databases: nothing here writes such.
			if err := m.strange(cmd); err != nil {
				return err
			}
			continue
		}
		k, r := b.apply(m.index, counts, cmd)
		switch r {
		case strange:
			if err := m.strange(cmd); err != nil {
				return err
			}
			continue
		case stays:
			b.count(k).Kept++
		case taken:
		}
		b.count(k).Commands++
	}
	return nil
}

// followerCount is how often the follower counted a group of reputation; -1 where
// it cannot be asked.
func (m *merger) followerCount(ctx context.Context, key string) int64 {
	if m.Follower == nil {
		return -1
	}
	n, err := m.Follower.HGet(ctx, key, "n").Int64()
	if err != nil {
		return -1
	}
	return n
}

// strange keeps a command for the operator.
func (m *merger) strange(cmd stream.Command) error {
	m.report.UnknownCommands++
	id := UnknownKey{DB: cmd.DB, Command: cmd.Name()}
	if len(cmd.Args) > 1 {
		id.Key = strconv.QuoteToASCII(string(cmd.Args[1]))
	}
	if at, ok := m.unknown[id]; ok {
		m.report.Unknown[at].Commands++
	} else if len(m.report.Unknown) < maxUnknown {
		m.unknown[id] = len(m.report.Unknown)
		id.Commands = 1
		m.report.Unknown = append(m.report.Unknown, id)
	}
	if m.Keep == nil {
		return nil
	}
	if cmd.DB != m.kept {
		m.kept = cmd.DB
		n := strconv.Itoa(cmd.DB)
		if _, err := fmt.Fprintf(m.Keep, "*2\r\n$6\r\nSELECT\r\n$%d\r\n%s\r\n", len(n), n); err != nil {
			return fmt.Errorf("keep commands: %w", err)
		}
	}
	if _, err := m.Keep.Write(cmd.Raw); err != nil {
		return fmt.Errorf("keep commands: %w", err)
	}
	return nil
}
