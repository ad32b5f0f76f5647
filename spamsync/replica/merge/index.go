package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"understudy/spamsync/replica/stream"
)

// message is what the follower did to one message in the whole stream.
type message struct {
	// base is its class at the fork, final the one at the end.
	base, final class
	// expires belongs to the last learn.
	expires int64
	// left counts the transactions that are still to come.
	left int
}

// reputation is what the follower did to one group of reputation.
type reputation struct {
	// left counts the commands that are still to come.
	left int
	// delta is by how much its count grew in all.
	delta int64
}

// index is what has to be known before the first command is replayed.
type index struct {
	messages map[string]*message
	// digests names rspamd's learns by their end.
	digests map[stream.Point]string
	// matched are the places of the HSETs that named them.
	matched     map[stream.Point]bool
	reputations map[string]*reputation
	unnamed     int64
	ambiguous   int64
	commands    int64
	// own are commands of the follower itself.
	own int64
	end stream.Point

	open []*learned // rspamd's learns without a name yet
}

// openLimit bounds the learns that wait for their name: rspamd writes it some
// milliseconds later, so one this old will not get it any more.
const openLimit = 1000

// buildIndex reads the stream once, and finds layouts that are not known before
// anything is written.
func buildIndex(ctx context.Context, k keys, u *units, target string) (*index, error) {
	x := &index{
		messages: make(map[string]*message), digests: make(map[stream.Point]string),
		matched: make(map[stream.Point]bool), reputations: make(map[string]*reputation),
	}
	for {
		un, err := u.next(ctx)
		if errors.Is(err, io.EOF) {
			x.unnamed += int64(len(x.open))
			x.open = nil
			return x, nil
		}
		if err != nil {
			return nil, err
		}
		x.commands += un.raw
		x.end = un.end
		if un.from == target && un.from != "" {
			continue
		}
		x.own += int64(len(un.cmds))
		if err := x.add(k, un); err != nil {
			return nil, err
		}
	}
}

func (x *index) add(k keys, u unit) error {
	l, ok, err := k.learnOf(u)
	if err != nil {
		return err
	}
	if ok {
		x.learn(l)
		return nil
	}
	for _, cmd := range u.cmds {
		switch cmd.Name() {
		case "EVAL", "EVALSHA", "FCALL":
			return fmt.Errorf("%w: the stream has scripts instead of their effects; Redis 7 is needed", ErrLayout)
		}
		if len(cmd.Args) < 2 {
			continue
		}
		switch k.kind(cmd.Args[1]) { //nolint:exhaustive // the others need no look ahead
		case kindLearned:
			if cmd.Is("HSET") {
				if err := x.name(cmd); err != nil {
					return err
				}
			}
		case kindReputation:
			switch cmd.Name() {
			case "HSET", "HMSET", "HINCRBY", "PEXPIREAT":
				x.reputation(cmd)
			}
		}
	}
	return nil
}

// learn counts a learn whose name is known, or remembers it.
func (x *index) learn(l *learned) {
	if l.own {
		x.message(l.digest, l)
		return
	}
	l.tokens = nil // the look ahead does not need them
	x.open = append(x.open, l)
	if len(x.open) > openLimit {
		x.open = x.open[1:]
		x.unnamed++
	}
}

func (x *index) message(digest string, l *learned) {
	id := messageID(l.db, digest)
	m := x.messages[id]
	if m == nil {
		m = &message{base: l.before}
		x.messages[id] = m
	}
	m.final, m.expires = l.after, max(m.expires, l.expires)
	m.left++
}

// name gives rspamd's learns their digest: the oldest of that class that has none,
// and, where the message changed its class, the unlearning before it. They travel
// on different connections, and arrive in this order.
func (x *index) name(cmd stream.Command) error {
	for i := 2; i+1 < len(cmd.Args); i += 2 {
		c, err := learnedClass(cmd.Args[i+1])
		if err != nil {
			return err
		}
		digest := string(cmd.Args[i])
		at, candidates := -1, 0
		for j, l := range x.open {
			if l.after == c && l.db == cmd.DB {
				if at < 0 {
					at = j
				}
				candidates++
			}
		}
		if at < 0 {
			continue
		}
		if candidates > 1 {
			x.ambiguous++
		}
		for j := at - 1; j >= 0; j-- {
			if old := x.open[j]; old.after == noClass && old.before != c && old.db == cmd.DB {
				x.digests[old.end] = digest
				x.message(digest, old)
				x.open = append(x.open[:j], x.open[j+1:]...)
				at--
				break
			}
		}
		x.digests[x.open[at].end] = digest
		x.message(digest, x.open[at])
		x.open = append(x.open[:at], x.open[at+1:]...)
		x.matched[cmd.At()] = true
	}
	return nil
}

func (x *index) reputation(cmd stream.Command) {
	key := messageID(cmd.DB, string(cmd.Args[1]))
	r := x.reputations[key]
	if r == nil {
		r = &reputation{}
		x.reputations[key] = r
	}
	r.left++
	if cmd.Is("HINCRBY") && len(cmd.Args) == 4 && string(cmd.Args[2]) == "n" {
		n, _ := strconv.ParseInt(string(cmd.Args[3]), 10, 64)
		r.delta += n
	}
}
