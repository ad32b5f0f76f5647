package merge

import (
	"strconv"

	"understudy/spamsync/replica/stream"
)

// number is one number of a hash; field is empty for a number by itself.
type number struct{ key, field string }

// call is one command of a batch: words as the client library takes them. script
// says that its answer is that of a script.
type call struct {
	kind   kind
	script bool
	learn  bool
	words  []any
}

// pairs collects the same script's keys and arguments.
type pairs struct{ keys, args []any }

func (p *pairs) add(key string, args ...any) {
	p.keys = append(p.keys, key)
	p.args = append(p.args, args...)
}

// batch collects what one transaction on home will do. What commutes is summed up.
type batch struct {
	mark string // key
	keys keys
	dry  bool

	db     int
	units  int
	size   int // commands of the follower
	end    stream.Point
	counts map[kind]*KindReport

	order   []call // in the order of the stream
	numbers map[number]int64
	lives   map[string]int64
	living  []string // their order
	grey    pairs
	shingle pairs
	fuzzy   pairs
	absent  pairs
	rates   map[string]*fields
	groups  map[string]*group
	// sequence keeps maps in the order of the stream, so that batches are the same
	// every time.
	sequence []func() []call
}

// fields are the last values of a hash.
type fields struct {
	names  []string
	values map[string]string
}

func (f *fields) set(name, value string) {
	if _, ok := f.values[name]; !ok {
		f.names = append(f.names, name)
	}
	f.values[name] = value
}

// group is reputation in this batch.
type group struct {
	fields
	delta int64
}

func newBatch(k keys, mark string, dry bool) *batch {
	return &batch{
		mark: mark, keys: k, dry: dry, counts: make(map[kind]*KindReport),
		numbers: make(map[number]int64), lives: make(map[string]int64),
		rates: make(map[string]*fields), groups: make(map[string]*group),
	}
}

func (b *batch) count(k kind) *KindReport {
	c := b.counts[k]
	if c == nil {
		c = &KindReport{}
		b.counts[k] = c
	}
	return c
}

// add counts up a number.
func (b *batch) add(key, field string, n int64) {
	id := number{key, field}
	if _, ok := b.numbers[id]; !ok {
		b.sequence = append(b.sequence, func() []call {
			n := b.numbers[id]
			switch {
			case n == 0:
				return nil
			case id.field == "":
				return []call{{kind: kindCount, words: []any{"INCRBY", id.key, n}}}
			}
			return []call{{kind: kindNumber, words: []any{"HINCRBY", id.key, id.field, n}}}
		})
	}
	b.numbers[id] += n
}

// live makes a key live until then at least.
func (b *batch) live(key string, ms int64) {
	if _, ok := b.lives[key]; !ok {
		b.living = append(b.living, key)
	}
	b.lives[key] = max(b.lives[key], ms)
}

// plain passes a command on as it is.
func (b *batch) plain(k kind, cmd stream.Command) {
	words := make([]any, len(cmd.Args))
	for i, a := range cmd.Args {
		words[i] = a
	}
	b.order = append(b.order, call{kind: k, words: words})
}

// learn replays a learn whose message is known.
func (b *batch) learn(l *learned, m *message) {
	flag := func(on bool) string {
		if on {
			return "1"
		}
		return "0"
	}
	place := b.keys.layout.Learned
	if l.own {
		place = ownDigest + l.digest
	}
	keys := make([]any, 0, 3+len(l.tokens))
	keys = append(keys, b.mark, l.totals, place)
	args := make([]any, 0, 10+2*len(l.tokens))
	args = append(args, flag(b.dry), flag(l.own), l.digest, string(l.before), string(l.after),
		string(m.base), string(m.final), l.expires, m.expires, flag(m.left > 0))
	for _, t := range l.tokens {
		keys = append(keys, t.key)
		args = append(args, t.spam, t.ham)
	}
	c := script(kindNumber, scriptLearn, keys, args)
	c.learn = true
	b.order = append(b.order, c)
}

// script is a call of a script. Its text goes along every time: a transaction whose
// script the server does not know would be carried out without it.
func script(k kind, text string, keys, args []any) call {
	words := make([]any, 0, 3+len(keys)+len(args))
	words = append(words, "EVAL", text, strconv.Itoa(len(keys)))
	words = append(append(words, keys...), args...)
	return call{kind: k, script: true, words: words}
}

// calls are the commands of the transaction, in order. Learns come first: their
// decisions look at lives that the others change.
func (b *batch) calls() []call {
	var out, last []call
	if len(b.living) > 0 {
		keys, ends := []any{b.mark}, make([]any, len(b.living))
		for i, key := range b.living {
			keys, ends[i] = append(keys, key), b.lives[key]
		}
		out = append(out, script(kindNumber, scriptPersistent, keys, nil))
		last = append(last, script(kindNumber, scriptLives, keys, ends))
	}
	out = append(out, b.order...)
	for _, p := range []struct {
		kind kind
		text string
		pairs
	}{
		{kindGrey, scriptGrey, b.grey},
		{kindShingle, scriptShingle, b.shingle},
		{kindFuzzy, scriptFuzzy, b.fuzzy},
		{kindNumber, scriptAbsent, b.absent},
	} {
		if len(p.keys) > 0 {
			out = append(out, script(p.kind, p.text, p.keys, p.args))
		}
	}
	for _, next := range b.sequence {
		out = append(out, next()...)
	}
	return append(out, last...)
}
