package merge

import (
	"bytes"
	"fmt"
	"strconv"

	"understudy/spamsync/replica/stream"
)

// class is what a message was taught as; the scripts use the same letters.
type class byte

const (
	noClass class = 'n'
	ham     class = 'h'
	spam    class = 's'
)

// token is a token's change in a learn.
type token struct {
	key       []byte
	spam, ham int64
}

// learned is one transaction that teaches (or unlearns) a message.
type learned struct {
	own bool // builtin's, whose digest is part of it
	db  int
	// digest is empty where rspamd names it later.
	digest string
	// before and after are the classes it moves the message from and to.
	before, after class
	// totals is the key of the numbers of learned messages.
	totals []byte
	tokens []token
	// expires is the life of its tokens, Unix milliseconds; 0: for ever.
	expires int64
	end     stream.Point
}

// learnOf reads a unit as a learn; false where it is none.
func (k keys) learnOf(u unit) (*learned, bool, error) {
	l := learned{db: u.db, before: noClass, after: noClass, end: u.end}
	at := make(map[string]int)
	for _, cmd := range u.cmds {
		if len(cmd.Args) < 2 {
			return nil, false, nil
		}
		kd := k.kind(cmd.Args[1])
		switch {
		case kd == kindNumber && cmd.Is("HINCRBY") && len(cmd.Args) == 4:
			ok, err := k.learnNumber(&l, at, cmd)
			if !ok || err != nil {
				return nil, false, err
			}
		case kd == kindNumber && cmd.Is("PEXPIREAT") && len(cmd.Args) >= 3:
			if n, err := strconv.ParseInt(string(cmd.Args[2]), 10, 64); err == nil {
				l.expires = max(l.expires, n)
			}
		case kd == kindDigest:
			digest, _ := bytes.CutPrefix(cmd.Args[1], []byte(ownDigest))
			l.own, l.digest = true, string(digest)
		case (kd == kindNumber && cmd.Is("HSET")) || (kd == kindSet && cmd.Is("SADD")):
			// 3.8 and later: "version" and the set of prefixes in the same script.
			// They are applied by their own rules.
		default:
			return nil, false, nil
		}
	}
	return &l, l.totals != nil && l.before != l.after, nil
}

// learnNumber adds one HINCRBY.
func (k keys) learnNumber(l *learned, at map[string]int, cmd stream.Command) (bool, error) {
	key, field := cmd.Args[1], string(cmd.Args[2])
	n, ok := integer(cmd, 3)
	if !ok || n == 0 {
		return false, nil
	}
	var c class
	switch field {
	case "S", "s", "learns_spam":
		c = spam
	case "H", "h", "learns_ham":
		c = ham
	default:
		if rest, ok := bytes.CutPrefix([]byte(field), []byte("learns_")); ok {
			return false, fmt.Errorf("%w: messages are taught as %q; only spam and ham are known", ErrLayout, rest)
		}
		return false, nil
	}
	if string(key) == ownLearns || bytes.HasPrefix([]byte(field), []byte("learns_")) {
		if l.totals != nil && !bytes.Equal(l.totals, key) {
			return false, nil // two users' statistics in one transaction
		}
		l.totals = key
		switch n {
		case 1:
			l.after = c
		case -1:
			l.before = c
		default:
			return false, nil
		}
		return true, nil
	}
	i, known := at[string(key)]
	if !known {
		i = len(l.tokens)
		at[string(key)] = i
		l.tokens = append(l.tokens, token{key: key})
	}
	if c == spam {
		l.tokens[i].spam += n
	} else {
		l.tokens[i].ham += n
	}
	return true, nil
}

// learnedClass reads a value of rspamd's hash of taught messages.
func learnedClass(value []byte) (class, error) {
	switch string(value) {
	case "1", "spam":
		return spam, nil
	case "-1", "0", "ham":
		return ham, nil
	}
	return noClass, fmt.Errorf("%w: a message was taught as %q; only spam and ham are known", ErrLayout, value)
}

// messageID tells messages of several databases apart.
func messageID(db int, digest string) string { return strconv.Itoa(db) + "/" + digest }
