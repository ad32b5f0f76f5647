package merge

import (
	"bytes"
	"regexp"
)

// kind is what a key holds, and so how it is merged.
type kind uint8

const (
	// kindUnknown is kept for the operator.
	kindUnknown kind = iota
	// kindNumber: a hash of numbers (tokens, learned messages, counters): deltas add up.
	kindNumber
	// kindDigest: builtin's record that a message was taught: part of its learn.
	kindDigest
	// kindLearned: rspamd's hash of taught messages: union, part of their learns.
	kindLearned
	// kindSet: union.
	kindSet
	// kindGrey: when something was seen first: the earliest, and the longest life.
	kindGrey
	// kindRate: a bucket of rspamd's ratelimit: newest time, fullest bucket.
	kindRate
	// kindReputation: counts by delta, averages weighted by them.
	kindReputation
	// kindFuzzy: a fuzzy hash: union, value by delta, longest life.
	kindFuzzy
	// kindShingle: leads to a fuzzy hash: union, the longest-lived one wins.
	kindShingle
	// kindCount: a number by itself: deltas add up.
	kindCount
	// kindHistory: a list per host: entries are appended.
	kindHistory
	// kindNeural: training vectors are united, a trained network is kept by its name.
	kindNeural
	// kindHousekeeping: each server's own business (locks, cursors, marks of merges).
	kindHousekeeping
)

// name is how reports call it.
func (k kind) name() string {
	switch k {
	case kindNumber:
		return "number"
	case kindDigest, kindLearned:
		return "digest"
	case kindSet:
		return "set"
	case kindGrey:
		return "greylist"
	case kindRate:
		return "ratelimit"
	case kindReputation:
		return "reputation"
	case kindFuzzy, kindShingle:
		return "fuzzy"
	case kindCount:
		return "count"
	case kindHistory:
		return "history"
	case kindNeural:
		return "neural"
	case kindHousekeeping:
		return "housekeeping"
	case kindUnknown:
	}
	return "unknown"
}

// Keys of package spamsync; its comment on them is the source.
const (
	ownToken   = "us:{b1}:t:"
	ownLearns  = "us:{b1}:l"
	ownDigest  = "us:{b1}:d:"
	ownGrey    = "us:g:"
	ownCounter = "us:c:"
	ownMark    = "us:merge:"
)

// fuzzyDigestBytes is the length of a digest in rspamd's fuzzy storage.
const fuzzyDigestBytes = 64

func (l Layout) withDefaults() Layout {
	if l.Bayes == "" {
		l.Bayes = "RS"
	}
	if l.Learned == "" {
		l.Learned = "learned_ids"
	}
	if l.Fuzzy == "" {
		l.Fuzzy = "fuzzy"
	}
	return l
}

// keys tells kinds by keys. It is built by newKeys and not changed.
type keys struct {
	layout  Layout
	shingle *regexp.Regexp // fuzzy_<n>_<number>
	house   *regexp.Regexp // rspamd's bayes_expiry names its keys by a SHA-1
}

func newKeys(l Layout) keys {
	l = l.withDefaults()
	return keys{
		layout:  l,
		shingle: regexp.MustCompile(`^` + regexp.QuoteMeta(l.Fuzzy) + `_[0-9]+_[0-9]+$`),
		house:   regexp.MustCompile(`^[0-9a-f]{40}_[a-z0-9_]+$`),
	}
}

// kind says what key holds.
func (k keys) kind(key []byte) kind {
	has := func(prefix string) bool { return bytes.HasPrefix(key, []byte(prefix)) }
	switch {
	case has("us:"):
		return k.own(has, key)
	case k.learned(key):
		return kindLearned
	case has(k.layout.Fuzzy):
		return k.fuzzy(key)
	case has("rs_history"):
		return kindHistory
	case has("rn_"), has("rn2_"), has("rn3_"):
		return kindNeural
	case has("RR:"):
		return kindReputation
	case has("RL"):
		return kindRate
	case has(k.layout.Bayes):
		return kindNumber
	case has("rg"):
		return kindGrey
	case has("BAYES_") && bytes.HasSuffix(key, []byte("_keys")):
		return kindSet
	case k.house.Match(key):
		return kindHousekeeping
	}
	return kindUnknown
}

func (k keys) own(has func(string) bool, key []byte) kind {
	switch {
	case has(ownToken), string(key) == ownLearns, has(ownCounter):
		return kindNumber
	case has(ownDigest):
		return kindDigest
	case has(ownGrey):
		return kindGrey
	case has(ownMark):
		return kindHousekeeping
	}
	return kindUnknown
}

func (k keys) fuzzy(key []byte) kind {
	rest := key[len(k.layout.Fuzzy):]
	switch {
	case k.shingle.Match(key):
		return kindShingle
	case len(rest) == fuzzyDigestBytes:
		return kindFuzzy
	case string(rest) == "_count", string(rest) == "local":
		return kindCount
	}
	return kindUnknown
}

// learned recognises the hash of taught messages. From rspamd 3.8 there are
// several, each limited in size: learned_ids, learned_idsX, learned_idsXX ...
func (k keys) learned(key []byte) bool {
	rest, ok := bytes.CutPrefix(key, []byte(k.layout.Learned))
	return ok && len(bytes.Trim(rest, "X")) == 0
}
