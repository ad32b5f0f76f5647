package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// carry adds everything that is here to home, as if it had been written here
// since both were empty, and follows. Home's own keys stay and are merged with.
func (k *Keeper) carry(ctx context.Context) error {
	k.merging.Lock()
	defer k.merging.Unlock()
	home := look(ctx, k.peer)
	if !home.Master() {
		return fmt.Errorf("carry: home takes no writes: %s %s", home.Trouble, home.Why)
	}
	if err := k.cutover(ctx, home, carryLimit, k.carryAll); err != nil {
		return err
	}
	if err := k.peer.Del(ctx, carryKey+k.deps.Site).Err(); err != nil {
		return fmt.Errorf("carry: done, but %s%s stays at home: %w", carryKey, k.deps.Site, err)
	}
	return nil
}

// carryKey starts the name of the mark at home that a site has begun to carry its
// data there. It lives and dies with home's data.
const carryKey = "us:replica:carry:"

// carryAll adds everything that is here to home, once: an attempt that stopped half
// way cannot go on, because a snapshot has another order every time.
func (k *Keeper) carryAll(ctx context.Context) error {
	here := look(ctx, k.local)
	if !here.Master() {
		return fmt.Errorf("carry: this Redis: %s %s", here.Trouble, here.Why)
	}
	attempt := newMark()
	src := &snapshot{c: k.local, db: k.deps.Redis.DB, at: stream.Point{ID: "snapshot-" + attempt}}
	if err := src.read(ctx); err != nil {
		return fmt.Errorf("carry: %w", err)
	}
	o := k.mergeOptions(src.at)
	o.Source, o.To, o.Follower = src, stream.Point{ID: src.at.ID, Offset: int64(len(src.commands))}, nil
	if err := k.beginCarry(ctx, attempt); err != nil {
		return err
	}
	if err := k.dropsNothing(ctx, src, o); err != nil {
		return errors.Join(err, k.peer.Del(ctx, carryKey+k.deps.Site).Err()) // nothing was written
	}
	r, err := merge.Merge(ctx, o)
	if errors.Is(err, merge.ErrBusy) || errors.Is(err, merge.ErrLayout) {
		err = errors.Join(err, k.peer.Del(ctx, carryKey+k.deps.Site).Err()) // nothing was written
	}
	if err != nil {
		return fmt.Errorf("carry: %w", err)
	}
	k.mu.Lock()
	k.report = &r
	k.mu.Unlock()
	return nil
}

// beginCarry marks home, and refuses where it has the mark.
func (k *Keeper) beginCarry(ctx context.Context, attempt string) error {
	key := carryKey + k.deps.Site
	first, err := k.peer.SetNX(ctx, key, attempt, 0).Result()
	if err != nil {
		return fmt.Errorf("carry: mark home: %w", err)
	}
	if !first {
		return fmt.Errorf("carry: an earlier attempt was begun and not seen to end; a second one would count again what has arrived: "+
			"empty home's Redis, or restore it as it was before, and say yes again; or delete %s at home and have it counted again", key)
	}
	return nil
}

// giveUpKey is what an operator sets in this site's Redis to give up what cannot be
// carried; the full copy removes it.
const giveUpKey = "us:replica:give-up"

// dropsNothing refuses where something here cannot be carried and would be erased by
// the full copy that follows, unless an operator has given it up.
func (k *Keeper) dropsNothing(ctx context.Context, src *snapshot, o merge.Options) error {
	o.DryRun = true
	r, err := merge.Merge(ctx, o)
	if err != nil {
		return fmt.Errorf("carry: %w", err)
	}
	lost := src.left
	for _, u := range r.Unknown {
		lost = append(lost, fmt.Sprintf("%s (%s)", u.Key, u.Command))
	}
	others, err := k.otherDatabases(ctx)
	if err != nil {
		return err
	}
	if lost = append(others, lost...); len(lost) == 0 {
		return nil
	}
	text := strings.Join(lost[:min(len(lost), maxNamed)], ", ")
	if more := len(lost) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	given, err := k.local.Exists(ctx, giveUpKey).Result()
	switch {
	case err != nil:
		return fmt.Errorf("carry: %w", err)
	case given > 0:
		k.log.Warn("what cannot be carried to home is given up", "lost", text)
		return nil
	}
	return fmt.Errorf("carry: it would erase what cannot be carried: %s; move it away, or give it up by SET %s yes in this site's Redis", text, giveUpKey)
}

// maxNamed is how many keys an error names.
const maxNamed = 20

// otherDatabases names those that hold data and are not the one that is carried.
func (k *Keeper) otherDatabases(ctx context.Context) ([]string, error) {
	text, err := k.local.Info(ctx, "keyspace").Result()
	if err != nil {
		return nil, fmt.Errorf("carry: databases: %w", err)
	}
	var found []string
	for line := range strings.Lines(text) {
		name, _, ok := strings.Cut(line, ":keys=")
		if ok && strings.HasPrefix(name, "db") && name != "db"+strconv.Itoa(k.deps.Redis.DB) {
			found = append(found, "all of "+name)
		}
	}
	return found, nil
}

