package spamsync

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The keys of Redis. All are below prefix. {b1} keeps what one transaction
// touches in one slot of a cluster, and carries the version of the tokenizer:
// tokens of two versions never mix.
//
//	us:{b1}:t:<16 hex>   hash   s, h: learned spam and ham messages with this token   merge: add deltas, longest life
//	us:{b1}:l            hash   s, h: learned messages                                merge: add deltas
//	us:{b1}:d:<digest>   string "spam" or "ham": learned as                           merge: union; same digest on both sides: count once, newest class wins
//	us:g:<key>           string first seen, Unix time in milliseconds                 merge: earliest, longest life
//	us:c:<key>           hash   numbers of a Counter group                            merge: add deltas, longest life
const (
	prefix        = "us:"
	prefixToken   = prefix + "{b1}:t:"
	keyLearns     = prefix + "{b1}:l"
	prefixDigest  = prefix + "{b1}:d:"
	prefixGrey    = prefix + "g:"
	prefixCounter = prefix + "c:"
	fieldSpam     = "s"
	fieldHam      = "h"
)

// learnAttempts is how often Learn starts again when somebody else taught the
// same message meanwhile.
const learnAttempts = 3

// Redis is a State in Redis. Reads go to one server, as a rule this site's
// replica; writes to another, as a rule the endpoint that leads to the home.
//
// After a question without an answer the server is left alone for restTime:
// whoever asks meanwhile gets ErrAway at once, so that mail does not wait for a dead
// Redis over and over.
type Redis struct {
	read, write server
	timeout     time.Duration
	tokenTTL    time.Duration
}

// restTime is how long a server that did not answer is left alone.
const restTime = time.Second

// server is one of the two sides.
type server struct {
	redis.UniversalClient
	rest *atomic.Int64 // until when it is left alone, Unix nanoseconds
}

func newServer(c redis.UniversalClient) server { return server{c, new(atomic.Int64)} }

// resting returns ErrAway while the server is left alone.
func (s server) resting() error {
	if time.Now().UnixNano() < s.rest.Load() {
		return fmt.Errorf("%w: it did not answer a moment ago", ErrAway)
	}
	return nil
}

// failed says what kind of failure err is, and lets the server rest where it is
// away, but not where the caller gave up.
func (s server) failed(caller context.Context, doing string, err error) error {
	err = stateError(doing, err)
	if errors.Is(err, ErrAway) && caller.Err() == nil {
		s.rest.Store(time.Now().Add(restTime).UnixNano())
	}
	return err
}

var _ State = (*Redis)(nil)

// NewRedis returns a State over two clients (they may be the same). timeout
// bounds every call; tokenTTL is how long a token lives after it was learned last,
// and a digest after its message was. The clients stay the caller's; they should
// have ContextTimeoutEnabled, which OpenRedis sets.
func NewRedis(read, write redis.UniversalClient, timeout, tokenTTL time.Duration) *Redis {
	r := &Redis{read: newServer(read), timeout: timeout, tokenTTL: tokenTTL}
	if r.write = r.read; write != read {
		r.write = newServer(write)
	}
	return r
}

