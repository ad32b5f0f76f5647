package parity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
)

const (
	// probeWorkers is how many messages are judged at a time.
	probeWorkers = 4
	// again is how often each site judges a message once more where they differ.
	again = 4
	// maxNamed bounds the messages that a report names.
	maxNamed = 50
	// maxNoise is the noise of scores beyond which nothing can be told.
	maxNoise = 2.0
	// maxDrift is how far the classifiers' scores may be apart on average.
	maxDrift = 0.25
)

// Judge is an engine that can judge without side effects. Judge may be called
// concurrently and repeated.
type Judge interface {
	Judge(ctx context.Context, m Message) (Judgement, error)
}

var _ Judge = (*Rspamd)(nil)

// Probe is what came of judging the same messages at both sites.
type Probe struct {
	// Messages were judged by both sites; of Failed at least one gave no judgement.
	Messages int `json:"messages"`
	Failed   int `json:"failed"`
	// Unequal is how many differ at first sight, NoiseHere and NoisePeer how many
	// differ between two judgements of the same site.
	Unequal   int `json:"unequal"`
	NoiseHere int `json:"noise_here"`
	NoisePeer int `json:"noise_peer"`
	// ScoreNoise is how far one site's scores for one message are apart; 95 of 100
	// messages stay below.
	ScoreNoise float64 `json:"score_noise"`
	// BayesDrift is how far the classifiers' scores are apart on average.
	BayesDrift float64 `json:"bayes_drift"`
	// Different is how many differ beyond the noise; Named are the first of them.
	Different int              `json:"different"`
	Named     []MessageReport  `json:"named,omitempty"`
	Symbols   []SymbolReport   `json:"symbols,omitempty"`
	Findings  []Difference     `json:"findings,omitempty"`
	Errors    []string         `json:"errors,omitempty"`
	Actions   map[string][]int `json:"actions"`

	// beyondBayes are those of Unequal that differ in more than what the classifier
	// says: that is measured by BayesDrift.
	beyondBayes int
}

// MessageReport is one message that the sites judge differently.
type MessageReport struct {
	Name        string       `json:"name"`
	Differences []Difference `json:"differences"`
}

// SymbolReport is a symbol that makes messages different.
type SymbolReport struct {
	Name     string `json:"name"`
	Messages int    `json:"messages"`
	// Here and Peer are its values in the first of them; empty is absent.
	Here string `json:"here,omitempty"`
	Peer string `json:"peer,omitempty"`
}

// pairs are one message's judgements.
type pairs struct {
	here, peer []Judgement
	err        error
}

// probe has both judge every message.
func probe(ctx context.Context, here, peer Judge, messages []Message, bayesTolerance float64) (Probe, error) {
	all := make([]pairs, len(messages))
	each(len(messages), func(i int) { all[i].judge(ctx, here, peer, messages[i], 2) })
	if err := ctx.Err(); err != nil {
		return Probe{}, fmt.Errorf("compare verdicts: %w", err)
	}
	var unequal []int
	p := Probe{Actions: make(map[string][]int)}
	for i := range all {
		m := &all[i]
		if m.err != nil {
			p.fail(messages[i].Name, m.err)
			continue
		}
		p.Messages++
		p.count(m.here[0].Action, 0)
		p.count(m.peer[0].Action, 1)
		if !same(m.here[0], m.here[1]) {
			p.NoiseHere++
		}
		if !same(m.peer[0], m.peer[1]) {
			p.NoisePeer++
		}
		if !same(m.here[0], m.peer[0]) {
			p.Unequal++
			if !same(withoutBayes(m.here[0]), withoutBayes(m.peer[0])) {
				p.beyondBayes++
			}
			unequal = append(unequal, i)
		}
	}
	each(len(unequal), func(i int) { all[unequal[i]].judge(ctx, here, peer, messages[unequal[i]], again) })
	if err := ctx.Err(); err != nil {
		return Probe{}, fmt.Errorf("compare verdicts: %w", err)
	}
	var apart distances
	for i := range all {
		if all[i].err == nil {
			apart.add(all[i].here)
			apart.add(all[i].peer)
		}
	}
	noise := apart.floor(bayesTolerance)
	p.ScoreNoise = noise.score
	p.sort(all, unequal, messages, noise)
	p.excess()
	p.drift(all)
	if p.Messages == 0 {
		return p, errors.New("compare verdicts: no message was judged by both sites: " + p.Errors[0])
	}
	return p, nil
}

