package merge

import (
	"slices"
	"strconv"
	"strings"

	"understudy/spamsync/replica/stream"
)

// rule says what became of a command.
type rule uint8

const (
	// taken: it is part of the batch.
	taken rule = iota
	// stays: home keeps what it has; by the rule of its kind nothing is to be done.
	stays
	// strange: no rule covers it.
	strange
)

// apply puts one command into the batch by the rule of its key.
func (b *batch) apply(x *index, counts func(key string) int64, cmd stream.Command) (kind, rule) {
	if len(cmd.Args) < 2 {
		return kindUnknown, strange
	}
	k := b.keys.kind(cmd.Args[1])
	key := string(cmd.Args[1])
	switch cmd.Name() {
	case "PEXPIREAT":
		if ms, ok := integer(cmd, 2); ok && k != kindUnknown && k != kindHousekeeping && k != kindReputation {
			b.live(key, ms)
			return k, taken
		}
	case "DEL", "UNLINK", "HDEL", "SREM", "SPOP", "ZREMRANGEBYRANK", "ZREM", "RENAME", "DECR":
		// Something expired, was rotated away or deleted at one site only: union.
		if k != kindUnknown {
			return k, stays
		}
	}
	switch k {
	case kindNumber:
		return k, b.number(key, cmd)
	case kindCount:
		return k, b.counter(key, cmd)
	case kindSet:
		return k, b.passIf(k, cmd, "SADD")
	case kindHistory:
		return k, b.passIf(k, cmd, "LPUSH", "RPUSH", "LTRIM")
	case kindGrey, kindShingle:
		return k, b.record(k, key, cmd)
	case kindFuzzy:
		return k, b.fuzzyHash(key, cmd)
	case kindRate:
		return k, b.rate(key, cmd)
	case kindReputation:
		return k, b.reputation(x, counts, key, cmd)
	case kindNeural:
		return k, b.neural(key, cmd)
	case kindLearned:
		return k, b.learnedName(x, cmd)
	case kindHousekeeping:
		return k, stays
	case kindDigest, kindUnknown:
	}
	return k, strange
}

func integer(cmd stream.Command, i int) (int64, bool) {
	if i >= len(cmd.Args) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(cmd.Args[i]), 10, 64)
	return n, err == nil
}

func (b *batch) passIf(k kind, cmd stream.Command, names ...string) rule {
	if !slices.ContainsFunc(names, cmd.Is) {
		return strange
	}
	b.plain(k, cmd)
	return taken
}

func (b *batch) number(key string, cmd stream.Command) rule {
	switch cmd.Name() {
	case "HINCRBY":
		if n, ok := integer(cmd, 3); ok {
			b.add(key, string(cmd.Args[2]), n)
			return taken
		}
	case "HSET":
		// The version of the layout is all that is not a count. An absolute count
		// has no base to take a delta from.
		if len(cmd.Args) == 4 && string(cmd.Args[2]) == "version" {
			b.absent.add(key, "version", string(cmd.Args[3]))
			return taken
		}
	case "PERSIST":
		b.plain(kindNumber, cmd)
		return taken
	}
	return strange
}

func (b *batch) counter(key string, cmd stream.Command) rule {
	switch cmd.Name() {
	case "INCR":
		b.add(key, "", 1)
		return taken
	case "INCRBY":
		if n, ok := integer(cmd, 2); ok {
			b.add(key, "", n)
			return taken
		}
	}
	return strange
}

// record takes SET key value [PXAT ms | KEEPTTL].
func (b *batch) record(k kind, key string, cmd stream.Command) rule {
	if !cmd.Is("SET") || len(cmd.Args) < 3 {
		return strange
	}
	var ms int64
	for i := 3; i < len(cmd.Args); i++ {
		switch strings.ToUpper(string(cmd.Args[i])) {
		case "PXAT":
			n, ok := integer(cmd, i+1)
			if !ok {
				return strange
			}
			ms = n
			i++
		case "KEEPTTL", "NX", "XX", "GET":
		default:
			return strange
		}
	}
	p := &b.grey
	if k == kindShingle {
		p = &b.shingle
	}
	p.add(key, string(cmd.Args[2]), ms)
	return taken
}

