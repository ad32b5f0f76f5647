package merge

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"understudy/spamsync/replica/stream"
)

// Options say what is merged into what.
type Options struct {
	// Home leads to the server that is written to; the merge uses its options for
	// connections of its own, with longer time-outs.
	Home *redis.Client
	// Follower, where set, is asked for what the stream does not tell (how often a
	// sender was seen in all); it is only read. It may be nil.
	Follower *redis.Client
	// Source has the follower's commands; FirstOf joins several: the journal first,
	// which has more than the backlog after a crash.
	Source stream.Source
	// Fork is the place after which home lacks what the follower did (stream.Fork).
	Fork stream.Point
	// To is where the merge ends; the zero Point is where the follower is now.
	To stream.Point
	// Origin is the follower's site, Target the home's.
	Origin, Target string
	// DB is the database of commands before the first SELECT of the stream.
	DB int
	// DryRun reads and decides, and writes nothing.
	DryRun bool
	// Keep, where set, receives the commands that no rule covers, in the form that
	// redis-cli --pipe takes.
	Keep io.Writer
	// BatchCommands is after how many commands of the follower a transaction on home
	// ends; 2000 by default. A learn is never cut.
	BatchCommands int
	// Layout names the keys; the zero value is rspamd's defaults.
	Layout Layout
	// OnBatch, where set, is called after every batch with what was done so far.
	OnBatch func(Report)
	// Logger may be nil.
	Logger *slog.Logger
}

// Layout names the keys of an rspamd that does not use its defaults.
type Layout struct {
	// Bayes is the prefix of the token keys, "RS" by default.
	Bayes string
	// Learned is the hash of learned digests, "learned_ids" by default.
	Learned string
	// Fuzzy is the prefix of the fuzzy storage, "fuzzy" by default.
	Fuzzy string
}

// KindReport counts what was done to one kind of key.
type KindReport struct {
	// Commands of the follower, and how many of them changed nothing on home because
	// home had the same or a newer value.
	Commands int64 `json:"commands"`
	Kept     int64 `json:"kept"`
}

// UnknownKey is a key that no rule covers.
type UnknownKey struct {
	DB       int    `json:"db"`
	Key      string `json:"key"`
	Command  string `json:"command"`
	Commands int64  `json:"commands"`
}

// LearnReport counts learned messages.
type LearnReport struct {
	// Applied were counted on home as the follower did.
	Applied int64 `json:"applied"`
	// Double were taught the same at both sites and count once.
	Double int64 `json:"double"`
	// HomeWon and FollowerWon were taught differently; the newer one counts.
	HomeWon     int64 `json:"home_won"`
	FollowerWon int64 `json:"follower_won"`
	// Unnamed had no digest in the stream: their tokens count, double learning of
	// them cannot be seen.
	Unnamed int64 `json:"unnamed"`
	// Ambiguous digests could belong to more than one message (rspamd writes them
	// apart from the tokens); the first was taken.
	Ambiguous int64 `json:"ambiguous"`
}

// Report is what a merge did, or would do.
type Report struct {
	Origin string       `json:"origin"`
	Target string       `json:"target"`
	DryRun bool         `json:"dry_run,omitempty"`
	Fork   stream.Point `json:"fork"`
	// From is where this merge started: the fork, or the mark of an earlier one
	// (Resumed). To is the place up to which home has everything.
	From    stream.Point `json:"from"`
	To      stream.Point `json:"to"`
	Resumed bool         `json:"resumed,omitempty"`
	// Commands and Bytes of the follower's stream, Batches written on home.
	Commands int64 `json:"commands"`
	Bytes    int64 `json:"bytes"`
	Batches  int64 `json:"batches"`
	// Returned is how many commands had come from home by an earlier merge.
	Returned int64 `json:"returned"`
	// Kinds counts by kind of key.
	Kinds  map[string]KindReport `json:"kinds"`
	Learns LearnReport           `json:"learns"`
	// Unknown are the keys no rule covers, at most 1000 of them; UnknownCommands
	// counts all their commands. They were not applied.
	Unknown         []UnknownKey `json:"unknown,omitempty"`
	UnknownCommands int64        `json:"unknown_commands"`
	// Notes are for the operator: what could not be done exactly, and why.
	Notes []string      `json:"notes,omitempty"`
	Took  time.Duration `json:"took"`
}

// Errors of a merge. They come wrapped; test them with errors.Is.
var (
	// ErrLayout: the stream has a layout of rspamd this version does not know.
	// Nothing was written.
	ErrLayout = errors.New("unknown layout of the spam state")
	// ErrHomeEmpty: home has no key and no history in common with the fork: it was
	// flushed, or started without its data. Nothing was written.
	ErrHomeEmpty = errors.New("home is empty")
	// ErrBusy: another merge into this home is at work.
	ErrBusy = errors.New("another merge is at work")
)
