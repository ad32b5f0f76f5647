package merge_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"understudy/integration/servers"
	"understudy/spamsync/replica/merge"
	"understudy/spamsync/replica/stream"
)

// farAway is the beginning of time for these tests: nothing expires while they run.
const farAway = 4_000_000_000_000

// site is a Redis on which rspamd 3.4 and builtin work: the commands are those that
// were seen in their replication streams.
type site struct {
	tb     testing.TB
	server *servers.KeyValue
	name   string
}

func newSite(tb testing.TB, name string, settings ...string) *site {
	tb.Helper()
	s := &site{tb: tb, name: name, server: servers.Redis(tb, append([]string{"--repl-backlog-size", "64mb", "--repl-backlog-ttl", "0"}, settings...)...)}
	s.startBacklog()
	return s
}

// startBacklog: a server keeps a backlog from its first replica on.
func (s *site) startBacklog() {
	s.tb.Helper()
	c, err := stream.Dial(s.tb.Context(), s.options())
	if err != nil {
		s.tb.Fatal(err)
	}
	if _, err := c.Psync(s.tb.Context(), stream.Point{}); err == nil {
		s.tb.Fatal("a full copy was refused")
	}
}

func (s *site) options() stream.Options { return stream.Options{Addr: s.server.Addr} }

func (s *site) now() stream.Point {
	s.tb.Helper()
	info, err := stream.FetchInfo(s.tb.Context(), s.options())
	if err != nil {
		s.tb.Fatal(err)
	}
	return info.Now
}

func (s *site) do(words ...any) { s.tb.Helper(); s.server.Do(words...) }

// tx is a transaction.
func (s *site) tx(cmds ...[]any) {
	s.tb.Helper()
	_, err := s.server.Client.TxPipelined(s.tb.Context(), func(p redis.Pipeliner) error {
		for _, c := range cmds {
			p.Do(s.tb.Context(), c...)
		}
		return nil
	})
	if err != nil {
		s.tb.Fatal(err)
	}
}

func words(w ...any) []any { return w }

// tokensOf are the tokens of message d: some it shares with others, one of its own.
func tokensOf(d int) []int { return []int{d % 3, 3 + d%5, 1000 + d} }

// learn teaches message d as rspamd does; false: it was refused as taught already.
func (s *site) learn(d int, class string, at int64) bool {
	s.tb.Helper()
	digest := "digest" + strconv.Itoa(d)
	value, field, total := "1", "S", "learns_spam"
	otherField, otherTotal := "H", "learns_ham"
	if class == "ham" {
		value = "-1"
		field, otherField = otherField, field
		total, otherTotal = otherTotal, total
	}
	old, _ := s.server.Client.HGet(s.tb.Context(), "learned_ids", digest).Result()
	if old == value {
		return false
	}
	transaction := func(field, total string, n int) {
		s.do("SADD", "BAYES_"+strings.ToUpper(class)+"_keys", "RS")
		s.do("HSET", "RS", "version", "2")
		var cmds [][]any
		for _, t := range tokensOf(d) {
			key := "RS_" + strconv.Itoa(t)
			cmds = append(cmds, words("HINCRBY", key, field, n), words("PEXPIREAT", key, farAway+at))
		}
		s.tx(append(cmds, words("HINCRBY", "RS", total, n))...)
	}
	if old != "" {
		transaction(otherField, otherTotal, -1)
	}
	transaction(field, total, 1)
	s.do("HSET", "learned_ids", digest, value)
	return true
}

// teach teaches message d as builtin does; class "" forgets it. False: it was taught
// so already.
func (s *site) teach(d int, class string, at int64) bool {
	s.tb.Helper()
	key := "us:{b1}:d:" + strconv.Itoa(d)
	old, _ := s.server.Client.Get(s.tb.Context(), key).Result()
	if old == class {
		return false
	}
	var cmds [][]any
	add := func(key, class string, n int) {
		if class != "" {
			cmds = append(cmds, words("HINCRBY", key, class[:1], n))
		}
	}
	for _, t := range tokensOf(d) {
		token := fmt.Sprintf("us:{b1}:t:%016x", t)
		add(token, old, -1)
		add(token, class, 1)
		cmds = append(cmds, words("PEXPIREAT", token, farAway+at))
	}
	add("us:{b1}:l", old, -1)
	add("us:{b1}:l", class, 1)
	if class == "" {
		cmds = append(cmds, words("DEL", key))
	} else {
		cmds = append(cmds, words("SET", key, class, "PXAT", farAway+at))
	}
	s.tx(cmds...)
	return true
}