// Tokens implements State.
func (r *Redis) Tokens(ctx context.Context, hashes []uint64) ([]Pair, Pair, error) {
	if err := r.read.resting(); err != nil {
		return nil, Pair{}, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	pipe := r.read.Pipeline()
	total := pipe.HMGet(ctx, keyLearns, fieldSpam, fieldHam)
	cmds := make([]*redis.SliceCmd, len(hashes))
	for i, h := range hashes {
		cmds[i] = pipe.HMGet(ctx, tokenKey(h), fieldSpam, fieldHam)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, Pair{}, r.read.failed(caller, "read tokens", err)
	}
	counts := make([]Pair, len(hashes))
	for i, c := range cmds {
		counts[i] = pairOf(c.Val())
	}
	return counts, pairOf(total.Val()), nil
}

// Learn implements State.
func (r *Redis) Learn(ctx context.Context, digest string, class Class, hashes []uint64) (bool, error) {
	if err := r.write.resting(); err != nil {
		return false, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	key := prefixDigest + digest
	changed := false
	learn := func(tx *redis.Tx) error {
		changed = false
		text, err := tx.Get(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		before := parseClass(text)
		if before == class {
			return nil
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			delta := move(before, class)
			for _, h := range hashes {
				k := tokenKey(h)
				incr(ctx, p, k, delta)
				p.Expire(ctx, k, r.tokenTTL)
			}
			incr(ctx, p, keyLearns, delta)
			if class == Unlearned {
				p.Del(ctx, key)
			} else {
				p.Set(ctx, key, class.String(), r.tokenTTL)
			}
			return nil
		})
		changed = err == nil
		return err
	}
	var err error
	for range learnAttempts {
		if err = r.write.Watch(ctx, learn, key); !errors.Is(err, redis.TxFailedErr) {
			break
		}
	}
	if err != nil {
		return false, r.write.failed(caller, "learn", err)
	}
	return changed, nil
}

func incr(ctx context.Context, p redis.Pipeliner, key string, delta Pair) {
	if delta.Spam != 0 {
		p.HIncrBy(ctx, key, fieldSpam, delta.Spam)
	}
	if delta.Ham != 0 {
		p.HIncrBy(ctx, key, fieldHam, delta.Ham)
	}
}

// First implements State.
func (r *Redis) First(ctx context.Context, key string) (time.Time, error) {
	if err := r.read.resting(); err != nil {
		return time.Time{}, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	ms, err := r.read.Get(ctx, prefixGrey+key).Int64()
	switch {
	case err == nil:
		return time.UnixMilli(ms).UTC(), nil
	case errors.Is(err, redis.Nil), errors.Is(err, strconv.ErrSyntax), errors.Is(err, strconv.ErrRange):
		return time.Time{}, nil
	}
	return time.Time{}, r.read.failed(caller, "read greylist", err)
}

// Touch implements State.
func (r *Redis) Touch(ctx context.Context, key string, at time.Time, ttl time.Duration) (time.Time, error) {
	if err := r.write.resting(); err != nil {
		return time.Time{}, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	at = at.Truncate(time.Millisecond).UTC()
	key = prefixGrey + key
	pipe := r.write.TxPipeline()
	set := pipe.SetArgs(ctx, key, at.UnixMilli(), redis.SetArgs{Mode: "NX", TTL: ttl})
	get := pipe.Get(ctx, key)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return time.Time{}, r.write.failed(caller, "write greylist", err)
	}
	if set.Err() == nil {
		return at, nil
	}
	ms, err := get.Int64()
	if err == nil && ms <= at.UnixMilli() {
		return time.UnixMilli(ms).UTC(), nil
	}
	// An earlier sight that was kept elsewhere meanwhile, or a value nobody can read.
	if err := r.write.SetArgs(ctx, key, at.UnixMilli(), redis.SetArgs{KeepTTL: true}).Err(); err != nil {
		return time.Time{}, r.write.failed(caller, "write greylist", err)
	}
	return at, nil
}

// Counters implements State.
func (r *Redis) Counters(ctx context.Context, keys []string) ([]map[string]int64, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if err := r.read.resting(); err != nil {
		return nil, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	pipe := r.read.Pipeline()
	cmds := make([]*redis.MapStringStringCmd, len(keys))
	for i, k := range keys {
		cmds[i] = pipe.HGetAll(ctx, prefixCounter+k)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, r.read.failed(caller, "read counters", err)
	}
	out := make([]map[string]int64, len(keys))
	for i, c := range cmds {
		out[i] = make(map[string]int64, len(c.Val()))
		for f, text := range c.Val() {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				out[i][f] = n
			}
		}
	}
	return out, nil
}

// Add implements State.
func (r *Redis) Add(ctx context.Context, changes []Counter) error {
	if len(changes) == 0 {
		return nil
	}
	if err := r.write.resting(); err != nil {
		return err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	pipe := r.write.TxPipeline()
	for _, c := range changes {
		key := prefixCounter + c.Key
		pipe.HIncrBy(ctx, key, c.Field, c.Delta)
		pipe.PExpire(ctx, key, c.TTL)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return r.write.failed(caller, "add to counters", err)
	}
	return nil
}

func tokenKey(h uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(h >> (56 - 8*i))
	}
	return prefixToken + hex.EncodeToString(b[:])
}

func pairOf(values []any) Pair {
	number := func(i int) int64 {
		if i >= len(values) {
			return 0
		}
		s, _ := values[i].(string)
		n, _ := strconv.ParseInt(s, 10, 64)
		return n
	}
	return Pair{Spam: number(0), Ham: number(1)}.floor()
}

func parseClass(text string) Class {
	switch text {
	case "spam":
		return Spam
	case "ham":
		return Ham
	}
	return Unlearned
}

// refusals are the error codes of a server that is there but does not take the
// command now.
func refusals() []string {
	return []string{"READONLY", "NOREPLICAS", "MISCONF", "OOM", "EXECABORT"}
}

// absences are those of one that has no answer now.
func absences() []string {
	return []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOAUTH", "WRONGPASS", "NOPERM"}
}

// stateError says what kind of failure err is.
func stateError(doing string, err error) error {
	for _, code := range refusals() {
		if redis.HasErrorPrefix(err, code) || strings.HasPrefix(err.Error(), code) {
			return fmt.Errorf("%s: %w: %w", doing, ErrReadOnly, err)
		}
	}
	var netErr net.Error
	away := errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, redis.TxFailedErr)
	for _, code := range absences() {
		away = away || strings.HasPrefix(err.Error(), code)
	}
	if away {
		return fmt.Errorf("%s: %w: %w", doing, ErrAway, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
