package spamsync

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// The constants of the combination (Robinson's f(w) and Fisher's chi-square).
const (
	// strength is the weight of the assumption that an unknown token says nothing.
	strength = 0.5
	// minDeviation leaves out tokens that say too little.
	minDeviation = 0.1
	// maxEvidence is how many of the strongest tokens count.
	maxEvidence = 150
	// minEvidence is how many there must be for a judgement.
	minEvidence = 5
)

// BayesConfig is the section spam.builtin.bayes.
type BayesConfig struct {
	MinLearns int `key:"min_learns" default:"200" doc:"Learned messages of each class before the classifier says anything."`
}

// Classifier tells spam from ham by what was learned. It keeps nothing itself.
type Classifier struct {
	State State
	// MinLearns is how many messages of each class must have been learned.
	MinLearns int
}

// Bayes is what the classifier says.
type Bayes struct {
	// Ready says that enough was learned and the message has enough known tokens;
	// else Probability is 0.5.
	Ready bool
	// Probability that it is spam, rounded to a millionth.
	Probability float64
	// Used is how many tokens counted.
	Used int
	// Learned is how many messages were learned.
	Learned Pair
	// Evidence holds the tokens that counted most, at most 8.
	Evidence []Evidence
}

// Evidence is one token and the probability it stands for.
type Evidence struct {
	Text        string
	Probability float64
}

// Learn teaches the message with that digest as class; Unlearned takes it back.
// False says that nothing was new.
func (c *Classifier) Learn(ctx context.Context, digest string, class Class, tokens []Token) (bool, error) {
	return c.State.Learn(ctx, digest, class, Hashes(tokens))
}

// Classify judges tokens. Errors are those of State.
func (c *Classifier) Classify(ctx context.Context, tokens []Token) (Bayes, error) {
	counts, learned, err := c.State.Tokens(ctx, Hashes(tokens))
	if err != nil {
		return Bayes{Probability: 0.5}, err
	}
	b := combine(tokens, counts, learned)
	if least := int64(c.MinLearns); learned.Spam < least || learned.Ham < least {
		b.Ready, b.Probability = false, 0.5
	}
	return b, nil
}

// weighed is a token with what it says.
type weighed struct {
	token Token
	p     float64
}

// combine is the pure part of Classify.
func combine(tokens []Token, counts []Pair, learned Pair) Bayes {
	b := Bayes{Probability: 0.5, Learned: learned}
	if learned.Spam == 0 || learned.Ham == 0 {
		return b
	}
	var list []weighed
	for i, c := range counts {
		n := float64(c.Spam + c.Ham)
		if n == 0 {
			continue
		}
		spam, ham := float64(c.Spam)/float64(learned.Spam), float64(c.Ham)/float64(learned.Ham)
		p := spam / (spam + ham)
		f := (strength*0.5 + float64(n*p)) / (strength + n)
		if math.Abs(f-0.5) >= minDeviation {
			list = append(list, weighed{tokens[i], f})
		}
	}
	// The order decides what is summed first: it must not depend on anything else.
	slices.SortFunc(list, func(a, b weighed) int {
		return cmp.Or(cmp.Compare(math.Abs(b.p-0.5), math.Abs(a.p-0.5)), cmp.Compare(a.token.Hash, b.token.Hash))
	})
	if len(list) > maxEvidence {
		list = list[:maxEvidence]
	}
	b.Used = len(list)
	for _, w := range list[:min(len(list), 8)] {
		b.Evidence = append(b.Evidence, Evidence{Text: w.token.Text, Probability: w.p})
	}
	if len(list) < minEvidence {
		return b
	}
	var logSpam, logHam float64
	for _, w := range list {
		logSpam += math.Log(w.p)
		logHam += math.Log(1 - w.p)
	}
	spamminess := 1 - chiSquare(-2*logHam, 2*len(list))
	hamminess := 1 - chiSquare(-2*logSpam, 2*len(list))
	b.Ready = true
	b.Probability = math.Round((1+spamminess-hamminess)/2*1e6) / 1e6
	return b
}

// chiSquare is the probability that a chi-square variable with an even number of
// degrees of freedom exceeds x.
func chiSquare(x float64, degrees int) float64 {
	m := x / 2
	logTerm := -m // of the series, so that nothing underflows on the way
	sum := math.Exp(logTerm)
	for i := 1; i < degrees/2; i++ {
		logTerm += math.Log(m / float64(i))
		sum += math.Exp(logTerm)
	}
	return min(sum, 1)
}