// judge has both sites judge m n times, in turn.
func (p *pairs) judge(ctx context.Context, here, peer Judge, m Message, n int) {
	for range n {
		if p.err != nil {
			return
		}
		a, err := here.Judge(ctx, m)
		if err != nil {
			p.err = fmt.Errorf("here: %w", err)
			return
		}
		b, err := peer.Judge(ctx, m)
		if err != nil {
			p.err = fmt.Errorf("peer: %w", err)
			return
		}
		p.here, p.peer = append(p.here, a), append(p.peer, b)
	}
}

// each calls fn for 0 to n-1, several at a time.
func each(n int, fn func(int)) {
	var (
		wg   sync.WaitGroup
		next = make(chan int)
	)
	for range min(probeWorkers, n) {
		wg.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func (p *Probe) fail(name string, err error) {
	p.Failed++
	if len(p.Errors) < maxNamed {
		p.Errors = append(p.Errors, name+": "+err.Error())
	}
}

func (p *Probe) count(action string, site int) {
	n := p.Actions[action]
	if n == nil {
		n = []int{0, 0}
	}
	n[site]++
	p.Actions[action] = n
}

// sort tells noise from difference.
func (p *Probe) sort(all []pairs, unequal []int, messages []Message, noise floor) {
	symbols := make(map[string]*SymbolReport)
	for _, i := range unequal {
		if all[i].err != nil { // the second round failed
			p.Messages--
			p.fail(messages[i].Name, all[i].err)
			continue
		}
		diffs := distinguish(all[i].here, all[i].peer, noise)
		if len(diffs) == 0 {
			continue
		}
		p.Different++
		if len(p.Named) < maxNamed {
			p.Named = append(p.Named, MessageReport{Name: messages[i].Name, Differences: diffs})
		}
		for _, d := range diffs {
			if d.Aspect != "symbol" {
				continue
			}
			s, ok := symbols[d.Name]
			if !ok {
				s = &SymbolReport{Name: d.Name, Here: d.Here, Peer: d.Peer}
				symbols[d.Name] = s
			}
			s.Messages++
		}
	}
	for _, s := range symbols {
		p.Symbols = append(p.Symbols, *s)
	}
	slices.SortFunc(p.Symbols, func(a, b SymbolReport) int {
		if a.Messages != b.Messages {
			return b.Messages - a.Messages
		}
		return byName(Difference{Name: a.Name}, Difference{Name: b.Name})
	})
}

// excess finds what single messages do not show: far more messages that differ
// between the sites than at one of them, or one site that is far noisier.
func (p *Probe) excess() {
	limit := func(n int) int { return 2*n + 5 + p.Messages/50 }
	here, peer := strconv.Itoa(p.NoiseHere), strconv.Itoa(p.NoisePeer)
	if p.Different == 0 && p.beyondBayes > limit(max(p.NoiseHere, p.NoisePeer)) {
		p.Findings = append(p.Findings, Difference{
			Aspect: "noise", Name: fmt.Sprintf("%d messages differ between the sites, more than at either", p.beyondBayes), Here: here, Peer: peer,
		})
	}
	if p.ScoreNoise > maxNoise {
		p.Findings = append(p.Findings, Difference{
			Aspect: "noise", Name: fmt.Sprintf("scores change by up to %s from one time to the next, which hides differences (do DNS lists answer?)", rounded(p.ScoreNoise)),
			Here: here + " messages", Peer: peer + " messages",
		})
	}
	if p.NoisePeer > limit(p.NoiseHere) || p.NoiseHere > limit(p.NoisePeer) {
		p.Findings = append(p.Findings, Difference{Aspect: "noise", Name: "messages that one site judges differently at the second time", Here: here, Peer: peer})
	}
}

// drift compares the classifiers on the whole: each message may differ a little,
// all together must not.
func (p *Probe) drift(all []pairs) {
	var here, peer, apart float64
	n := 0.0
	for i := range all {
		if all[i].err != nil {
			continue
		}
		a, b := bayes(all[i].here[0]), bayes(all[i].peer[0])
		here, peer, apart, n = here+math.Abs(a), peer+math.Abs(b), apart+math.Abs(a-b), n+1
	}
	if n == 0 {
		return
	}
	p.BayesDrift = apart / n
	if p.BayesDrift > maxDrift {
		p.Findings = append(p.Findings, Difference{
			Aspect: "bayes", Name: "scores are " + rounded(p.BayesDrift) + " apart on average", Here: rounded(here / n), Peer: rounded(peer / n),
		})
	}
}
