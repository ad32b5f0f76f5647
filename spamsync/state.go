package spamsync

import (
	"context"
	"errors"
	"time"
)

// Errors of a State. They come wrapped; test them with errors.Is.
var (
	// ErrReadOnly: the server that takes writes refuses them now (a replica
	// without its master, a full disk, too few replicas). Nothing was written.
	ErrReadOnly = errors.New("spam state is read-only")
	// ErrAway: the server did not answer in time. A write may or may not have
	// happened.
	ErrAway = errors.New("spam state is away")
)

// Class is what a message was taught as.
type Class uint8

// The classes. The zero value is no class: what is taught as Unlearned is forgotten.
const (
	Unlearned Class = iota
	Ham
	Spam
)

// String is "unlearned", "ham" or "spam".
func (c Class) String() string {
	switch c {
	case Ham:
		return "ham"
	case Spam:
		return "spam"
	case Unlearned:
	}
	return "unlearned"
}

// Pair is how often something was seen in either class. Counts are never negative.
type Pair struct {
	Spam, Ham int64
}

// Counter is a named group of numbers that only ever change by deltas, so that
// two sites' changes add up when they are merged.
type Counter struct {
	// Key names the group, without the prefix of the state.
	Key string
	// Field names the number within the group.
	Field string
	// Delta is added to it.
	Delta int64
	// TTL is how long the group lives after this change.
	TTL time.Duration
}

// State is what both sites' filters remember together. All methods may be called
// concurrently. Every error is ErrReadOnly, ErrAway, or the state's own refusal
// of a malformed question; none of the methods blocks longer than the configured
// time.
//
// Reads are answered by this site's copy and may lag behind a write by the time
// replication takes.
type State interface {
	// Tokens returns how often each token was learned, in the order of hashes,
	// and the number of learned messages. Unknown tokens are zero.
	Tokens(ctx context.Context, hashes []uint64) (counts []Pair, learned Pair, err error)
	// Learn makes message digest one of class: its tokens are counted there, and
	// no longer in the class it was taught as before; Unlearned forgets it. False
	// says that it was of that class already and nothing changed. It is atomic: after an error
	// either all or nothing happened, and it may be repeated.
	Learn(ctx context.Context, digest string, class Class, hashes []uint64) (bool, error)
	// First returns when the greylist saw key first; the zero time where it did not.
	First(ctx context.Context, key string) (time.Time, error)
	// Touch records that the greylist saw key at that time, for ttl, and returns
	// the earliest time known: an earlier record stays, a later one is corrected.
	// It may be repeated.
	Touch(ctx context.Context, key string, at time.Time, ttl time.Duration) (time.Time, error)
	// Counters returns the numbers of each group, in the order of keys; an unknown
	// group is empty.
	Counters(ctx context.Context, keys []string) ([]map[string]int64, error)
	// Add applies all deltas, or none. After ErrAway it is not known which: do not
	// repeat it.
	Add(ctx context.Context, changes []Counter) error
}
