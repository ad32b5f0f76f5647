package spamsync

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"understudy/spamsync/message"
)

// MaxTokens bounds the tokens of one message.
const MaxTokens = 1024

const (
	maxHeaderTokens = 192
	minWordBytes    = 2
	maxWordBytes    = 32
)

// Token is one feature of a message that a class may be told by.
type Token struct {
	// Hash is its identity in the state.
	Hash uint64
	// Text is what it stands for, for people: a word, two words, "host:example.com".
	Text string
}

// Tokenize returns the different tokens of a message in the order of their
// appearance, at most MaxTokens. It depends on nothing but the message, and on
// no header that a server on the way adds, so that both sites and a copy out of a
// mailbox give the same.
func Tokenize(m *message.Message) []Token {
	t := &tokenizer{seen: make(map[uint64]struct{}, MaxTokens), limit: maxHeaderTokens}
	t.header(m)
	t.shape(m)
	t.limit = MaxTokens
	t.words('w', m.Text, true)
	return t.list
}

// Hashes are the identities of tokens, in their order.
func Hashes(tokens []Token) []uint64 {
	out := make([]uint64, len(tokens))
	for i, t := range tokens {
		out[i] = t.Hash
	}
	return out
}

// Digest names a message for learning: copies of it in mailboxes of both sites
// have the same digest, whatever trace was added on their way.
func Digest(m *message.Message) string {
	h := sha256.New()
	for _, name := range []string{"Message-Id", "Date", "From", "To", "Subject"} {
		h.Write([]byte(name + ":" + strings.Join(m.Values(name), "\n") + "\n"))
	}
	for word := range strings.FieldsSeq(m.Text) {
		h.Write([]byte(word + " "))
	}
	for _, p := range m.Parts {
		h.Write([]byte(p.Type + "/" + p.Name + "/"))
		if p.TextBytes == 0 && !p.Container() {
			h.Write(p.Head)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

type tokenizer struct {
	list  []Token
	seen  map[uint64]struct{}
	limit int
}

// add adds one token of a kind; it reports whether there is room for more.
func (t *tokenizer) add(kind byte, text string) bool {
	if len(t.list) >= t.limit {
		return false
	}
	h := hash(kind, text)
	if _, there := t.seen[h]; !there {
		t.seen[h] = struct{}{}
		t.list = append(t.list, Token{Hash: h, Text: text})
	}
	return true
}

// hash is 64-bit FNV-1a over kind and text, with runs of what is no letter or
// digit taken as one blank.
func hash(kind byte, text string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	h = (h ^ uint64(kind)) * prime
	for i := range len(text) {
		c := text[i]
		if c == '\r' || c == '\n' || c == '\t' {
			c = ' '
		}
		if c == ' ' && i > 0 && (text[i-1] <= ' ') {
			continue
		}
		h = (h ^ uint64(c)) * prime
	}
	return h
}

// header adds what the sender wrote into the header.
func (t *tokenizer) header(m *message.Message) {
	t.words('s', message.DecodeHeader(m.Get("Subject")), true)
	from := strings.ToLower(message.DecodeHeader(m.Get("From")))
	t.words('f', from, false)
	if i := strings.LastIndexByte(from, '@'); i >= 0 {
		t.add('F', "from-domain:"+strings.Trim(from[i+1:], "> \t"))
	}
	for _, name := range []string{"Reply-To", "List-Id", "X-Mailer", "User-Agent", "Organization", "Precedence", "Content-Language"} {
		if v := m.Get(name); v != "" {
			t.words('h', name+" "+message.DecodeHeader(v), false)
		}
	}
	for _, name := range []string{"To", "Date", "Message-Id", "Mime-Version", "List-Unsubscribe", "In-Reply-To", "References"} {
		if m.Get(name) == "" {
			t.add('n', "no-"+strings.ToLower(name))
		} else {
			t.add('n', "has-"+strings.ToLower(name))
		}
	}
}

// shape adds URLs, the structure and what is broken.
func (t *tokenizer) shape(m *message.Message) {
	for _, u := range m.URLs {
		host := strings.TrimPrefix(u.Host, "www.")
		if u.Numeric() {
			host = "numeric"
		}
		t.add('u', "host:"+host)
		if i := strings.IndexByte(host, '.'); i >= 0 && strings.Count(host, ".") > 1 {
			t.add('u', "host:"+host[i+1:])
		}
	}
	for _, p := range m.Parts {
		t.add('m', "type:"+p.Type)
		if p.Charset != "" {
			t.add('m', "charset:"+p.Charset)
		}
		if i := strings.LastIndexByte(p.Name, '.'); i >= 0 {
			t.add('m', "file:"+strings.ToLower(p.Name[i:]))
		}
	}
	for _, f := range m.Faults {
		t.add('b', "fault:"+string(f))
	}
	if m.HTML.Parts > 0 {
		t.add('m', "images:"+strconv.Itoa(min(m.HTML.Images, 4)))
		t.add('m', "links:"+strconv.Itoa(min(m.HTML.Links, 8)/2))
	}
}

// words adds the words of text, and with pairs also each two neighbours. Scripts
// without blanks give single characters and pairs of them.
func (t *tokenizer) words(kind byte, text string, pairs bool) {
	text = strings.ToLower(text)
	prev := -1 // where the word before began
	emit := func(start, end int) bool {
		word := text[start:end]
		if n := len(word); n > maxWordBytes {
			prev = -1
			return t.add(kind, "long:"+strings.ToValidUTF8(word[:4], "")+strconv.Itoa(min(n, 256)/8))
		}
		more := t.add(kind, word)
		if pairs && prev >= 0 && end-prev <= 2*maxWordBytes+4 {
			more = t.add(kind+'A'-'a', text[prev:end])
		}
		prev = start
		return more
	}
	start := -1
	for i, r := range text {
		switch {
		case wide(r):
			if start >= 0 && !emit(start, i) {
				return
			}
			start = -1
			if !emit(i, i+utf8.RuneLen(r)) {
				return
			}
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mn, r) || r == '$' || r == '€' || r == '%' || r == '!' || start >= 0 && (r == '-' || r == '\''):
			if start < 0 {
				start = i
			}
		case start >= 0:
			if i-start >= minWordBytes && !emit(start, i) {
				return
			}
			start = -1
		}
	}
	if start >= 0 && len(text)-start >= minWordBytes {
		emit(start, len(text))
	}
}

// wide reports whether r belongs to a script that writes without blanks.
func wide(r rune) bool {
	return r >= 0x0e00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai)
}
