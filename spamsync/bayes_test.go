package spamsync

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"understudy/spamsync/message"
)

func parsed(tb testing.TB, text string) *message.Message {
	tb.Helper()
	m, err := message.Parse(strings.NewReader(strings.ReplaceAll(text, "\n", "\r\n")), message.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func texts(tokens []Token) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = t.Text
	}
	return out
}

func TestTokenize(t *testing.T) {
	t.Parallel()
	m := parsed(t, "Received: from x by y\nX-Spam: no\nSubject: =?utf-8?q?Gro=C3=9Fe?= SALE\nFrom: A <a@Shop.Example>\n\nBuy now, it's cheap! "+
		"http://www.shop.example/x 東京 "+strings.Repeat("z", 70)+" end\n")
	got := texts(Tokenize(m))
	for _, want := range []string{"große", "sale", "große sale", "from-domain:shop.example", "host:shop.example", "buy", "buy now", "it's", "cheap!", "東", "京", "東京", "long:zzzz8", "end", "no-date", "type:text/plain"} {
		if !slices.Contains(got, want) {
			t.Errorf("lacks %q in %q", want, got)
		}
	}
	for _, never := range []string{"received", "x-spam", "no"} {
		if slices.Contains(got, never) {
			t.Errorf("has %q", never)
		}
	}
}

// TestTokensKeepTheirMeaning: the state of running sites depends on these numbers.
func TestTokensKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"buy": 0x450632f61ddd67d6, "buy now": 0x79777fcab5e71992} {
		if got := hash('w', text); got != want {
			t.Errorf("hash of %q is %#x", text, got)
		}
	}
	if hash('w', "a  \r\n b") != hash('w', "a b") {
		t.Error("line breaks matter")
	}
	if hash('w', "a") == hash('s', "a") {
		t.Error("kinds do not matter")
	}
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("Subject: ")
	for i := range 3000 {
		fmt.Fprintf(&b, "h%d ", i)
	}
	b.WriteString("\n\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "w%d ", i)
	}
	tokens := Tokenize(parsed(t, b.String()))
	if len(tokens) != MaxTokens {
		t.Errorf("%d tokens", len(tokens))
	}
	seen := map[uint64]bool{}
	body := 0
	for _, tok := range tokens {
		if seen[tok.Hash] {
			t.Errorf("%q is there twice", tok.Text)
		}
		seen[tok.Hash] = true
		if strings.HasPrefix(tok.Text, "w") {
			body++
		}
	}
	if body < MaxTokens/2 {
		t.Errorf("a long header left %d tokens for the text", body)
	}
}

func TestDigestIgnoresTrace(t *testing.T) {
	t.Parallel()
	const rest = "Message-Id: <1@x>\nSubject: s\nFrom: a@b\n\nText  here\n"
	a, b := parsed(t, rest), parsed(t, "Received: by c\nX-Spam-Score: 1\n"+rest+"\n\n")
	if Digest(a) != Digest(b) {
		t.Error("trace changes the digest")
	}
	if Digest(a) == Digest(parsed(t, strings.Replace(rest, "here", "there", 1))) {
		t.Error("text does not")
	}
}

func TestChiSquare(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		x       float64
		degrees int
		want    float64
	}{
		// Tables of the distribution: upper 5 % and 1 % points.
		{5.991, 2, 0.05}, {9.210, 2, 0.01}, {18.307, 10, 0.05}, {124.342, 100, 0.05}, {0, 4, 1}, {5000, 300, 0},
	} {
		if got := chiSquare(tc.x, tc.degrees); math.Abs(got-tc.want) > 1e-4 {
			t.Errorf("chiSquare(%v, %d) = %v, want %v", tc.x, tc.degrees, got, tc.want)
		}
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := &Classifier{State: NewMemory(nil), MinLearns: 3}
	spam := parsed(t, "Subject: win money\n\ncheap pills winner casino jackpot bonus claim prize\n")
	ham := parsed(t, "Subject: meeting\n\nagenda minutes project deadline review budget colleague lunch\n")
	classify := func(m *message.Message) Bayes {
		t.Helper()
		b, err := c.Classify(ctx, Tokenize(m))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := classify(spam); b.Ready || b.Probability != 0.5 {
		t.Errorf("untrained: %+v", b)
	}
	for i := range 3 {
		if b := classify(spam); b.Ready {
			t.Errorf("ready after %d learns", i)
		}
		for class, m := range map[Class]*message.Message{Spam: spam, Ham: ham} {
			if _, err := c.Learn(ctx, fmt.Sprint(class, i), class, Tokenize(m)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if b := classify(spam); !b.Ready || b.Probability < 0.99 || len(b.Evidence) == 0 {
		t.Errorf("spam: %+v", b)
	}
	if b := classify(ham); !b.Ready || b.Probability > 0.01 {
		t.Errorf("ham: %+v", b)
	}
	if b := classify(parsed(t, "Subject: zzz\n\nxyzzy\n")); math.Abs(b.Probability-0.5) > 0.2 {
		t.Errorf("unknown: %+v", b)
	}
	before := classify(spam)
	if changed, err := c.Learn(ctx, fmt.Sprint(Spam, 0), Spam, Tokenize(spam)); changed || err != nil {
		t.Errorf("taught twice: %t, %v", changed, err)
	}
	if b := classify(spam); b.Probability != before.Probability || b.Learned != before.Learned {
		t.Errorf("teaching twice changed %+v to %+v", before, b)
	}
}

func BenchmarkTokenize(b *testing.B) {
	m := parsed(b, "Subject: hello\n\n"+strings.Repeat("The quick brown fox jumps over a lazy dog again and again. ", 140))
	b.SetBytes(int64(len(m.Text)))
	for b.Loop() {
		Tokenize(m)
	}
}