// snapshot is a data set in the form of the commands that would write it into an
// empty server. Offsets count commands.
type snapshot struct {
	c        *redis.Client
	db       int
	at       stream.Point
	commands [][][]byte
	left     []string // keys of a type that it cannot write
}

var _ stream.Source = (*snapshot)(nil)

// ownKeys starts the names of what this package keeps in each Redis.
const ownKeys = "us:replica:"

// snapshotBatch is how many keys are asked for in one round trip.
const snapshotBatch = 500

// read reads every key of the database.
func (s *snapshot) read(ctx context.Context) error {
	var cursor uint64
	for {
		keys, next, err := s.c.Scan(ctx, cursor, "*", snapshotBatch).Result()
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		if err := s.readKeys(ctx, keys); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (s *snapshot) readKeys(ctx context.Context, keys []string) error {
	pipe := s.c.Pipeline()
	types, expiries := make([]*redis.StatusCmd, len(keys)), make([]*redis.DurationCmd, len(keys))
	for i, key := range keys {
		types[i], expiries[i] = pipe.Type(ctx, key), pipe.PExpireTime(ctx, key)
	}
	if len(keys) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("types: %w", err)
		}
	}
	values := s.c.Pipeline()
	adds := make([]func(), 0, len(keys))
	for i, key := range keys {
		if !strings.HasPrefix(key, ownKeys) {
			adds = append(adds, s.value(ctx, values, key, types[i].Val(), expiries[i].Val().Milliseconds()))
		}
	}
	if _, err := values.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("values: %w", err)
	}
	for _, add := range adds {
		add()
	}
	return nil
}

// value asks for one key, and returns what appends its commands. at is when it
// expires, in Unix milliseconds; negative is never.
func (s *snapshot) value(ctx context.Context, pipe redis.Pipeliner, key, kind string, at int64) func() {
	expire := func() {
		if at > 0 {
			s.add("PEXPIREAT", key, strconv.FormatInt(at, 10))
		}
	}
	switch kind {
	case "string":
		v := pipe.Get(ctx, key)
		return func() {
			if v.Err() == nil {
				s.add("SET", key, v.Val())
				expire()
			}
		}
	case "hash":
		v := pipe.HGetAll(ctx, key)
		return func() {
			for f, val := range v.Val() {
				if _, err := strconv.ParseInt(val, 10, 64); err == nil && countedField(key, f) {
					s.add("HINCRBY", key, f, val)
				} else {
					s.add("HSET", key, f, val)
				}
			}
			expire()
		}
	case "set":
		v := pipe.SMembers(ctx, key)
		return func() {
			for _, m := range v.Val() {
				s.add("SADD", key, m)
			}
			expire()
		}
	case "zset":
		v := pipe.ZRangeWithScores(ctx, key, 0, -1)
		return func() {
			for _, z := range v.Val() {
				s.add("ZADD", key, strconv.FormatFloat(z.Score, 'g', -1, 64), fmt.Sprint(z.Member))
			}
			expire()
		}
	case "list":
		v := pipe.LRange(ctx, key, 0, -1)
		return func() {
			for _, e := range v.Val() {
				s.add("RPUSH", key, e)
			}
			expire()
		}
	case "none": // it has expired meanwhile
		return func() {}
	}
	return func() { s.left = append(s.left, fmt.Sprintf("%s (%s)", strconv.QuoteToASCII(key), kind)) }
}

// countedField says whether a number is a count, which adds up, or a value.
func countedField(key, field string) bool {
	switch {
	case len(key) > 3 && key[:3] == "RL:", len(key) > 2 && key[:2] == "RL":
		return false
	case field == "version", key == "learned_ids":
		return false
	}
	return true
}

func (s *snapshot) add(words ...string) {
	c := make([][]byte, len(words))
	for i, w := range words {
		c[i] = []byte(w)
	}
	s.commands = append(s.commands, c)
}

// Open implements stream.Source.
func (s *snapshot) Open(_ context.Context, from, to stream.Point) (stream.Iterator, error) {
	if from.ID != s.at.ID || from.Offset < 0 || from.Offset > int64(len(s.commands)) {
		return nil, fmt.Errorf("snapshot from %v: %w", from, stream.ErrNotCovered)
	}
	end := int64(len(s.commands))
	if !to.IsZero() {
		end = min(end, to.Offset)
	}
	return &snapshotIterator{s: s, next: from.Offset, end: end}, nil
}

type snapshotIterator struct {
	s         *snapshot
	next, end int64
}

// Next implements stream.Iterator.
func (i *snapshotIterator) Next(context.Context) (stream.Command, error) {
	if i.next >= i.end {
		return stream.Command{}, io.EOF
	}
	c := stream.Command{ID: i.s.at.ID, Offset: i.next, End: i.next + 1, DB: i.s.db, Args: i.s.commands[i.next]}
	i.next++
	return c, nil
}

// Close implements stream.Iterator.
func (i *snapshotIterator) Close() error { return nil }