func (s *site) grey(prefix string, d int, at int64) {
	s.tb.Helper()
	key := prefix + strconv.Itoa(d)
	if s.server.Client.Exists(s.tb.Context(), key).Val() == 0 {
		s.do("SET", key, at, "PXAT", farAway+at)
	}
}

func (s *site) counter(d int, n, at int64) {
	s.tb.Helper()
	key := "us:c:" + strconv.Itoa(d)
	s.tx(words("HINCRBY", key, "n", n), words("PEXPIREAT", key, farAway+at))
}

func (s *site) fuzzy(d int, weight, at int64) {
	s.tb.Helper()
	digest := strings.Repeat(string(rune('a'+d%26)), 60) + fmt.Sprintf("%04d", d)
	cmds := [][]any{
		words("HSET", "fuzzy"+digest, "F", "11"), words("HSETNX", "fuzzy"+digest, "C", at),
		words("HINCRBY", "fuzzy"+digest, "V", weight), words("PEXPIREAT", "fuzzy"+digest, farAway+at), words("INCR", "fuzzy_count"),
	}
	for i := range 3 {
		cmds = append(cmds, words("SET", fmt.Sprintf("fuzzy_%d_%d", i, d%4), digest, "PXAT", farAway+at))
	}
	s.tx(append(cmds, words("INCR", "fuzzylocal"))...)
}

// rate fills a bucket; it never leaks here, because what it leaks at one site only
// cannot be told from what it never had.
func (s *site) rate(d int, at int64) {
	s.tb.Helper()
	key := "RL" + strconv.Itoa(d)
	b, _ := s.server.Client.HGet(s.tb.Context(), key, "b").Int64()
	s.tx(words("HSET", key, "l", at), words("HSET", key, "b", b+1), words("HSET", key, "dr", 10000+at), words("PEXPIREAT", key, farAway+at))
}

func (s *site) reputation(d int, score float64, at int64) {
	s.tb.Helper()
	key := "RR:i:" + strconv.Itoa(d)
	s.tx(words("HSET", key, "v1m", strconv.FormatFloat(score, 'g', -1, 64)), words("HSET", key, "l", at), words("HINCRBY", key, "n", 1), words("PEXPIREAT", key, farAway+at))
}

// state is all that is in a Redis: key, type, value and end of life. Numbers that
// are zero are as good as absent, and so are the lives of keys that hold only such.
func (s *site) state() map[string]string {
	s.tb.Helper()
	c, ctx := s.server.Client, s.tb.Context()
	out := make(map[string]string)
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, k := range keys {
		if strings.HasPrefix(k, "us:merge:") {
			continue
		}
		life := c.Do(ctx, "PEXPIRETIME", k).Val()
		var value string
		switch kind := c.Type(ctx, k).Val(); kind {
		case "string":
			value = c.Get(ctx, k).Val()
		case "set":
			members := c.SMembers(ctx, k).Val()
			slices.Sort(members)
			value = strings.Join(members, " ")
		case "list":
			value = strings.Join(c.LRange(ctx, k, 0, -1).Val(), " ")
		case "hash":
			fields := c.HGetAll(ctx, k).Val()
			for _, f := range slices.Sorted(maps.Keys(fields)) {
				if fields[f] != "0" {
					value += f + "=" + fields[f] + " "
				}
			}
			if value == "" {
				continue
			}
		default:
			value = kind
		}
		out[k] = fmt.Sprintf("%s until %v", value, life)
	}
	return out
}

// values is the state without the lives, which a merge makes the longest.
func (s *site) values() map[string]string {
	s.tb.Helper()
	out := s.state()
	for k, v := range out {
		value, life, _ := strings.Cut(v, " until ")
		out[k] = fmt.Sprintf("%s, for ever: %v", value, life == "-1")
	}
	return out
}

// mergeInto merges what s did after fork into home.
func (s *site) mergeInto(home *site, fork stream.Point) (merge.Report, error) {
	return merge.Merge(s.tb.Context(), merge.Options{
		Home: home.server.Client, Follower: s.server.Client, Source: stream.Backlog{Options: s.options()},
		Fork: fork, Origin: s.name, Target: home.name,
	})
}