func (b *batch) fuzzyHash(key string, cmd stream.Command) rule {
	switch cmd.Name() {
	case "HINCRBY":
		if n, ok := integer(cmd, 3); ok {
			b.add(key, string(cmd.Args[2]), n)
			return taken
		}
	case "HSET", "HSETNX":
		for i := 2; i+1 < len(cmd.Args); i += 2 {
			b.fuzzy.add(key, string(cmd.Args[i]), string(cmd.Args[i+1]))
		}
		return taken
	}
	return strange
}

func (b *batch) rate(key string, cmd stream.Command) rule {
	if !cmd.Is("HSET") && !cmd.Is("HMSET") {
		return strange
	}
	f := b.rates[key]
	if f == nil {
		f = &fields{values: make(map[string]string)}
		b.rates[key] = f
		b.sequence = append(b.sequence, func() []call {
			return []call{script(kindRate, scriptRate, []any{key}, f.args())}
		})
	}
	for i := 2; i+1 < len(cmd.Args); i += 2 {
		name, value := string(cmd.Args[i]), string(cmd.Args[i+1])
		if old, ok := f.values[name]; ok && name == "b" && less(value, old) {
			continue // the fullest of this batch
		}
		f.set(name, value)
	}
	return taken
}

func less(a, b string) bool {
	x, err := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err == nil && err2 == nil && x < y
}

func (f *fields) args() []any {
	out := make([]any, 0, 2*len(f.names))
	for _, n := range f.names {
		out = append(out, n, f.values[n])
	}
	return out
}

// reputation adds counts in every batch, and merges the averages with the last
// command of the stream about the group.
func (b *batch) reputation(x *index, counts func(string) int64, key string, cmd stream.Command) rule {
	known := x.reputations[messageID(cmd.DB, key)]
	if known == nil {
		return strange
	}
	known.left--
	g := b.groups[key]
	if g == nil {
		g = &group{fields: fields{values: make(map[string]string)}}
		b.groups[key] = g
		b.sequence = append(b.sequence, func() []call {
			args := []any{known.delta, g.delta, int64(-1), g.values["l"]}
			if known.left == 0 {
				args[2] = counts(key)
				for _, n := range g.names {
					if n != "l" {
						args = append(args, n, g.values[n])
					}
				}
			}
			return []call{script(kindReputation, scriptReputation, []any{key}, args)}
		})
	}
	switch cmd.Name() {
	case "HSET", "HMSET":
		for i := 2; i+1 < len(cmd.Args); i += 2 {
			g.set(string(cmd.Args[i]), string(cmd.Args[i+1]))
		}
		return taken
	case "HINCRBY":
		if n, ok := integer(cmd, 3); ok && string(cmd.Args[2]) == "n" {
			g.delta += n
			return taken
		}
	case "PEXPIREAT":
		if ms, ok := integer(cmd, 2); ok {
			b.live(key, ms)
			return taken
		}
	}
	return strange
}

func (b *batch) neural(key string, cmd stream.Command) rule {
	switch cmd.Name() {
	case "SADD":
		b.plain(kindNeural, cmd)
		return taken
	case "ZADD":
		if len(cmd.Args) == 4 {
			b.order = append(b.order, call{kind: kindNeural, words: []any{"ZADD", key, "GT", cmd.Args[2], cmd.Args[3]}})
			return taken
		}
	case "HINCRBY":
		if n, ok := integer(cmd, 3); ok {
			b.add(key, string(cmd.Args[2]), n)
			return taken
		}
	case "HSET":
		for i := 2; i+1 < len(cmd.Args); i += 2 {
			switch name := string(cmd.Args[i]); name {
			case "lock", "hostname":
			default:
				b.absent.add(key, name, string(cmd.Args[i+1]))
			}
		}
		return taken
	}
	return strange
}

// learnedName takes an entry of rspamd's hash of taught messages whose learn is not
// in the stream: it is set where home has none.
func (b *batch) learnedName(x *index, cmd stream.Command) rule {
	if !cmd.Is("HSET") {
		return strange
	}
	if x.matched[cmd.At()] {
		return taken // its learn has set it
	}
	for i := 2; i+1 < len(cmd.Args); i += 2 {
		b.absent.add(string(cmd.Args[1]), string(cmd.Args[i]), string(cmd.Args[i+1]))
	}
	return taken
}
