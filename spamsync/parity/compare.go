package parity

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// rounding is what two prints of one score may differ by.
const rounding = 0.011

// Difference is one thing that is not the same at both sites.
type Difference struct {
	// Aspect is "version", "symbol", "action", "map", "setting", "redis", "clock", "dns", "score",
	// "noise" or "error".
	Aspect string `json:"aspect"`
	// Name is which: a symbol, a map, a name in DNS.
	Name string `json:"name,omitempty"`
	// Here and Peer are the values; empty is absent.
	Here string `json:"here,omitempty"`
	Peer string `json:"peer,omitempty"`
}

// String is "symbol BAYES_SPAM: here 5.1, peer absent".
func (d Difference) String() string {
	value := func(s string) string {
		if s == "" {
			return "absent"
		}
		return s
	}
	return fmt.Sprintf("%s: here %s, peer %s", trimmed(d.Aspect+" "+d.Name), value(d.Here), value(d.Peer))
}

func trimmed(s string) string {
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func rounded(f float64) string { return number(math.Round(f*1000) / 1000) }

// same says whether two judgements of one message agree in action, score, and
// symbols with their scores.
func same(a, b Judgement) bool {
	if a.Action != b.Action || math.Abs(a.Score-b.Score) > rounding || len(a.Symbols) != len(b.Symbols) {
		return false
	}
	for name, s := range a.Symbols {
		t, ok := b.Symbols[name]
		if !ok || math.Abs(s.Score-t.Score) > rounding {
			return false
		}
	}
	return true
}

// floor is how far one site's judgements of the same message are apart.
type floor struct {
	// score is what 95 of 100 messages stay below.
	score float64
	// symbols are the greatest distances, of those symbols that change at all.
	symbols map[string]float64
}

// of is how far the scores of a message with those symbols may be apart.
func (f floor) of(symbols []string) float64 {
	sum := f.score + rounding
	for _, name := range symbols {
		sum += f.symbols[name]
	}
	return sum
}

// classifiers are the symbols of Rspamd's classifier. Their scores differ a little
// from one start of Rspamd to the next, for it guesses a message's language by
// chance; a comparison of an instance with itself does not show that.
func classifiers() []string { return []string{"BAYES_HAM", "BAYES_SPAM"} }

// bayes is what the classifier says of a message; 0 where it says nothing.
func bayes(j Judgement) float64 {
	sum := 0.0
	for _, name := range classifiers() {
		sum += j.Symbols[name].Score
	}
	return sum
}

// withoutBayes is j without what the classifier says, and without the action, which
// a classifier's score may carry over a threshold.
func withoutBayes(j Judgement) Judgement {
	out := Judgement{Score: j.Score - bayes(j), Symbols: maps.Clone(j.Symbols)}
	for _, name := range classifiers() {
		delete(out.Symbols, name)
	}
	return out
}

// distances gathers how far judgements of one message at one site are apart.
type distances struct {
	scores  []float64
	symbols map[string][]float64
}

// add takes the judgements of one message at one site.
func (d *distances) add(list []Judgement) {
	if d.symbols == nil {
		d.symbols = make(map[string][]float64)
	}
	score := newSpan()
	for _, j := range list {
		score.add(j.Score)
	}
	d.scores = append(d.scores, score.width())
	for _, name := range names(list) {
		d.symbols[name] = append(d.symbols[name], symbolSpan(list, name).width())
	}
}

// floor is the noise; what a classifier says has at least that of bayes.
func (d *distances) floor(bayes float64) floor {
	f := floor{score: percentile(d.scores), symbols: make(map[string]float64, len(d.symbols))}
	for _, name := range classifiers() {
		f.symbols[name] = bayes
	}
	for name, list := range d.symbols {
		if widest := slices.Max(list); widest > max(rounding, f.symbols[name]) {
			f.symbols[name] = widest
		}
	}
	return f
}

// percentile is the 95th.
func percentile(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[(len(list)-1)*95/100]
}

// span is the range of some numbers.
type span struct { //nolint:recvcheck // a value, but for add
	low, high float64
	n         int
}

func newSpan() span { return span{low: math.Inf(1), high: math.Inf(-1)} }

func (s *span) add(f float64) {
	s.low, s.high, s.n = min(s.low, f), max(s.high, f), s.n+1
}

func (s span) width() float64 {
	if s.n == 0 {
		return 0
	}
	return s.high - s.low
}

// apart says whether no number of one range is within tolerance of the other.
func (s span) apart(t span, tolerance float64) bool {
	return s.low-t.high > tolerance || t.low-s.high > tolerance
}

func (s span) String() string {
	if s.width() <= rounding {
		return rounded(s.low)
	}
	return rounded(s.low) + " to " + rounded(s.high)
}

// distinguish names in what the judgements of one message at both sites do not
// overlap, beyond the noise. A symbol that changes its score from one time to the
// next at one site may differ between the sites by as much, which lets it vanish
// around zero, and may carry the score over a threshold; all others must agree.
func distinguish(here, peer []Judgement, noise floor) []Difference {
	var out []Difference
	all := names(here, peer)
	a, b := newSpan(), newSpan()
	for _, j := range here {
		a.add(j.Score)
	}
	for _, j := range peer {
		b.add(j.Score)
	}
	tolerance := noise.of(all)
	actionsHere, actionsPeer := actions(here), actions(peer)
	byNoise := a.apart(b, rounding) && !a.apart(b, tolerance)
	if !overlap(actionsHere, actionsPeer) && !byNoise {
		out = append(out, Difference{Aspect: "action", Here: actionsHere[0], Peer: actionsPeer[0]})
	}
	if a.apart(b, tolerance) {
		out = append(out, Difference{Aspect: "score", Here: a.String(), Peer: b.String()})
	}
	for _, name := range all {
		a, b := symbolSpan(here, name), symbolSpan(peer, name)
		changes := noise.symbols[name]
		switch {
		case a.n == len(here) && b.n == 0:
			if changes == 0 || a.apart(zero(), changes) {
				out = append(out, Difference{Aspect: "symbol", Name: name, Here: a.String()})
			}
		case b.n == len(peer) && a.n == 0:
			if changes == 0 || b.apart(zero(), changes) {
				out = append(out, Difference{Aspect: "symbol", Name: name, Peer: b.String()})
			}
		case a.n > 0 && b.n > 0 && a.apart(b, changes+rounding):
			out = append(out, Difference{Aspect: "symbol", Name: name, Here: a.String(), Peer: b.String()})
		}
	}
	return out
}

func zero() span { return span{n: 1} }

func actions(list []Judgement) []string {
	var out []string
	for _, j := range list {
		if !slices.Contains(out, j.Action) {
			out = append(out, j.Action)
		}
	}
	return out
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func names(lists ...[]Judgement) []string {
	var out []string
	for _, list := range lists {
		for _, j := range list {
			for name := range j.Symbols {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func symbolSpan(list []Judgement, name string) span {
	s := newSpan()
	for _, j := range list {
		if x, ok := j.Symbols[name]; ok {
			s.add(x.Score)
		}
	}
	return s
}

// byName orders differences for people.
func byName(a, b Difference) int {
	return cmp.Or(cmp.Compare(a.Aspect, b.Aspect), cmp.Compare(a.Name, b.Name))
}
